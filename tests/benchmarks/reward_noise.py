"""How much of a reward is the selection's, and how much is luck? Seeds of their own, random halves.

256 real candidates, half of them mislabelled (the pool of `sweeps/ablation_controller.py`). Twelve
random halves are rewarded four times each, every time from other initial weights and in another
order: ICC is the share of the variance that the halves make (one-way analysis of variance). Then
one candidate is left out of a half, the rest being the same: how far does that move the reward?

    python tests/benchmarks/reward_noise.py      # about 15 minutes of one core
"""

import itertools

import numpy as np
import torch
from planted_truth import prepare

from imaging_core.datasets.registry import load
from imaging_core.fields import build
from selection_core.config import PRESETS, SelectionConfig
from selection_core.controller_selection import build_environment

SEEDS, HALVES, REPEATS, PAIRS = (200, 201, 202), 12, 4, 6
PLANTED = {"pool": "real", "pool_label_noise": 0.5, "reward_repeats": REPEATS}


def icc(rewards: np.ndarray) -> float:
    """ICC(1) of (halves, repeats) rewards: at most 1, below 0 where repeats differ by more."""
    _, k = rewards.shape
    between = k * rewards.mean(1).var(ddof=1)
    within = rewards.var(1, ddof=1).mean()
    return float((between - within) / (between + (k - 1) * within))


def random_halves(count: int, size: int, seed: int) -> np.ndarray:
    """(count, size) bool, half of each row true."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(size) < size // 2 for _ in range(count)])


def main():
    """Two Markdown tables."""
    torch.set_num_threads(1)
    data = load("ihc-colon")
    demo = build(SelectionConfig, {**PRESETS["demo"], **PLANTED})
    stages = prepare(data, demo, SEEDS)
    print("| steps | augmentation | metric | images | ICC of each seed |\n|---|---|---|---|---|")
    cases = itertools.product((20, 40), ("none", "same"), (128, 0), ("accuracy", "log_likelihood"))
    for steps, augment, per_class, metric in cases:
        settings = {
            **PRESETS["demo"],
            **PLANTED,
            "reward_steps": steps,
            "reward_augment": augment,
            "validation_per_class": per_class,
            "reward_metric": metric,
        }
        config = build(SelectionConfig, settings)
        found = []
        for seed in SEEDS:
            environment = build_environment(config, data, seed, stages[seed], device="cpu").inner
            halves = random_halves(HALVES, len(stages[seed]["pool"]["labels"]), seed)
            rewards = [[environment.one(keep, r) for r in range(REPEATS)] for keep in halves]
            found.append(f"{icc(np.array(rewards)):.2f}")
        images = 2 * per_class or len(data.validation)
        print(f"| {steps} | {augment} | {metric} | {images} | {', '.join(found)} |", flush=True)

    moved = []
    for seed in SEEDS:
        environment = build_environment(demo, data, seed, stages[seed], device="cpu").inner
        for keep in random_halves(PAIRS, len(stages[seed]["pool"]["labels"]), seed):
            less = keep.copy()
            less[np.flatnonzero(keep)[0]] = False
            moved.append(environment.one(keep, 0) - environment.one(less, 0))
    print(f"\none candidate of 128 less: {np.sqrt(np.mean(np.square(moved))):.4f} root mean square")


if __name__ == "__main__":
    main()
