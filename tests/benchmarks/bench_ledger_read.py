"""How long a large, compacted ledger takes to read and to turn into tables, and how much memory.

    python tests/benchmarks/bench_ledger_read.py            # 25,000, 50,000 and 100,000 cells

Made with the ledger's own schema: arms × 10 seeds, six metrics and a curve of 30 values a cell.
The bounds are those the project promises on two cores; exit code 1 where one is missed.
"""

import argparse
import datetime
import itertools
import math
import resource
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from timing import Figure

from sweeps.ledger.schema import PlannedCell

SECONDS, GIB = 10.0, 2.0
SEEDS = 10
METRICS = ("accuracy", "auc", "sensitivity", "specificity", "val_best", "test_at_best_val")


CORE, DATA = "selection_core", "f00d"


def finished_rows(
    planned: Sequence[PlannedCell],
    rng: np.random.Generator,
    configs: Iterable[str],
    *,
    core: str = CORE,
    version: int = 1,
    data: str = DATA,
) -> list[dict]:
    """A row of made-up numbers for each cell, without predictions.

    Args:
        configs: the configuration of each cell, as canonical text.
        version: of the core.
        data: the data's fingerprint.
    """
    start = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
    return [
        {
            "schema_version": 1, "key": c.key, "status": "ok", "study": "bench",
            "core": core, "core_version": version, "arm": c.arm,
            "levels": list(c.levels.items()), "config": config, "seed": c.seed,
            "data": "ihc-colon", "data_fingerprint": data, "protocol": "held-out",
            "metrics": list(zip(METRICS, rng.random(6), strict=True)),
            "curves": [("reward", rng.random(30))], "attempts": 1, "git_commit": "0" * 40,
            "git_dirty": False, "versions": [("torch", "2.15.0")], "host": "bench",
            "node": "inline", "device": "cpu", "started": start, "wall_s": 1.0,
            "cpu_s": 1.0, "stage_keys": [("pool", "abc")],
            "predictions_sha256": "",
        }
        for c, config in zip(planned, configs, strict=True)
    ]  # fmt: skip


def configuration(levels: Mapping[str, str]) -> dict[str, Any]:
    """Of about the length of a real one's text."""
    return {f"field_{n}": n / 7 for n in range(30)} | levels


def write(root: Path, cells: int) -> None:
    """A study of `cells` cells, written as compacted files at once."""
    from sweeps.ledger.cells import write_compact
    from sweeps.ledger.commit import write_manifest
    from sweeps.ledger.compact import BATCH
    from sweeps.ledger.files import Store
    from sweeps.ledger.schema import CELL_SCHEMA, Manifest, arm_label, canonical, cell_key

    store, rng = Store(root), np.random.default_rng(0)
    side = round((cells // SEEDS / 4) ** 0.5)
    factors = {
        "controller": ("gru", "gru_attention", "transformer", "logistic"),
        "lr": tuple(f"{i}e-4" for i in range(side)),
        "entropy": tuple(f"{i}e-3" for i in range(cells // SEEDS // 4 // side)),
    }
    arms = [
        dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())
    ]
    planned = [
        PlannedCell(
            key=cell_key(CORE, 1, configuration(arm), seed, DATA),
            arm=arm_label(arm),
            levels=arm,
            seed=seed,
        )
        for arm, seed in itertools.product(arms, range(SEEDS))
    ]
    for first in range(0, len(planned), BATCH):
        some = planned[first : first + BATCH]
        rows = finished_rows(some, rng, (canonical(configuration(c.levels)) for c in some))
        write_compact(store, pa.Table.from_pylist(rows, schema=CELL_SCHEMA))
    metric_table = tuple(
        {"name": m, "label": m, "higher_is_better": True, "low": 0, "high": 1, "meaning": m}
        for m in METRICS
    )
    write_manifest(
        store,
        Manifest(
            study="bench",
            question="How fast?",
            core="selection_core",
            factors=factors,
            baseline=arms[0],
            seeds=tuple(range(SEEDS)),
            preset="demo",
            data="ihc-colon",
            protocol="held-out",
            data_fingerprint="f00d",
            data_card="",
            tables=(),
            metrics=metric_table,
            cells=tuple(planned),
        ),
    )


def measure(root: str) -> tuple[float, float, float]:
    """(seconds to read, seconds for all tables, peak GiB) in a process of its own."""
    from analysis.tables import rebuild
    from sweeps.ledger.read import read_ledger

    begin = time.perf_counter()
    read_ledger(root, details=False)
    read = time.perf_counter() - begin
    begin = time.perf_counter()
    rebuild(root)
    return read, time.perf_counter() - begin, peak_gib()


def alone(what: str, seconds: float, limit: str) -> Figure:
    """A line without a rival."""
    return Figure(what=what, ours_s=seconds, rival_s=math.nan, ratio=math.nan, limit=limit)


def peak_gib() -> float:
    """Peak resident memory of this process, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measured(cells: int) -> tuple[float, float, float]:
    """`measure` of a new ledger of `cells` cells."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "bench"
        write(root, cells)
        with get_context("spawn").Pool(1) as pool:  # a fresh process: its peak is its own
            return pool.apply(measure, (str(root),))


def figures() -> list[Figure]:
    """Wall seconds and memory of the largest ledger, for `make bench`."""
    cells = 100_000
    read, tables, peak = measured(cells)
    return [
        alone(f"reading {cells:,} cells (wall)", read, "linear in cells"),
        alone(
            f"all tables of {cells:,} cells (wall; peak {peak:.2f} GiB)",
            tables,
            f"{SECONDS:.0f} s, {GIB:.0f} GiB",
        ),
    ]


def main() -> int:
    """Print a line per size; 1 where the largest misses a bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    met = True
    for cells in parser.parse_args().cells:
        read, tables, peak = measured(cells)
        print(f"{cells} cells: read {read:.2f} s, tables {tables:.2f} s, peak {peak:.2f} GiB")
        met = tables < SECONDS and peak < GIB
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
