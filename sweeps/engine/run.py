"""Carry a plan out, on a cluster or in this process, and say what came of it."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeps.engine.display import Display
from sweeps.engine.plan import Cell, Plan, StageWork
from sweeps.engine.provenance import source
from sweeps.engine.scratch import scratch
from sweeps.engine.session import Session, listen_again
from sweeps.engine.study import Arm
from sweeps.engine.upload import runtime_env
from sweeps.engine.work import (
    EXECUTE,
    end_of_run,
    execute,
    lost_row,
    prepare_process,
    recipe,
    stage_recipe,
)
from sweeps.ledger.cells import has_failure, read_table
from sweeps.ledger.commit import commit_failure
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.lock import LateCommit, must_hold
from sweeps.ledger.read import read_metric

if TYPE_CHECKING:
    from cluster.drive import Capacity

MAX_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Where:
    """Which machines compute.

    Attributes:
        address: "auto", "local" or HOST:PORT (see `cluster.connect`).
        workers: at most so many; None takes every slot.
        deadline_s: a cell or stage that runs longer is ended and counts as failed.
        inline: no Ray at all, in this process.
    """

    address: str = "local"
    workers: int | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | None = None
    deadline_s: float | None = None
    inline: bool = False


@dataclass(kw_only=True)
class Summary:
    """What one run did."""

    slots: int = 1
    compute_s: float = 0.0
    wall_s: float = 0.0
    stages_computed: int = 0
    stages_reused: int = 0
    cells: int = 0
    failed: int = 0
    repeated: int = 0  # items whose worker died, computed again
    where: str = ""

    @property
    def efficiency(self) -> float:
        """Compute seconds ÷ (slots × wall seconds), in [0, 1]."""
        slot_seconds = self.slots * self.wall_s
        return self.compute_s / slot_seconds if slot_seconds else 0.0


class Recipes:
    """The recipes of a plan's work.

    Args:
        commit: what `provenance.source` says, where this process cannot know.
    """

    def __init__(
        self, plan: Plan, *, results: str, token: str, commit: Mapping[str, Any] | None = None
    ) -> None:
        self.plan = plan
        self._common = {
            "results": results,
            "token": token,
            "source": source() if commit is None else commit,
            "objective": plan.study.objective,
        }

    def cell(self, cell: Cell) -> dict[str, Any]:
        return recipe(self.plan, cell, **self._common)

    def stage(self, work: StageWork) -> dict[str, Any]:
        return stage_recipe(self.cell(work.cell), work)


def seed_by_seed(plan: Plan) -> list[Cell]:
    """The missing cells, seed by seed over all arms: a study that is stopped anywhere has arms
    whose numbers of seeds differ by one at most."""
    place = {seed: i for i, seed in enumerate(plan.seeds)}
    return sorted(plan.todo, key=lambda cell: place[cell.seed])


def _depth_first(plan: Plan, recipes: Recipes) -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, recipe) of everything missing: a stage comes when the next cell needs it."""
    stages = {work.key: work for work in plan.stages}
    for cell in seed_by_seed(plan):
        for key in plan.needs(cell):
            if key in stages:
                yield key, recipes.stage(stages.pop(key))
        yield cell.key, recipes.cell(cell)


def run_inline(plan: Plan, *, results: str, token: str, display: Display) -> Summary:
    """Every missing stage and cell, one after the other, in this process."""
    prepare_process()
    summary = Summary(slots=1, where="in this process")
    recipes = Recipes(plan, results=results, token=token)
    labels = {c.key: c.arm.label for c in plan.todo}
    for key, payload in _depth_first(plan, recipes):
        is_stage = key not in labels
        display.started(key, labels.get(key) or key.rpartition("-")[0])
        began, ok = time.monotonic(), True
        try:
            execute(payload, device="cpu", node="inline", attempt=1)
        except (StoreError, LateCommit):
            raise
        except Exception:
            if is_stage:  # in a debugger's hands, not turned into many failed cells
                raise
            ok = False
        seconds = time.monotonic() - began
        summary.compute_s += seconds
        over(summary, display, key, is_stage=is_stage, ok=ok, seconds=seconds)
    return summary


def over(
    summary: Summary, display: Display, key: str, *, is_stage: bool, ok: bool, seconds: float
) -> None:
    """A stage or a cell has come to its end: counted and shown."""
    if is_stage:
        summary.stages_computed += ok
    elif ok:
        summary.cells += 1
    else:
        summary.failed += 1
    display.over(key, stage=is_stage, ok=ok, seconds=seconds)


def lost(summary: Summary, display: Display, key: str) -> None:
    """Its worker died; it is in the queue again."""
    summary.repeated += 1
    display.lost(key)


def capacity(where: Where) -> "Capacity":
    """What of the cluster `where` asks for."""
    from cluster.drive import Capacity

    return Capacity(
        workers=where.workers,
        cpus_per_worker=where.cpus_per_worker,
        gpus_per_worker=where.gpus_per_worker,
        max_attempts=MAX_ATTEMPTS,
    )


def database(ledger: Store) -> Path | None:
    """Where the database for optuna-dashboard is; None on an object store."""
    return Path(ledger.path("optuna.db")) if ledger.local else None


def _objective_of_finished(plan: Plan, ledger: Store) -> list[tuple[Mapping[str, Any], float]]:
    """Arms that miss nothing, with the mean objective that the ledger holds for them."""
    found = read_metric(ledger, set(plan.done), plan.study.objective)
    values: dict[int, list[float]] = {id(arm): [] for arm in plan.arms}
    for cell in plan.cells:
        if cell.key in found:
            values[id(cell.arm)].append(found[cell.key])
    for cell in plan.todo:
        values[id(cell.arm)].clear()
    return [(a.levels, sum(v) / len(v)) for a in plan.arms if (v := values[id(a)])]


def expected_seconds(plan: Plan, ledger: Store) -> dict[str, float]:
    """Arm's label → seconds of a cell of it, so that the longest go first: of one committed cell.

    Arms that have none get the mean of the others, and all get 0 where none has any.
    """
    sample: dict[str, str] = {}
    for cell in plan.cells:
        if cell.key in plan.done:
            sample.setdefault(cell.arm.label, cell.key)
    table, _ = read_table(ledger, "cells", set(sample.values()), ["arm", "wall_s"])
    seconds = dict(zip(table["arm"].to_pylist(), table["wall_s"].to_pylist(), strict=True))
    usual = sum(seconds.values()) / len(seconds) if seconds else 0.0
    return {arm.label: seconds.get(arm.label, usual) for arm in plan.arms}


def run_on_cluster(
    plan: Plan,
    *,
    session: Session,
    results: str,
    token: str,
    where: Where,
    display: Display,
    say: Callable[..., None],
) -> Summary:
    """Every missing stage and cell on the fleet; one Tune trial per arm.

    Args:
        say: `say(text)` prints one line for the user; `always=True`: though quiet was asked for.

    Raises:
        Interrupted: by a signal; what was committed stays.
        StoreError, LateCommit: the ledger cannot be read or written, or is another controller's.
        ClusterError: no cluster as asked for.
        ClusterLost: the broker, the whole fleet or the cluster is gone.
    """
    with joined(where, session, plan.study.core, say) as (stays, note):
        summary = _serve_plan(
            plan, results=results, token=token, where=where, display=display, say=say, stays=stays
        )
        summary.where = note
    return summary


@contextlib.contextmanager
def joined(
    where: Where, session: Session, core: str, say: Callable[..., None]
) -> Iterator[tuple[bool, str]]:
    """The cluster that `where` names, joined; its other nodes get the code that `core` needs.

    Yields:
        whether the cluster is there before and after us, and what we joined, in words.

    Raises:
        ClusterError: no cluster as asked for.
        ClusterLost: Ray did not start here, or what the block raises.
    """
    from cluster.connect import connect
    from cluster.errors import ClusterLost

    local = where.address == "local"
    with (
        contextlib.nullcontext() if local else runtime_env(core) as code,
        contextlib.ExitStack() as goodbye,
        connect(where.address, runtime_env=code) as connection,
    ):
        listen_again()
        say(connection.note)
        try:
            yield not connection.started, connection.note
        except ClusterLost as lost:  # a goodbye to a cluster that is gone may take for ever
            goodbye.enter_context(session.leaving(str(lost)))
            raise


def _serve_plan(
    plan: Plan,
    *,
    results: str,
    token: str,
    where: Where,
    display: Display,
    say: Callable[..., None],
    stays: bool,
) -> Summary:
    from cluster.drive import Load, drive
    from cluster.queue import Event, WorkItem

    recipes = Recipes(plan, results=results, token=token)
    ledger = Store(results).child(plan.study.name)
    payloads = {cell.key: recipes.cell(cell) for cell in plan.todo}
    labels = {cell.key: cell.arm.label for cell in plan.todo}
    summary = Summary()
    expected = expected_seconds(plan, ledger)

    turns = {seed: turn for turn, seed in enumerate(plan.seeds)}
    of_stage: dict[str, int] = {}
    for cell in seed_by_seed(plan):
        for key in plan.needs(cell):
            of_stage.setdefault(key, turns[cell.seed])

    def items_of(arm: Arm) -> list[WorkItem]:
        return [
            WorkItem(
                id=cell.key,
                payload=payloads[cell.key],
                needs=plan.needs(cell),
                arm=arm.label,
                cost_s=expected[arm.label],
                turn=turns[cell.seed],
                deadline_s=where.deadline_s,
            )
            for cell in plan.todo_of(arm)
        ]

    def on_slots(slots: int) -> None:
        summary.slots = display.slots = slots

    def on_event(event: Event) -> None:
        key, report = event.item, event.report
        is_stage = key not in labels
        if event.kind == "started":
            display.started(key, labels.get(key) or key.rpartition("-")[0])
        elif event.kind == "lost":
            lost(summary, display, key)
        else:
            if error := end_of_run(report):
                raise error
            ok = event.kind == "finished"
            seconds = float(report.get("wall_s", 0.0))
            summary.compute_s += seconds
            over(summary, display, key, is_stage=is_stage, ok=ok, seconds=seconds)
            if not ok and not is_stage and not has_failure(ledger, key):
                must_hold(ledger, token)
                commit_failure(ledger, lost_row(payloads[key], report, event.attempt))

    stages = [
        WorkItem(
            id=w.key,
            payload=recipes.stage(w),
            needs=w.needs,
            turn=of_stage.get(w.key, 0),
            deadline_s=where.deadline_s,
        )
        for w in plan.stages
    ]
    arms = [
        (arm.levels, items)
        for arm in sorted(plan.arms, key=lambda arm: -expected[arm.label])
        if (items := items_of(arm))
    ]
    drive(
        Load(
            study=plan.study.name,
            execute=EXECUTE,
            levels={name: list(levels) for name, levels in plan.study.factors.items()},
            shared=stages,
            arms=arms,
            finished=_objective_of_finished(plan, ledger),
            scratch=scratch(ledger),
            database=database(ledger),
        ),
        capacity(where),
        stays=stays,
        say=say,
        on_slots=on_slots,
        on_event=on_event,
        on_tick=display.refresh,
    )
    return summary
