"""When the first cell of the demo study is there, as a share of the study's time.

    PYTHONPATH=tests/support python tests/benchmarks/bench_order.py    # one run, about 5 minutes

Stages are shared, so that an order which computes all of them first has its first cell at 86 % of
the whole. `cluster.queue` takes cells at once, until the longest chain takes as long as all that is
left.
"""

import tempfile
from pathlib import Path

from our_runs import ROOT, StudyRun, run_study
from timing import Figure

STUDY = ROOT / "sweeps" / "ablation_controller.py"


def figure(run: StudyRun) -> Figure:
    """Of a run: seconds from its first stage to its first cell, against those to its last."""
    first, last = (pick(end for _, end in run.spans) - run.begun for pick in (min, max))
    return Figure(
        what=f"{len(run.spans)} cells of the demo: from the first stage's begin to the first "
        f"committed cell ({first / last:.0%} of the time to the last)",
        ours_s=first,
        rival_s=last,
        ratio=last / first,
        limit="24 %",
    )


def figures() -> list[Figure]:
    with tempfile.TemporaryDirectory() as results:
        return [figure(run_study(STUDY, Path(results)))]


if __name__ == "__main__":
    for found in figures():
        print(found, flush=True)
