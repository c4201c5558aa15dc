"""Planning and resuming 100,000 cells: arms × seeds, minus what the ledger holds."""

import math
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
from bench_ledger_read import finished_rows
from timing import Figure

from sweeps.ablation_controller import STUDY
from sweeps.engine.plan import Plan, make_plan, manifest_of
from sweeps.engine.study import Request, Study
from sweeps.ledger.cells import write_compact
from sweeps.ledger.compact import BATCH
from sweeps.ledger.files import Store
from sweeps.ledger.quarantine import quarantine_damaged
from sweeps.ledger.schema import CELL_SCHEMA, canonical

CELLS = 100_000
RUNS = 5


def wide(arms: int) -> Study:
    """The controller ablation with learning rates for a third factor: `arms` different arms."""
    factors = {
        "controller": ("gru", "transformer"),
        "policy_gradient": ("reinforce", "ppo"),
        "learning_rate": tuple(1e-5 * (1 + i / 1000) for i in range(arms // 4)),
    }
    return replace(STUDY, factors=factors, baseline={}, only=())


def plan(arms: int, results: str) -> Plan:
    """All CELLS cells of `wide(arms)`."""
    request = Request(seeds=str(CELLS // arms))
    found = make_plan(wide(arms), request, results=results, retry_failed=False)
    assert len(found.keys) == CELLS
    return found


def figures() -> list[Figure]:
    """Two shapes of 100,000 cells planned; the same, committed, in files of their own and not."""
    found = []
    with tempfile.TemporaryDirectory() as results:
        for arms in (1_000, 20_000):
            what = f"planning {arms:,} arms × {CELLS // arms} seeds, none there"
            found.append(_alone(what, lambda arms=arms: plan(arms, results), "≤ 2"))
    for arms in (1_000, 20_000):
        found += _resuming(arms)
    return found


def _resuming(arms: int) -> list[Figure]:
    """`arms` × seeds that are all committed: in a file each, and compacted."""
    of = f"{CELLS:,} committed cells ({arms:,} arms)"
    with tempfile.TemporaryDirectory() as results:
        store = Store(results).child(STUDY.name)
        cells = manifest_of(plan(arms, results), {}).cells
        store.write("cells/.folder", b"")
        for cell in cells:
            open(store.path(f"cells/{cell.key}.parquet"), "wb").close()
        what = f"resuming: what of {of} is missing, a file each"
        apart = _alone(what, lambda: _resume(arms, results), "≤ 5")
    with tempfile.TemporaryDirectory() as results:
        store, rng = Store(results).child(STUDY.name), np.random.default_rng(0)
        made = plan(arms, results)
        (data,) = made.fingerprints.values()
        texts = [canonical(cell.arm.values) for cell in made.cells]
        for first in range(0, CELLS, BATCH):
            batch = slice(first, first + BATCH)
            version = STUDY.task.version
            rows = finished_rows(cells[batch], rng, texts[batch], version=version, data=data)
            write_compact(store, pa.Table.from_pylist(rows, schema=CELL_SCHEMA))
        what = f"the same, compacted, and the check that {of} are undamaged"
        return [apart, _alone(what, lambda: _resume(arms, results, check=True), "≤ 5")]


def _resume(arms: int, results: str, *, check: bool = False) -> None:
    left = plan(arms, results)
    assert not left.todo
    if check:
        assert not quarantine_damaged(Store(results).child(STUDY.name), set(left.done))


def _alone(what: str, call: Callable[[], object], limit: str) -> Figure:
    call()
    seconds = []
    for _ in range(RUNS):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return Figure(
        what=what,
        ours_s=statistics.median(seconds),
        rival_s=math.nan,
        ratio=math.nan,
        limit=limit,
    )
