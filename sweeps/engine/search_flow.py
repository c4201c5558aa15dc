"""A search from start to end: tune, write what came of it, report as an ordinary study."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from sweeps.engine.cli import TELL_EVERY_S, LastStep, run_study
from sweeps.engine.display import Display, chatter_to
from sweeps.engine.provenance import source
from sweeps.engine.run import Where, database
from sweeps.engine.search import Tuning, reporting_study
from sweeps.engine.search_run import (
    search_inline,
    search_on_cluster,
    winners,
    write_outcome,
)
from sweeps.engine.search_work import TuningWork
from sweeps.engine.session import OK, SOME_FAILED, Session
from sweeps.ledger.background import Compacting
from sweeps.ledger.files import Store
from sweeps.ledger.lock import Lock
from sweeps.ledger.progress import say_running
from sweeps.ledger.quarantine import quarantine_damaged
from sweeps.search.campaign import Campaign
from sweeps.search.proposals import counts
from sweeps.search.storage import to_log


def run_search(
    tuning: Tuning,
    where: Where,
    last_step: LastStep,
    *,
    session: Session,
    results: str,
    only_plan: bool,
    retry_failed: bool,
    quiet: bool,
) -> int:
    """Tune, write what came of it, rerun winners and defaults; returns the exit code."""
    ledger = Store(results).child(tuning.name)

    def work_of(token: str) -> TuningWork:
        return TuningWork(
            tuning=tuning,
            results=results,
            token=token,
            commit=source(),
            retry_failed=retry_failed,
            deadline_s=where.deadline_s,
        )

    console = Console()
    session.results = results
    if only_plan:
        console.print(describe(tuning, work_of("")), soft_wrap=True)
        return OK
    with Lock(ledger) as lock:
        work = work_of(lock.token)
        session.count = partial(counted, tuning, work)
        proposals = work.read()
        for name, reason in quarantine_damaged(ledger, set(work.plan(proposals).done)):
            Console(stderr=True).print(
                f"[yellow]damaged:[/] {escape(name)} ({escape(reason)}) moved to quarantine/, "
                "computed again",
                soft_wrap=True,
            )
        work.write_manifest(work.known())
        if not quiet:
            console.print(describe(tuning, work), soft_wrap=True)
        _tune(work, where, session, quiet=quiet)
        work = replace(work, retry_failed=False)  # what failed again has failed
        proposals = work.known()
        work.write_manifest(proposals)
        console.print(counted(tuning, work), soft_wrap=True)
        write_outcome(Store(results).child(tuning.search.name), tuning, proposals)
    best = winners(tuning, proposals)
    if lacking := [group for group in tuning.problem.groups if group not in best]:
        console.print(
            f"no proposal of {', '.join(lacking) or tuning.search.name} is complete: nothing to "
            f"report (see {ledger.root}/failures; --retry-failed computes them again)",
            soft_wrap=True,
        )
        return SOME_FAILED
    study, request = reporting_study(tuning, {group: p.point for group, p in best.items()})
    return run_study(
        study,
        request,
        where,
        last_step,
        session=session,
        results=results,
        only_plan=False,
        retry_failed=retry_failed,
        quiet=quiet,
    )


def warn(text: str) -> None:
    """Something that a quiet user wants to know as well."""
    Console(stderr=True).print(escape(text), soft_wrap=True, style="yellow")


def _tune(work: TuningWork, where: Where, session: Session, *, quiet: bool) -> None:
    """Compute what the search still lacks.

    Raises:
        BaseException: what `Session.conclude` tells the user of.
    """
    problem, ledger = work.tuning.problem, work.store
    # Builds the database too, so that a run that was killed at its very end leaves none running.
    campaign = Campaign(
        problem,
        work,
        database=database(work.store),
        warn=warn if where.inline else to_log,  # on a cluster, Tune's own campaign says it
    )
    if not campaign.left:
        return
    known = campaign.proposals
    log = Path(ledger.path("run.log")) if ledger.local else Path("medrl-run.log").absolute()
    committed = sum(len(p.values) for p in known)
    most = problem.trials * len(problem.groups) * len(problem.seeds)
    session.log = log
    with chatter_to(None if where.inline else log) as console:
        display = Display(
            console,
            total=most,
            committed=committed,
            todo=most - committed,
            stages=None,
            quiet=quiet,
            tell=partial(say_running, ledger, work.token),
            tell_every_s=0.0 if where.inline else TELL_EVERY_S,
        )

        def say(text: str, *, always: bool = False) -> None:
            if always or not quiet:
                console.print(escape(text), soft_wrap=True, style="dim")

        with Compacting(ledger, work.token), display:
            if where.inline:
                search_inline(campaign, work, display)
                return
            say(f"Ray's log: {log}")
            search_on_cluster(work, session=session, where=where, display=display, say=say)


def counted(tuning: Tuning, work: TuningWork) -> str:
    """How many proposals there are, of how many, and how they ended."""
    proposals = work.known()
    asked = tuning.problem.trials * len(tuning.problem.groups)
    states = ", ".join(f"{n} {state}" for state, n in counts(proposals).items() if n)
    cells = sum(len(p.values) for p in proposals)
    return (
        f"{tuning.search.name}: {len(proposals)} of {asked} proposals"
        f"{f' ({states})' if states else ''}, {cells} tuning cells committed"
    )


def describe(tuning: Tuning, work: TuningWork) -> str:
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
            f"{tuning.request.protocol}); the stopping rule may end an arm early",
            *map(escape, tuning.notes),
            counted(tuning, work),
            f"reporting: {arms} arms (default and tuned) × {len(tuning.reporting_seeds)} seeds = "
            f"{arms * len(tuning.reporting_seeds)} cells",
        ]
    )
