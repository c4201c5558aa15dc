"""How far a study is, from its ledger alone: what any terminal can ask while it runs and after."""

import contextlib
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeps.ledger.books import RUNNING_BOOK, RunningFile
from sweeps.ledger.cells import committed_keys, failed_keys, read_table
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.lock import holder_of, is_alive
from sweeps.ledger.read import MANIFEST, read_manifest
from sweeps.ledger.schema import LedgerError, PlannedCell

RUNNING = "running.json"
SAMPLED_CELLS = 96
"""Committed cells whose times are read for the estimate: enough for a mean, quick on S3 too."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """What an item that runs has last said of itself.

    Attributes:
        share: how much of it is done, in [0, 1]; None: nobody has said.
        heard: time.time() of its last sign of progress.
        patience_s: its silence is worth a word from then on.
    """

    share: float | None
    heard: float
    patience_s: float


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item that runs.

    Attributes:
        what: its arm and seed, or its stage.
        seconds: so far.
        share: as in `Sign`.
        silent_s: since its last sign of progress, where that is worth a word; else None.
    """

    what: str
    seconds: float
    share: float | None = None
    silent_s: float | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds that it may take yet; None where its share is not known or 0."""
        return self.seconds * (1 - self.share) / self.share if self.share else None


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The controller that the lock names.

    Attributes:
        process: "process 12 on host".
        alive: whether it still holds the lock.
        running: each item it is computing; empty unless alive.
        slots: its workers; 0 where it has not said so yet.
        left_s: seconds of one worker that it expects for all that is left, stages too; None
            before its first cell.
    """

    process: str
    alive: bool
    running: tuple[Item, ...]
    slots: int
    left_s: float | None


@dataclass(frozen=True, kw_only=True)
class ArmProgress:
    """One arm: how many of its seeds are there, failed and left, and a cell's mean seconds."""

    arm: str
    planned: int
    done: int
    failed: int
    wall_s: float | None

    @property
    def left(self) -> int:
        """Cells that are neither committed nor failed."""
        return self.planned - self.done - self.failed


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One study.

    Attributes:
        arms: in the order of the plan.
        failures: (arm, seed, error type, first line of the error) of each failed cell.
        cells_left_s: seconds of one worker for the cells that are left, without the stages under
            them, which a ledger does not plan; None before the first cell is there.
        holder: the controller that the lock names, if any.
    """

    study: str
    question: str
    arms: tuple[ArmProgress, ...]
    failures: tuple[tuple[str, int, str, str], ...]
    cells_left_s: float | None
    holder: Holder | None

    @property
    def planned(self) -> int:
        return sum(arm.planned for arm in self.arms)

    @property
    def done(self) -> int:
        return sum(arm.done for arm in self.arms)

    @property
    def failed(self) -> int:
        return sum(arm.failed for arm in self.arms)

    @property
    def left(self) -> int:
        """Cells that are neither committed nor failed."""
        return sum(arm.left for arm in self.arms)

    @property
    def eta_s(self) -> float | None:
        """Wall seconds left as the running controller expects; None where nothing runs."""
        if self.holder is None or not self.holder.slots or self.holder.left_s is None:
            return None
        return self.holder.left_s / self.holder.slots


def say_running(
    store: Store,
    token: str,
    slots: int,
    started: Mapping[str, float],
    left_s: float | None,
    signs: Mapping[str, Sign] | None = None,
) -> None:
    """What the controller computes now.

    Args:
        store: the study's folder.
        token: of the controller's lock.
        slots: its workers.
        started: item → time.time() when it was handed to a worker.
        left_s: seconds of one worker that are left; None = it cannot tell yet.
        signs: item → what it has last said of itself.
    """
    signs = signs or {}
    content = {
        "token": token,
        "slots": slots,
        "started": dict(started),
        "left_s": left_s,
        "shares": {item: s.share for item, s in signs.items() if s.share is not None},
        "heard": {item: sign.heard for item, sign in signs.items()},
        "patience_s": {item: sign.patience_s for item, sign in signs.items()},
    }
    with contextlib.suppress(OSError):  # a note for onlookers must not end the study
        store.write(RUNNING, json.dumps(content).encode())


def _holder(store: Store, planned: Mapping[str, PlannedCell], over: set[str]) -> Holder | None:
    found = holder_of(store)
    if found is None:
        return None
    alive = is_alive(store)
    said = RUNNING_BOOK.read_or_none(store, RUNNING)
    if said is None or not alive or said.token != found["token"]:
        said = RunningFile(token="", slots=0, started={}, left_s=None)
    running, now = [], time.time()
    for item, began in said.started.items():
        if item in over:
            continue  # committed since the controller last spoke
        cell = planned.get(item)
        name = f"{cell.arm}, seed {cell.seed}" if cell else f"stage {item.rpartition('-')[0]}"
        silent_s = max(0.0, now - said.heard.get(item, now))
        running.append(
            Item(
                what=name,
                seconds=max(0.0, now - began),
                share=said.shares.get(item),
                silent_s=silent_s if silent_s >= said.patience_s.get(item, math.inf) else None,
            )
        )
    return Holder(
        process=f"process {found['pid']} on {found['host']}",
        alive=alive,
        running=tuple(running),
        slots=said.slots,
        left_s=said.left_s,
    )


def spread(items: Sequence[str], count: int) -> list[str]:
    """At most `count` of `items`, evenly spaced over them."""
    if len(items) <= count:
        return list(items)
    return [items[i * len(items) // count] for i in range(count)]


def mean_seconds(samples: Sequence[tuple[str, float]]) -> tuple[dict[str, float], float | None]:
    """Mean seconds per arm of (arm, seconds) samples, and over all of them (None: no sample)."""
    totals: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    for arm, seconds in samples:
        totals[arm] += seconds
        counts[arm] += 1
    overall = sum(totals.values()) / len(samples) if samples else None
    return {arm: totals[arm] / counts[arm] for arm in counts}, overall


def progress_of(store: Store) -> Progress:
    """The study in the folder of `store`, as its last plan and its files say.

    Raises:
        LedgerError: not a study's folder, or one of a schema that this code does not know.
    """
    manifest = read_manifest(store)
    planned = {cell.key: cell for cell in manifest.cells}
    committed = committed_keys(store)
    done = committed & set(planned)
    failed = failed_keys(store, committed) & set(planned)
    sample = set(spread([key for key in planned if key in done], SAMPLED_CELLS))
    timed, _ = read_table(store, "cells", sample, ["arm", "wall_s"])
    times = list(zip(timed["arm"].to_pylist(), timed["wall_s"].to_pylist(), strict=True))
    by_arm, overall = mean_seconds(times)
    count = Counter(cell.arm for cell in manifest.cells)
    # Cell by cell, not key by key: two arms of one configuration share their cells.
    count_done = Counter(cell.arm for cell in manifest.cells if cell.key in done)
    count_failed = Counter(cell.arm for cell in manifest.cells if cell.key in failed)
    arms = tuple(
        ArmProgress(
            arm=arm,
            planned=count[arm],
            done=count_done[arm],
            failed=count_failed[arm],
            wall_s=by_arm.get(arm),
        )
        for arm in count
    )
    errors, _ = read_table(store, "failures", failed, ["arm", "seed", "error_type", "error"])
    cells_left_s = None
    if overall is not None:
        cells_left_s = sum(arm.left * by_arm.get(arm.arm, overall) for arm in arms)
    return Progress(
        study=manifest.study,
        question=manifest.question,
        arms=arms,
        failures=tuple(
            (row["arm"], row["seed"], row["error_type"], (row["error"] or "").partition("\n")[0])
            for row in errors.to_pylist()
        ),
        cells_left_s=cells_left_s,
        holder=_holder(store, planned, done | failed),
    )


def studies_in(root: str) -> list[Store]:
    """The study in the folder or URI `root`, or every study directly under it.

    Raises:
        LedgerError: there is none, or `root` is a URI of no kind we know.
        StoreError: `root` cannot be read.
    """
    try:
        store = Store(root)
        if store.takes(MANIFEST):
            return [store]
        children = [store.child(name) for name in store.names("", "")]
        found = [child for child in children if child.takes(MANIFEST)]
    except StoreError:
        raise
    except (OSError, ValueError) as error:
        raise LedgerError(f"{root} cannot be read ({error}); name a folder or a URI") from None
    if not found:
        raise LedgerError(
            f"no study in {root}; name a folder of results, or one of the studies in it "
            "(python sweeps/status.py results)"
        )
    return found
