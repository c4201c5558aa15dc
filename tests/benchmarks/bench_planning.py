"""Planning and resuming a large study: arms × seeds, minus what the ledger holds."""

import math
import statistics
import tempfile
import time

from timing import Figure

from sweeps.ablation_controller import STUDY
from sweeps.engine.plan import make_plan
from sweeps.engine.study import Request
from sweeps.ledger.files import Store
from sweeps.ledger.read import committed_keys

CELLS = 6_000


def figures() -> list[Figure]:
    """6 arms × 1,000 seeds planned; 6,000 committed cells found by their names."""
    found = []
    with tempfile.TemporaryDirectory() as results:
        request = Request(seeds=str(CELLS // 6))
        seconds = []
        for _ in range(5):
            began = time.process_time()
            plan = make_plan(STUDY, request, results=results, retry_failed=False)
            seconds.append(time.process_time() - began)
        found.append(_alone(f"planning {CELLS:,} cells", seconds, "2 s for 100,000"))
        store = Store(results).child("controller_ablation")
        folder = store.path("cells")
        store.write("cells/.folder", b"")
        for cell in plan.cells:
            open(f"{folder}/{cell.key}.parquet", "wb").close()
        seconds = []
        for _ in range(5):
            began = time.process_time()
            assert len(committed_keys(store)) == CELLS
            seconds.append(time.process_time() - began)
        found.append(_alone(f"finding {CELLS:,} committed cells", seconds, "5 s for 100,000"))
    return found


def _alone(what: str, seconds: list[float], limit: str) -> Figure:
    return Figure(
        what=what,
        ours_s=statistics.median(seconds),
        rival_s=math.nan,
        ratio=math.nan,
        limit=limit,
    )
