"""A study of 100,000 cells on an object store: what its plan, resume, status and report ask for.

    export PYTHONPATH=tests/support
    python tests/benchmarks/bench_far_ledger.py                          # killed in the middle
    python tests/benchmarks/bench_far_ledger.py --cells 10000 --single   # nothing is compacted

The ledger is as a controller leaves it that is killed: large compacted files, small ones, and the
last cells in files of their own. With --single every cell has its own, as before compaction went on
while a study runs. The store is a local folder that takes 25 ms for each request which pyarrow's S3
client would make (`tests/support/far_store.py`). Exit code 1 where a bound is missed.
"""

import argparse
import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from bench_ledger_read import finished_rows
from bench_planning import wide
from far_store import FarFolder, far_stores
from rich.console import Console
from timing import Figure

from analysis import reporting, tables
from imaging_core.task import Predictions
from sweeps.engine.plan import Plan, make_plan, manifest_of
from sweeps.engine.run import expected_seconds
from sweeps.engine.scratch import scratch
from sweeps.engine.study import Request
from sweeps.engine.words import describe
from sweeps.ledger.cells import write_compact
from sweeps.ledger.commit import predictions_table, write_manifest
from sweeps.ledger.compact import BATCH, compact
from sweeps.ledger.fetched import fetched_once
from sweeps.ledger.files import Store, parquet_bytes
from sweeps.ledger.lock import LOCK, WIDTH, Lock
from sweeps.ledger.predictions import digest
from sweeps.ledger.progress import progress_of
from sweeps.ledger.quarantine import quarantine_damaged
from sweeps.ledger.read import read_ledger, read_metric
from sweeps.ledger.schema import CELL_SCHEMA, canonical

DELAY_S = 0.025
CELLS, ARMS, EXAMPLES = 100_000, 1_000, 100
SMALL, SMALL_FILES, SINGLE = 256, 15, 255
"""Of the ledger that a killed controller leaves: what is not in large files yet, at its most."""
LIMITS_S = {"plan": 10, "status": 10, "resume": 10, "takeover": 10, "one read": 10, "report": 30}
"""A takeover is a resume after a controller that another machine lost."""
LOST_S = 60
"""So long ago."""
OTHERS = ("tables", "compact")


def planned(cells: int, results: str, *, more: int = 1) -> Plan:
    """All cells of 1,000 arms, or of a tenth as many as there are cells, and `more` seeds."""
    arms = min(ARMS, cells // 10)
    request = Request(seeds=str(cells // arms + more))
    return make_plan(wide(arms), request, results=results, retry_failed=False)


def sizes(cells: int, single: bool) -> Iterator[tuple[int, int]]:
    """(first, last) of each file, by its cells."""
    if single:
        starts = [*range(cells)]
    else:
        large = max(0, cells - SINGLE - SMALL * SMALL_FILES)
        small = range(large, max(large, cells - SINGLE), SMALL)
        starts = [*range(0, large, BATCH), *small, *range(max(0, cells - SINGLE), cells)]
    return zip(starts, [*starts[1:], cells], strict=True)


def make(folder: Path, plan: Plan, cells: int, *, single: bool = False) -> None:
    """The ledger in `folder` of the plan's first `cells` cells."""
    rng = np.random.default_rng(0)
    store = Store(folder).child(plan.study.name)
    (data,) = plan.fingerprints.values()
    part = Predictions(
        split="test",
        ids=np.array([f"image{i}" for i in range(EXAMPLES)]),
        groups=np.array([f"patient{i // 3}" for i in range(EXAMPLES)]),
        labels=rng.integers(0, 2, EXAMPLES),
        probabilities=rng.dirichlet(np.ones(2), EXAMPLES).astype(np.float32),
    )
    table = predictions_table((part,))
    said, one = digest(table), parquet_bytes(table)
    listed = manifest_of(plan, {}).cells
    write_manifest(store, manifest_of(plan, {}))
    for name in ("cells", "predictions"):
        Path(store.path(name)).mkdir()
    for first, last in sizes(cells, single):
        some = slice(first, last)
        texts = [canonical(cell.arm.values) for cell in plan.cells[some]]
        made = finished_rows(
            listed[some], rng, texts,
            core=plan.study.core, version=plan.study.task.version, data=data,
        )  # fmt: skip
        rows = pa.Table.from_pylist(
            [{**row, "predictions_sha256": said} for row in made], schema=CELL_SCHEMA
        )
        if len(made) == 1:
            key = made[0]["key"]
            Path(store.path(f"cells/{key}.parquet")).write_bytes(parquet_bytes(rows))
            Path(store.path(f"predictions/{key}.parquet")).write_bytes(one)
        else:
            from sweeps.ledger.keyed import write_keyed

            write_compact(store, rows)
            write_keyed(store, {row["key"]: table for row in made})


def resume(cells: int, results: str) -> None:
    """All that a run does before its first cell, taking over from one that was killed."""
    with fetched_once():
        _resume(cells, results)


def _resume(cells: int, results: str) -> None:
    plan = planned(cells, results)
    ledger = Store(results).child(plan.study.name)
    with Lock(ledger):
        assert not quarantine_damaged(ledger, set(plan.keys))
        write_manifest(ledger, manifest_of(plan, {}))
        describe(plan, results)
        scratch(ledger)
        assert len(expected_seconds(plan, ledger)) == len(plan.arms)
        read_metric(ledger, set(plan.done), plan.study.objective)


def takeover(cells: int, results: str, lock: Path) -> None:
    """`resume`, where the lock names a controller that was lost with its machine a while ago."""
    lost = {"token": "lost", "pid": 1, "host": "gone", "beat": 9, "where": "elsewhere", "since": 1}
    lock.write_text(json.dumps(lost).ljust(WIDTH))
    then = time.time() - LOST_S
    os.utime(lock, (then, then))
    resume(cells, results)


def report(results: str, study: str) -> None:
    """The last step of a run: tables, figures, report, account."""
    reporting.run(results, study, Console(quiet=True), quiet=True)


@contextlib.contextmanager
def ledger(cells: int, *, single: bool) -> Iterator[tuple[FarFolder, str, str]]:
    """The store that counts, its results folder, the study's name."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        make(Path(folder), planned(cells, folder, more=0), cells, single=single)
        yield far_stores(patch, DELAY_S), f"far://{folder}", planned(2000, folder).study.name


def measured(
    cells: int, *, single: bool, only: Sequence[str]
) -> Iterator[tuple[str, SimpleNamespace]]:
    """What each call asked for, and its wall and processor seconds."""
    with ledger(cells, single=single) as (far, results, study):
        lock = Path(results.removeprefix("far://"), study, LOCK)
        calls: dict[str, Callable[[], object]] = {
            "plan": lambda: describe(planned(cells, results), results),
            "status": lambda: progress_of(Store(results).child(study)),
            "resume": lambda: resume(cells, results),
            "takeover": lambda: takeover(cells, results, lock),
            "one read": lambda: read_ledger(f"{results}/{study}"),
            "tables": lambda: tables.rebuild(f"{results}/{study}"),
            "report": lambda: report(results, study),
            "compact": lambda: compact(Store(results).child(study), minimum=1),
        }
        for what in only:
            began = time.process_time()
            with far.counting() as cost:
                calls[what]()
            cost.cpu_s = time.process_time() - began
            yield what, cost


def figures() -> list[Figure]:
    """For `make bench`: a study of CELLS cells that was killed."""
    return [
        Figure(
            what=f"{what} of {CELLS:,} cells on an object store of 25 ms a request "
            f"({cost.requests:,} requests; wall)",
            ours_s=cost.seconds,
            rival_s=math.nan,
            ratio=math.nan,
            limit=f"≤ {LIMITS_S[what]}",
        )
        for what, cost in measured(CELLS, single=False, only=list(LIMITS_S))
    ]


def main() -> int:
    """A line for each call; 1 where one misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=CELLS)
    parser.add_argument("--single", action="store_true")
    parser.add_argument("--only", nargs="+", default=list(LIMITS_S), choices=[*LIMITS_S, *OTHERS])
    asked = parser.parse_args()
    met = True
    for what, cost in measured(asked.cells, single=asked.single, only=asked.only):
        print(
            f"{what}: {cost.requests:,} requests, {cost.seconds:.1f} s "
            f"({cost.cpu_s:.1f} s of processor)",
            flush=True,
        )
        met = met and cost.seconds <= LIMITS_S.get(what, math.inf)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
