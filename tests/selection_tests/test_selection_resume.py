"""Selection, killed anywhere and gone on with: the bytes of what was left alone."""

import numpy as np
import pytest
from killed import undisturbed_and_killed

from imaging_core.datasets import load
from imaging_core.fields import build
from imaging_core.task import load_function, no_progress
from selection_core.task import TASK

QUICK = {
    "generator_steps": 6,
    "generator_snapshots": 2,
    "iterations": 2,
    "episodes": 2,
    "pool_per_class": 16,
    "batches": 2,
    "classifier_steps": 8,
    "classifier_epochs": 4,
    "reward_steps": 6,
    "reward_epochs": 3,
    "reward_repeats": 2,
    "matched_draws": 2,
}


@pytest.fixture(scope="module")
def data():
    return load("ihc-colon")


class Stages:
    """The stages of a configuration, each computed once."""

    def __init__(self, data, **changes):
        self.data = data
        self.config = build(TASK.config, {**TASK.presets["demo"], **QUICK, **changes})
        self.stages = TASK.stages(self.config, 0)
        self.known = {}

    def compute(self, stage, **checkpoint):
        needs = {name: self.of(need) for name, need in stage.needs.items()}
        return load_function(stage.compute)(
            stage.inputs, self.data, needs, device="cpu", progress=no_progress, **checkpoint
        )

    def of(self, stage):
        key = (stage.name, repr(stage.inputs))
        if key not in self.known:
            self.known[key] = self.compute(stage)
        return self.known[key]

    def cell(self, checkpoint):
        kept = {name: self.of(stage) for name, stage in self.stages.items()}
        return load_function(TASK.train)(self.config, self.data, 0, kept, checkpoint=checkpoint)


def same_arrays(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert np.asarray(array).tobytes() == np.asarray(other[name]).tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [{}, {"classifier_reset": "warm", "reward_sign": "flipped"}, {"reward_sign": "random"}],
    ids=["reset", "warm", "random"],
)
def test_a_controller(data, changes):
    stages = Stages(data, method="controller", **changes)
    stage = stages.stages["selection"]
    kills = (1, 2) if changes.get("reward_sign") == "random" else (9, 3, 20, 1)
    one, other, _ = undisturbed_and_killed(
        lambda checkpoint: stages.compute(stage, checkpoint=checkpoint), kills
    )
    same_arrays(one, other)


@pytest.mark.slow
def test_the_generator_and_the_base_classifier(data):
    stages = Stages(data, method="use_all")
    pool, features = stages.stages["pool"], stages.stages["features"]
    for stage, kills in ((pool.needs["generator"], (2, 3)), (features.needs["base"], (5, 1))):
        one, other, _ = undisturbed_and_killed(
            lambda checkpoint, stage=stage: stages.compute(stage, checkpoint=checkpoint), kills
        )
        same_arrays(one, other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["random_subset_search", "k_matched_random", "use_all", "metric_learning"]
)
def test_a_cell(data, method):
    stages = Stages(data, method=method)
    kills = {
        "random_subset_search": (20, 30, 3),
        "k_matched_random": (10, 2),
        "use_all": (4,),
        "metric_learning": (3, 2, 5, 1),
    }
    one, other, _ = undisturbed_and_killed(stages.cell, kills[method])
    assert list(one.metrics.items()) == list(other.metrics.items())
    assert one.curves == other.curves
    for a, b in zip(one.predictions, other.predictions, strict=True):
        assert a.probabilities.tobytes() == b.probabilities.tobytes()
    same_arrays(one.artifacts, other.artifacts)
