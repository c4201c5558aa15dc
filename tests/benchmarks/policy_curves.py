"""Does the paper preset's policy stay open while it learns? Entropy and AUC per iteration.

The planted reward of `selection_core.planted_signal` and the full-width transformer (512): the
paper preset, and its settings of before, at nearly equal numbers of rewards per line's length.

    python tests/benchmarks/policy_curves.py policy_curves.svg      # about 3 minutes of one core
"""

import sys

import matplotlib
import torch

matplotlib.use("svg")
import matplotlib.pyplot as plt

from selection_core.planted_signal import draw, measure

BEFORE = {
    "iterations": 60,
    "episodes": 1,
    "sampling": "independent",
    "ppo_epochs": 4,
    "entropy_weight": 0.01,
    "value_target": "raw",
}
ARMS = {"paper preset": {}, "1 episode, 4 epochs, entropy weight 0.01, V raw": BEFORE}


def main(path: str) -> None:
    """Run, print the ends, and draw to `path`."""
    torch.set_num_threads(1)
    rows = measure(ARMS, range(2), controllers=["transformer"])
    for row in rows:
        print(
            f"{row['arm']}, seed {row['seed']}: entropy {row['entropy'][-1]:.3f} nats, "
            f"AUC {row['auc'][-1]:.2f}, correlation {row['correlation']:.2f}"
        )
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    draw(rows, axes)
    figure.savefig(path)


if __name__ == "__main__":
    main(sys.argv[1])
