"""Carry a plan out, on a cluster or in this process, and say what came of it."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.signs import EverySoOften
from cluster.traffic import Key, Pulse, Report
from sweeps.engine.budget import Budget, Budgeted
from sweeps.engine.display import Display
from sweeps.engine.plan import Cell, Plan
from sweeps.engine.recipe import EXECUTE, Recipe, Recipes
from sweeps.engine.redirect import redirect_output
from sweeps.engine.scratch import scratch
from sweeps.engine.session import Session, listen_again
from sweeps.engine.source import ArmSource
from sweeps.engine.upload import runtime_env
from sweeps.engine.worker import end_of_run, execute, lost_row, prepare_process
from sweeps.ledger.background import Compacting
from sweeps.ledger.cells import has_failure, read_table
from sweeps.ledger.commit import commit_failure
from sweeps.ledger.compact import compact
from sweeps.ledger.fetched import forget_fetched
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.lock import LateCommit, must_hold
from sweeps.ledger.progress import say_running

if TYPE_CHECKING:
    from cluster.drive import Capacity
    from cluster.queue import Event, WorkItem

MAX_ATTEMPTS = 3
TELL_EVERY_S = 3.0
SHARE_EVERY_S = 0.5  # from this process to its own display


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Which machines compute.

    Attributes:
        address: "auto", "local" or HOST:PORT (see `cluster.connect`).
        workers: at most so many; None takes every slot.
        deadline_s: a cell or stage without a sign of progress for so long is ended, and has failed.
        inline: no Ray at all, in this process.
        budget: when it is spent no further cell starts.
    """

    address: str = "local"
    workers: int | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float | None = None
    deadline_s: float | None = None
    inline: bool = False
    budget: Budget = field(default_factory=Budget)


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
    ended: int = 0  # by a search's pruner, while they ran
    repeated: int = 0  # items whose worker died, computed again

    @property
    def efficiency(self) -> float:
        """Compute seconds ÷ (slots × wall seconds), in [0, 1]."""
        slot_seconds = self.slots * self.wall_s
        return self.compute_s / slot_seconds if slot_seconds else 0.0


def carry_out(
    source: ArmSource,
    recipes: Recipes,
    session: Session,
    *,
    total: int,
    committed: int,
    stages: Sequence[str] | None,
    watch: Callable[[Display], AbstractContextManager[None]] = contextlib.nullcontext,
) -> Summary:
    """Compute what the source wants, in view of the user.

    Args:
        total: cells planned; `committed` of them are there.
        stages: keys of the stages to compute; None where nobody knows yet.
        watch: what goes on around it, told of each committed cell by the display.
    """
    ledger, resources = recipes.ledger, session.resources
    log = Path(ledger.path("run.log")) if ledger.local else Path("medrl-run.log").absolute()
    session.log = log
    with redirect_output(None if resources.inline else log) as console:
        display = Display(
            console,
            total=total,
            committed=committed,
            todo=source.left,
            stages=stages,
            quiet=session.quiet,
            tell=partial(say_running, ledger, recipes.token),
            # In this process nothing ticks between two cells, so each one is told as it starts.
            tell_every_s=0.0 if resources.inline else TELL_EVERY_S,
        )
        with Compacting(ledger, recipes.token), display, watch(display):
            if resources.inline:
                summary = run_inline(source, recipes, display)
            else:
                display.say(f"Ray's log: {log}")
                summary = run_on_cluster(source, recipes, display, session)
    if ledger.local:  # Ray's bookkeeping: a cache that nothing reads again
        shutil.rmtree(ledger.path("ray"), ignore_errors=True)
    compact(ledger)
    return summary


def run_inline(source: ArmSource, recipes: Recipes, display: Display) -> Summary:
    """Every cell that is wanted and its missing stages, one after the other, in this process."""
    prepare_process()
    forget_fetched()
    summary = Summary(slots=1)
    computed: set[str] = set()
    while (step := source.next()) is not None:
        for item in recipes.items(step):
            if item.id in computed:  # a stage, for an earlier step of this run
                continue
            computed.add(item.id)
            key, report = item.id, None
            display.silences.began(key)
            display.started(key, key.stage or item.arm)
            began = time.monotonic()
            try:
                report = execute(
                    item.payload,
                    device="cpu",
                    node="inline",
                    attempt=1,
                    signs=partial(display.signed, key),
                    progress=EverySoOften(partial(display.share_done, key), SHARE_EVERY_S),
                )
            except (StoreError, LateCommit):
                raise
            except Exception:
                if key.stage:  # in a debugger's hands, not turned into many failed cells
                    raise
            record_end(summary, display, key, report, seconds=time.monotonic() - began)
        tell(source, step.cell, report)  # of the cell, which comes last
        display.expect(source.left)
    return summary


def tell(source: ArmSource, cell: Cell, report: Report | None) -> None:
    """The source hears what came of a cell; without a report it failed."""
    if report is not None and report.ended:
        source.ended(cell)
    else:
        source.tell(cell, report.objective if report else None)


def record_end(
    summary: Summary, display: Display, key: Key, report: Report | None, *, seconds: float
) -> None:
    """A stage or a cell has come to its end, without a report by failing: counted and shown."""
    summary.compute_s += seconds
    ended = report is not None and report.ended
    if key.stage:
        summary.stages_computed += report is not None
    elif ended:
        summary.ended += 1
    elif report:
        summary.cells += 1
    else:
        summary.failed += 1
    display.record_end(key, ok=report is not None, seconds=seconds, ended=ended)


def record_loss(summary: Summary, display: Display, key: Key) -> None:
    """Its worker died; it is in the queue again."""
    summary.repeated += 1
    display.record_loss(key)


def capacity(resources: Resources) -> "Capacity":
    """What of the cluster `resources` ask for."""
    from cluster.drive import Capacity

    return Capacity(
        workers=resources.workers,
        cpus_per_worker=resources.cpus_per_worker,
        gpus_per_worker=resources.gpus_per_worker,
        max_attempts=MAX_ATTEMPTS,
    )


def database(ledger: Store) -> Path | None:
    """Resources the database for optuna-dashboard is; None on an object store."""
    return Path(ledger.path("optuna.db")) if ledger.local else None


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
    source: ArmSource,
    recipes: Recipes,
    display: Display,
    session: Session,
) -> Summary:
    """Everything that is wanted, on the fleet; one Tune trial per arm.

    Raises:
        Interrupted: by a signal; what was committed stays.
        StoreError, LateCommit: the ledger cannot be read or written, or is another controller's.
        ClusterError: no cluster as asked for.
        ClusterLost: the broker, the driver of a search, the whole fleet or the cluster is gone.
    """
    resources = session.resources
    with on_cluster(resources, session, source.plan.study.core, display.say) as persistent:
        from cluster.drive import drive

        ledger = recipes.ledger
        feed = _Feed(source, recipes, display)
        experiment = source.experiment(database(ledger))
        forget_fetched()
        drive(
            feed,
            experiment,
            capacity(resources),
            execute=EXECUTE,
            scratch=scratch(ledger),
            persistent=persistent,
            say=display.say,
        )
    return feed.summary


class _Feed:
    """A source as `cluster.drive` asks it; what came of it is counted, shown and written down."""

    def __init__(self, source: ArmSource, recipes: Recipes, display: Display) -> None:
        self.summary = Summary()
        self._source, self._recipes, self._display = source, recipes, display
        self._expected = expected_seconds(source.plan, recipes.ledger)
        self._under_way: dict[str, Cell] = {}
        self._handed: set[str] = set()

    def wanted(self) -> list["WorkItem"]:
        found = []
        while (step := self._source.next()) is not None:
            self._under_way[step.cell.key] = step.cell
            items = self._recipes.items(step, self._expected.get(step.cell.arm.label, 0.0))
            found += [item for item in items if item.id not in self._handed]
            self._handed.update(item.id for item in items)
        return found

    @property
    def more(self) -> bool:
        return self._source.left > len(self._under_way)

    @property
    def spent(self) -> bool:
        if not isinstance(self._source, Budgeted):
            return False
        self._source.look()
        return self._source.spent

    def has_slots(self, slots: int) -> None:
        self.summary.slots = self._display.slots = slots

    def see(self, pulses: Mapping[str, Pulse]) -> None:
        self._display.see(pulses)

    def tick(self) -> None:
        self._display.refresh()

    def hear(self, event: "Event") -> None:
        key, report, failure = event.item, event.report, event.failure
        if event.kind == "started":
            self._display.started(key, key.stage or event.arm)
            return
        if event.kind == "lost":
            record_loss(self.summary, self._display, key)
            return
        if failure and (error := end_of_run(failure)):
            raise error
        seconds = report.wall_s if report else 0.0
        record_end(self.summary, self._display, key, report, seconds=seconds)
        if failure and not key.stage:
            self._write_down(event)
        if (cell := self._under_way.pop(key, None)) is not None:
            tell(self._source, cell, report)
            self._display.expect(self._source.left)
        elif report and not key.stage and isinstance(self._source, Budgeted):
            self._source.took(seconds)

    def _write_down(self, event: "Event") -> None:
        """A failed cell, unless its worker has done so."""
        ledger = self._recipes.ledger
        if not has_failure(ledger, event.item):
            must_hold(ledger, self._recipes.token)
            recipe = Recipe.from_json(event.payload)
            commit_failure(ledger, lost_row(recipe, event.failure, event.attempt))


@contextlib.contextmanager
def on_cluster(
    resources: Resources, session: Session, core: str, say: Callable[..., None]
) -> Iterator[bool]:
    """The cluster that `resources` name, joined; its other nodes get the code that `core` needs.

    Yields:
        whether the cluster is there before and after us.

    Raises:
        ClusterError: no cluster as asked for.
        ClusterLost: Ray did not start here, or what the block raises.
    """
    from cluster.connect import connect
    from cluster.errors import ClusterLost

    local = resources.address == "local"
    with (
        contextlib.nullcontext() if local else runtime_env(core) as code,
        contextlib.ExitStack() as goodbye,
        connect(resources.address, runtime_env=code) as connection,
    ):
        listen_again()
        say(connection.note)
        try:
            yield not connection.started
        except ClusterLost as lost:  # a goodbye to a cluster that is gone may take for ever
            goodbye.enter_context(session.leaving(str(lost)))
            raise
