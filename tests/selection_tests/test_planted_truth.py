"""Half of the candidates carry a wrong label: does every arm learn which?

One run proves nothing (a null run's AUC ranges from 0 to 1), hence means over five seeds, with the
same seeds under the flipped reward, and the null beside them (printed: `pytest -s`).
"""

import itertools

import numpy as np
import pytest
from planted_truth import (
    CONTROLLERS,
    POLICY_GRADIENTS,
    SIGNS,
    planted_auc,
    planted_config,
    prepare,
)

from imaging_core.datasets.registry import load

SEEDS = range(5)
QUICK = {"reward_model": "linear_probe", "validation_per_class": 64, "iterations": 18}


@pytest.fixture(scope="module")
def data():
    return load("ihc-colon")


@pytest.fixture(scope="module")
def prepared(data):
    return prepare(data, planted_config(**QUICK), SEEDS)


# In the fast part test_planted_signal.py says whether a policy follows its reward.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("controller", "policy_gradient"), list(itertools.product(CONTROLLERS, POLICY_GRADIENTS))
)
def test_keep_probability_finds_the_right_labels(data, prepared, controller, policy_gradient):
    mean = {}
    # The null is drawn once per controller: without a reward the two updates have nothing to tell.
    for sign in SIGNS if policy_gradient == "reinforce" else SIGNS[:2]:
        arm = {
            "controller": controller,
            "policy_gradient": policy_gradient,
            "reward_sign": sign,
        }
        config = planted_config(**QUICK, **arm)
        mean[sign] = np.mean([planted_auc(config, data, s, prepared[s]) for s in SEEDS])
    print(f"{controller} {policy_gradient}:", {k: round(float(v), 3) for k, v in mean.items()})
    assert mean["normal"] >= 0.8
    assert mean["flipped"] <= 0.3
