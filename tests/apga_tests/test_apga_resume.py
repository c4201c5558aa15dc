"""A cell of APGA that is killed anywhere and gone on with: the bytes of one that was left alone."""

import numpy as np
import pytest
from killed import undisturbed_and_killed

from apga_core.task import TASK
from imaging_core.datasets import load
from imaging_core.fields import build
from imaging_core.task import load_function

QUICK = {
    "k_shot": 12,
    "base_epochs": 1,
    "base_min_steps": 3,
    "epochs": 3,
    "min_steps": 0,
    "batch_size": 8,
    "policy_warmup_steps": 2,
}
LEVELS = {
    "apga": {"method": "apga", "tta": True, "advantage_scale": "running-rms"},
    "end2end": {"method": "end2end", "second_view_statistics": "shared"},
    "random_mask": {"method": "random_mask", "second_view_statistics": "re-estimated"},
    "cutout": {"method": "cutout", "patience": 1},
}


@pytest.fixture(scope="module")
def data():
    whole = load("phantom-xray")
    few = {name: getattr(whole, name).take(np.arange(24)) for name in ("validation", "test")}
    return type(whole)(
        name=whole.name, classes=whole.classes, train=whole.train, notes=whole.notes, **few
    )


def computed(stage, data, checkpoint):
    needs = {name: computed(need, data, checkpoint) for name, need in stage.needs.items()}
    function = load_function(stage.compute)
    takes = {"checkpoint": checkpoint} if checkpoint is not None else {}
    return function(stage.inputs, data, needs, device="cpu", **takes)


def same(one, other):
    assert one.metrics == other.metrics
    assert one.curves == other.curves
    for a, b in zip(one.predictions, other.predictions, strict=True):
        assert a.probabilities.tobytes() == b.probabilities.tobytes()
    assert one.artifacts.keys() == other.artifacts.keys()
    for name, array in one.artifacts.items():
        assert np.asarray(array).tobytes() == np.asarray(other.artifacts[name]).tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("name", LEVELS)
def test_every_kind_of_arm(name, data):
    config = build(TASK.config, {**TASK.presets["demo"], **QUICK, **LEVELS[name]})
    stages = TASK.stages(config, 0)
    kept = {key: computed(stage, data, None) for key, stage in stages.items()}

    def cell(checkpoint):
        train = load_function(TASK.train)
        return train(config, data, 0, kept, checkpoint=checkpoint)

    one, other, ticks = undisturbed_and_killed(cell, (2, 3, 1))
    assert ticks >= 6
    same(one, other)


@pytest.mark.slow
def test_the_converged_classifier(data):
    config = build(TASK.config, {**TASK.presets["demo"], **QUICK, "method": "baseline"})
    stage = TASK.stages(config, 0)["base"]
    one, other, ticks = undisturbed_and_killed(lambda c: computed(stage, data, c), (1, 1))
    assert ticks >= 3
    assert one.keys() == other.keys()
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
