"""What the terminal says of a run before and after it: what is planned, and what came of it."""

from collections.abc import Sequence
from functools import partial

from rich.markup import escape

from sweeps.engine.declaring import declared_line
from sweeps.engine.pace import duration
from sweeps.engine.plan import Plan, stage_store
from sweeps.engine.run import Summary
from sweeps.engine.stages import stated_seconds
from sweeps.engine.tuning import Tuning
from sweeps.ledger.files import Store
from sweeps.ledger.progress import spread
from sweeps.ledger.read import read_table
from sweeps.search.trials import OPEN, Trial, counts

SAMPLED_STAGES = 96
"""Stored stages whose seconds are read for the estimate."""


def committed(plan: Plan, ledger: Store) -> int:
    """How many of the planned cells are there and can be read."""
    table, _ = read_table(ledger, "cells", set(plan.keys), ["key"])
    return table.num_rows


def count_line(plan: Plan, ledger: Store) -> str:
    return _counted(plan, committed(plan, ledger))


def _counted(plan: Plan, there: int) -> str:
    return f"{there} of {len(plan.keys)} cells are committed"


def last_line(plan: Plan, summary: Summary, there: int) -> str:
    """Cells that are there, wall time, compute time, slots, efficiency, stages."""
    line = _counted(plan, there)
    if not (summary.cells or summary.failed):
        return f"{line}; nothing was left to compute"
    line += (
        f"; wall {duration(summary.wall_s)}, compute {duration(summary.compute_s)} on "
        f"{summary.slots} slots, efficiency {summary.efficiency:.0%}; stages: "
        f"{summary.stages_computed} computed, {summary.stages_reused} reused"
    )
    if summary.repeated:
        line += f"; {summary.repeated} interrupted by a lost worker and repeated"
    if summary.ended:
        line += f"; {summary.ended} ended by the pruner"
    if summary.failed:
        line += f"; {summary.failed} failed (--retry-failed computes them again)"
    return line


def describe(plan: Plan, results: str) -> str:
    """What is planned, there, failed and left, with an estimate from the ledger's own timings."""
    shared = len(plan.cells) - len(plan.keys)
    lines = [
        f"[bold]{plan.study.name}[/]: {escape(plan.study.question)}",
        f"{len(plan.arms)} arms × {len(plan.seeds)} seeds = {len(plan.cells)} cells"
        f"{f' ({shared} of them shared by two arms)' if shared else ''} on "
        f"{escape(', '.join(plan.fingerprints))} (preset {plan.request.preset}, protocol "
        f"{plan.request.protocol}); {len(plan.done)} committed, {len(plan.failed)} failed, "
        f"[bold]{len(plan.todo)} to compute[/]",
        f"stages: {len(plan.stages)} to compute, {plan.reused} uses of stored or shared ones",
    ]
    lines += [escape(line) for line in (*plan.data, declared_line(plan), *plan.notes)]
    if plan.request.until is not None:
        from sweeps.engine.race import race_line

        lines.append(race_line(plan))
    if plan.todo:
        lines.append(_estimate(plan, results))
    return "\n".join(lines)


def _estimate(plan: Plan, results: str) -> str:
    ledger = Store(results).child(plan.study.name)
    table, _ = read_table(ledger, "cells", set(plan.done), ["wall_s"])
    seconds = table["wall_s"].to_pylist()
    if not seconds:
        return "time: unknown until the first cells are there"
    stages = stage_store(results).store
    names = [name[:-5] for name in stages.names("", ".json")]
    stated = stages.each(partial(stated_seconds, stages), spread(names, SAMPLED_STAGES))
    known = [seconds for seconds in stated if seconds]
    total = len(plan.todo) * sum(seconds) / len(seconds)
    total += len(plan.stages) * (sum(known) / len(known) if known else 0.0)
    return f"time: about {duration(total)} of compute ÷ slots (from {len(seconds)} committed cells)"


def counted(tuning: Tuning, trials: Sequence[Trial]) -> str:
    """How many proposals there are, of how many, and how they ended."""
    asked = tuning.problem.trials * len(tuning.problem.groups)
    states = ", ".join(f"{n} {state}" for state, n in counts(trials).items() if n)
    if ended := sum(p.ended_in is not None for p in trials):
        states += f"; {ended} of them in a running cell"
    cells = sum(len(p.values) for p in trials)
    return (
        f"{tuning.search.name}: {len(trials)} of {asked} proposals"
        f"{f' ({states})' if states else ''}, {cells} tuning cells committed"
    )


def cells_left(tuning: Tuning, trials: Sequence[Trial]) -> int:
    """Cells of tuning and report that are not there, as if no arm were stopped any more."""
    problem, groups = tuning.problem, len(tuning.problem.groups)
    open_arms = problem.trials * groups - sum(p.state != OPEN for p in trials)
    there = sum(len(p.values) for p in trials if p.state == OPEN)
    report = 2 * groups * len(tuning.reporting_seeds)
    return open_arms * len(problem.seeds) - there + report


def describe_search(tuning: Tuning, trials: Sequence[Trial]) -> str:
    """What is planned and what is there."""
    problem = tuning.problem
    groups, seeds = len(problem.groups), len(problem.seeds)
    most = problem.trials * groups * seeds
    arms = 2 * groups
    return "\n".join(
        [
            f"[bold]{tuning.search.name}[/]: {escape(tuning.search.question)}",
            f"tuning: {groups} × {problem.trials} proposals × {seeds} seeds = at most {most} cells "
            f"on {escape(tuning.data)} (preset {tuning.request.preset}, protocol "
            f"{tuning.request.protocol}); the stopping rule may end an arm early"
            f"{f', and --prune {problem.prune} a running cell' if problem.prune else ''}",
            *map(escape, tuning.notes),
            counted(tuning, trials),
            f"reporting: {arms} arms (default and tuned) × {len(tuning.reporting_seeds)} seeds = "
            f"{arms * len(tuning.reporting_seeds)} cells",
        ]
    )
