"""Carry a plan out, on a cluster or in this process, and say what came of it."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.engine.display import Display
from sweeps.engine.plan import Cell, Plan, StageWork
from sweeps.engine.provenance import source
from sweeps.engine.study import Arm
from sweeps.engine.work import EXECUTE, execute, lost_row, prepare_process, recipe, stage_recipe
from sweeps.ledger.commit import commit_failure
from sweeps.ledger.files import Store
from sweeps.ledger.read import failed_keys, read_rows

MAX_ATTEMPTS = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """Ctrl+C or SIGTERM; `code` is the exit status (130 or 143)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


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
        return self.compute_s / (self.slots * self.wall_s) if self.wall_s else 0.0


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Interrupted` in the main thread while the block runs.

    A second signal ends the process at once, with its own exit code: what is committed is whole,
    and Ray's processes end with the one that started them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False

    def leave(number: int, _frame: object) -> None:
        os._exit(128 + number)

    def stop(number: int, _frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        for name in SIGNALS:
            signal.signal(name, leave)
        raise Interrupted(128 + number)

    before = {name: signal.signal(name, stop) for name in SIGNALS}
    try:
        yield
    finally:
        if not interrupted:
            for name, handler in before.items():
                signal.signal(name, handler)


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


def run_inline(plan: Plan, *, results: str, token: str, display: Display) -> Summary:
    """Every missing stage and cell, one after the other, in this process."""
    prepare_process()
    summary = Summary(slots=1, where="in this process")
    recipes = Recipes(plan, results=results, token=token)
    work = [(w.key, "stage", recipes.stage(w)) for w in plan.stages]
    work += [(c.key, c.arm.label, recipes.cell(c)) for c in plan.todo]
    with interruptible():
        for identity, label, payload in work:
            is_stage = payload["kind"] == "stage"
            display.started(identity, label if not is_stage else identity.rpartition("-")[0])
            began, ok = time.monotonic(), True
            try:
                execute(payload, device="cpu", node="inline", attempt=1)
            except Exception:
                if is_stage:  # in a debugger's hands, not turned into many failed cells
                    raise
                ok = False
            seconds = time.monotonic() - began
            summary.compute_s += seconds
            count(summary, is_stage=is_stage, ok=ok)
            display.over(identity, stage=is_stage, ok=ok, seconds=seconds)
    return summary


def count(summary: Summary, *, is_stage: bool, ok: bool) -> None:
    if is_stage:
        summary.stages_computed += ok
    elif ok:
        summary.cells += 1
    else:
        summary.failed += 1


def _objective_of_finished(plan: Plan, ledger: Store) -> list[tuple[Mapping[str, Any], float]]:
    """Arms that miss nothing, with the mean objective that the ledger holds for them."""
    rows, _ = read_rows(ledger, "cells", set(plan.done))
    finished = []
    for arm in plan.arms:
        if plan.todo_of(arm):
            continue
        values = [
            rows[cell.key]["metrics"][plan.study.objective]
            for cell in plan.cells
            if cell.arm is arm and cell.key in rows
        ]
        if values:
            finished.append((arm.levels, sum(values) / len(values)))
    return finished


def run_on_cluster(
    plan: Plan, *, results: str, token: str, where: Where, display: Display, say: Any
) -> Summary:
    """Every missing stage and cell on the fleet; one Tune trial per arm.

    Args:
        say: `say(text)` prints one line for the user.

    Raises:
        Interrupted: Ctrl+C or SIGTERM; what was committed stays.
        cluster.connect.ClusterError: no cluster as asked for, or the whole fleet is gone.
    """
    from cluster.connect import connect

    local = where.address == "local"
    with connect(where.address, runtime_env=None if local else runtime_env()) as connection:
        say(connection.note)
        with interruptible():
            summary = _serve_plan(
                plan,
                results=results,
                token=token,
                where=where,
                display=display,
                tidy=not connection.started,
            )
            summary.where = connection.note
    return summary


def runtime_env() -> dict[str, Any]:
    """Our code travels to the other nodes as an upload of this checkout, without its data.

    Not where `ray job submit --working-dir` has sent it already: Ray refuses to be told twice.
    """
    job = json.loads(os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}"))
    if (job.get("runtime_env") or {}).get("working_dir"):
        return {}
    root = Path(__file__).resolve().parents[2]
    return {
        "working_dir": str(root),
        "excludes": [".git", ".venv", "results", "docs", "tests", "**/__pycache__"],
    }


def _serve_plan(
    plan: Plan, *, results: str, token: str, where: Where, display: Display, tidy: bool
) -> Summary:
    from cluster.drive import Capacity, Load, drive
    from cluster.queue import Event, WorkItem

    recipes = Recipes(plan, results=results, token=token)
    ledger = Store(results).child(plan.study.name)
    payloads = {cell.key: recipes.cell(cell) for cell in plan.todo}
    labels = {cell.key: cell.arm.label for cell in plan.todo}
    summary = Summary()

    def items_of(arm: Arm) -> list[WorkItem]:
        return [
            WorkItem(
                id=cell.key,
                payload=payloads[cell.key],
                needs=plan.needs[cell.key],
                arm=arm.label,
                deadline_s=where.deadline_s,
            )
            for cell in plan.todo_of(arm)
        ]

    def on_slots(slots: int) -> None:
        summary.slots = display.slots = slots

    def on_event(event: Event) -> None:
        is_stage = event.item not in labels
        if event.kind == "started":
            display.started(event.item, labels.get(event.item) or event.item.rpartition("-")[0])
        elif event.kind == "lost":
            summary.repeated += 1
            display.lost(event.item)
        else:
            ok = event.kind == "finished"
            seconds = float(event.report.get("wall_s", 0.0))
            summary.compute_s += seconds
            count(summary, is_stage=is_stage, ok=ok)
            display.over(event.item, stage=is_stage, ok=ok, seconds=seconds)
            if not ok and not is_stage and event.item not in failed_keys(ledger):
                commit_failure(ledger, lost_row(payloads[event.item], event.report, event.attempt))

    drive(
        Load(
            study=plan.study.name,
            execute=EXECUTE,
            levels={name: list(levels) for name, levels in plan.study.factors.items()},
            shared=[
                WorkItem(
                    id=w.key,
                    payload=recipes.stage(w),
                    needs=w.needs,
                    deadline_s=where.deadline_s,
                )
                for w in plan.stages
            ],
            arms=[(arm.levels, items) for arm in plan.arms if (items := items_of(arm))],
            finished=_objective_of_finished(plan, ledger),
            scratch=ledger.path("ray") if ledger.local else f"{ledger.root}/ray",
            database=Path(ledger.path("optuna.db")) if ledger.local else None,
        ),
        Capacity(
            workers=where.workers,
            cpus_per_worker=where.cpus_per_worker,
            gpus_per_worker=where.gpus_per_worker,
            max_attempts=MAX_ATTEMPTS,
        ),
        tidy=tidy,
        on_slots=on_slots,
        on_event=on_event,
        on_tick=display.refresh,
    )
    return summary
