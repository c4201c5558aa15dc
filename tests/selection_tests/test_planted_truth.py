"""Half of the candidates carry a wrong label: does every arm learn which?

The pool is made of real training images outside the k-shot set, so the truth is exact and no
generator is trained. One run proves nothing (a null run's AUC ranges from 0 to 1), hence the mean
over five seeds, the same seeds with the reward's sign flipped, and a null with a random reward.
"""

import itertools

import numpy as np
import pytest

from imaging_core.datasets.registry import load
from imaging_core.fields import build
from imaging_core.task import load_function, no_progress
from selection_core.config import PRESETS, SelectionConfig
from selection_core.task import TASK
from selection_core.training import build_environment, keep_auc, select

SEEDS = range(5)
ARMS = list(itertools.product(("gru", "gru_attention", "transformer"), ("reinforce", "ppo")))
PLANTED = {
    **PRESETS["demo"],
    "pool": "real",
    "pool_label_noise": 0.5,
    "reward_model": "linear_probe",
}


def _config(**fields):
    return build(SelectionConfig, {**PLANTED, **fields})


def _compute(stage, data, needs):
    return load_function(stage.compute)(
        stage.inputs, data, needs, device="cpu", progress=no_progress
    )


@pytest.fixture(scope="module")
def prepared():
    """The data, and per seed the computed stages, shared by all arms and signs.

    One base classifier serves the five seeds as their feature extractor, to be quick: only the
    k-shot draw, the pool and every stream of the controller differ between them.
    """
    data = load("ihc-colon")
    found, base = {}, None
    for seed in SEEDS:
        stages = TASK.stages(_config(), seed)
        if base is None:
            base = _compute(stages["base"], data, {})
        pool = _compute(stages["pool"], data, {})
        features = _compute(stages["features"], data, {"pool": pool, "base": base})
        found[seed] = {"pool": pool, "features": features}
    return data, found


def _auc(prepared, seed, controller, policy_gradient, sign):
    data, stages = prepared
    config = _config(controller=controller, policy_gradient=policy_gradient, reward_sign=sign)
    environment = build_environment(config, data, seed, stages[seed], device="cpu")
    probability, _, _ = select(
        config, data, seed, stages[seed], environment, device="cpu", progress=no_progress
    )
    pool = stages[seed]["pool"]
    return keep_auc(probability, pool["labels"] == pool["true_labels"])


@pytest.mark.parametrize(("controller", "policy_gradient"), ARMS)
def test_keep_probability_finds_the_right_labels(prepared, controller, policy_gradient):
    mean = {
        sign: np.mean([_auc(prepared, s, controller, policy_gradient, sign) for s in SEEDS])
        for sign in ("normal", "flipped", "random")
    }
    print(
        f"{controller} {policy_gradient}: AUC {mean['normal']:.3f}, flipped "
        f"{mean['flipped']:.3f}, null {mean['random']:.3f}"
    )
    assert mean["normal"] >= 0.8
    assert mean["flipped"] <= 0.3
