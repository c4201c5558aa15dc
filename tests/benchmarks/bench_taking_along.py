"""What `--keep weights --track tensorboard` costs a run, wall time in turn: off, on, off, on.

    python tests/benchmarks/bench_taking_along.py            # 4 pairs of a part of the demo
    python tests/benchmarks/bench_taking_along.py --pairs 2 --inline
    python tests/benchmarks/bench_taking_along.py --whole    # the whole demo: 8 runs of 4 min

The part is the controller ablation, demo preset, two seeds of its GRU arms under PPO. Each run has
a folder of its own and computes everything. Needs a machine that does nothing else: 3 % of a minute
are two seconds. The issue asks for at most 3 %.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PART = ("--seeds", "2", "--set", "controller=gru,gru_attention", "--set", "policy_gradient=ppo")
ON = ("--keep", "weights", "--track", "tensorboard")


def run_s(arguments: tuple[str, ...]) -> float:
    """Wall seconds of the study from a folder without anything."""
    with tempfile.TemporaryDirectory() as results:
        began = time.monotonic()
        subprocess.run(
            [sys.executable, ROOT / "sweeps/ablation_controller.py", "--results", results,
             "--quiet", *arguments],
            cwd=ROOT, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--inline", action="store_true")
    asked = parser.parse_args()
    part = () if asked.whole else PART
    part = (*part, "--inline") if asked.inline else part
    ratios = []
    for pair in range(asked.pairs):
        # Whoever goes second finds warm caches: the two take turns.
        order = ((), ON) if pair % 2 == 0 else (ON, ())
        seconds = {more: run_s((*part, *more)) for more in order}
        ratios.append(seconds[ON] / seconds[()])
        print(f"off {seconds[()]:.1f} s, on {seconds[ON]:.1f} s: × {ratios[-1]:.3f}", flush=True)
    print(f"median × {statistics.median(ratios):.3f} of {len(ratios)} pairs (asked for: × 1.03)")


if __name__ == "__main__":
    main()
