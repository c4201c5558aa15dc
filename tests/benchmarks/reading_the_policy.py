"""Which rule reads a trained policy best? Seeds 100 to 109, which decide nothing else.

The demo preset's controller with probe rewards, on four pools of real images; every reading of the
same policy is judged by a probe on the test images, which no reward and no choice here has read.

    python tests/benchmarks/reading_the_policy.py      # under a minute of one core
"""

import dataclasses

import numpy as np
import torch
from planted_truth import prepare

from imaging_core.datasets.registry import load
from imaging_core.fields import build
from imaging_core.seeding import numpy_generator
from imaging_core.task import no_progress
from selection_core.config import PRESETS, SelectionConfig
from selection_core.controller_selection import build_environment, select
from selection_core.policy_reading import FINAL_RULES, READOUTS, final_mask

SEEDS = range(100, 110)
T_95 = 2.262  # of Student's distribution with 9 degrees of freedom
FLIPPED = {"pool": "real", "pool_label_noise": 0.5}
CASES = {
    "half mislabelled": FLIPPED,
    "all labels right": {"pool": "real"},
    "duplicates": {"pool": "duplicates"},
    "collapsed": {"pool": "collapsed"},
    "half mislabelled, an unstable controller": FLIPPED
    | {"iterations": 120, "episodes": 1, "sampling": "independent", "ppo_epochs": 4},
}


def accuracies(data, fields):
    """(readout, rule) → test accuracy of a probe on what is kept, one per seed; beside them how
    many are kept.
    """
    settings = {"reward_model": "linear_probe", "classifier_augment": "none"}
    config = build(SelectionConfig, {**PRESETS["demo"], **settings, **fields})
    tested = dataclasses.replace(data, validation=data.test)
    rewarded, judged = (prepare(d, config, SEEDS) for d in (data, tested))
    found = {(readout, rule): [] for readout in READOUTS for rule in FINAL_RULES}
    for seed in SEEDS:
        environment = build_environment(config, data, seed, rewarded[seed], device="cpu")
        judge = build_environment(config, tested, seed, judged[seed], device="cpu")
        readings, _, _ = select(
            config, data, seed, rewarded[seed], environment, device="cpu", progress=no_progress
        )
        for readout, rule in found:
            keep = final_mask(
                readings[READOUTS[readout]],
                rewarded[seed]["pool"]["labels"],
                rule,
                numpy_generator(seed, "policy/final"),
            )
            found[readout, rule].append((judge.reward(keep), keep.sum()))
    return {reading: np.array(values).T for reading, values in found.items()}


def main():
    """A Markdown table: accuracy, kept, and the difference to one draw of the last policy."""
    torch.set_num_threads(1)
    data = load("ihc-colon")
    print("| pool | policy | rule | accuracy | kept | less one draw of the last policy |")
    print("|---|---|---|---|---|---|")
    for case, fields in CASES.items():
        found = accuracies(data, fields)
        for (readout, rule), (accuracy, kept) in found.items():
            less = accuracy - found["last", "drawn"][0]
            half = T_95 * less.std(ddof=1) / len(less) ** 0.5
            print(
                f"| {case} | {readout} | {rule} | {accuracy.mean():.3f} ± "
                f"{accuracy.std(ddof=1):.3f} | {kept.min():.0f} to {kept.max():.0f} | "
                f"{less.mean():+.3f} ± {half:.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
