"""A generator's training cut into checkpoints ends in the very bits of an uncut one."""

import numpy as np
import pytest
from test_selection_cell import TINY, compute_stages, make_data

from imaging_core.fields import build
from imaging_core.task import load_function, no_progress
from selection_core.config import SelectionConfig
from selection_core.task import TASK, generator_stages

GENERATOR = {"generator_steps": 7, "generator_snapshots": 3, "method": "use_all"}


def _config(checkpoints):
    fields = {**TINY, **GENERATOR, "generator_checkpoints": checkpoints}
    return build(SelectionConfig, fields)


@pytest.fixture(scope="module")
def data():
    return make_data().check()


@pytest.mark.parametrize("checkpoints", [2, 7])
def test_parts_give_the_bits_of_the_whole(data, checkpoints):
    whole = compute_stages(_config(1), data, 0, {})
    parts = compute_stages(_config(checkpoints), data, 0, {})
    assert len(generator_stages(_config(checkpoints))) == checkpoints
    assert whole["generator"].keys() == parts["generator"].keys()
    for name, value in whole["generator"].items():
        assert np.array_equal(value, parts["generator"][name])
    assert np.array_equal(whole["pool"]["checksum"], parts["pool"]["checksum"])


def test_a_checkpoint_without_its_optimiser_would_not(data):
    """The twin: what the checkpoint holds beside the weights is needed."""
    first, last = generator_stages(_config(2)).values()

    def compute(stage, needs):
        function = load_function(stage.compute)
        return function(stage.inputs, data, needs, device="cpu", progress=no_progress)

    checkpoint = compute(first, {})
    good = compute(last, {first.name: checkpoint})
    assert any(name.startswith("for_g/") for name in checkpoint)
    lame = {
        name: np.zeros_like(v) if name.endswith("exp_avg_sq") else v
        for name, v in checkpoint.items()
    }
    bad = compute(last, {first.name: lame})
    assert not all(np.array_equal(good[name], bad[name]) for name in good)


def test_more_checkpoints_than_steps_are_as_many_as_steps():
    config = build(SelectionConfig, {**TINY, "generator_steps": 4, "generator_checkpoints": 10})
    until = [stage.inputs["until"] for stage in generator_stages(config).values()]
    assert until == [1, 2, 3, 4]
    assert set(TASK.stages(config, 0)) >= {"generator", "generator-1-of-4", "pool"}
