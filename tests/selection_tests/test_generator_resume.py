"""A generator's training: cut into checkpoints it ends in the very bits of an uncut one."""

import numpy as np
import pytest
import torch
from selection_cells import TINY, compute_stages, make_data

from imaging_core.fields import build
from imaging_core.seeding import torch_generator
from imaging_core.task import load_function, no_progress
from selection_core.config import SelectionConfig
from selection_core.generator import GanConfig, GanTraining, build_generator, sample
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
    assert len(generator_stages(_config(checkpoints), 0)) == checkpoints
    assert whole["generator"].keys() == parts["generator"].keys()
    for name, value in whole["generator"].items():
        assert np.array_equal(value, parts["generator"][name])
    assert np.array_equal(whole["pool"]["checksum"], parts["pool"]["checksum"])


def test_a_checkpoint_without_its_optimiser_would_not(data):
    """The twin: what the checkpoint holds beside the weights is needed."""
    first, last = generator_stages(_config(2), 0).values()

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
    until = [stage.inputs["until"] for stage in generator_stages(config, 0).values()]
    assert until == [1, 2, 3, 4]
    assert set(TASK.stages(config, 0)) >= {"generator", "generator-1-of-4", "pool"}


LARGEST = pytest.param((256, 128), marks=pytest.mark.slow)


@pytest.mark.long
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (96, 96), LARGEST])
def test_one_step_at_every_size_of_the_papers(size):
    config = GanConfig(
        steps=1,
        snapshots=1,
        batch=4,
        width=4,
        latent=4,
        generator_learning_rate=1e-4,
        discriminator_learning_rate=1e-4,
        ema=0.9,
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 3, *size)).astype(np.uint8)
    told = []
    training = GanTraining(images, np.arange(6) % 4, 4, config=config, seed=0)
    training.run(1, lambda done, note="": told.append((done, note)))
    assert told == [(1.0, "generator step 1/1")]
    network = build_generator(config, classes=4, channels=3, size=size)
    network.load_state_dict(training.snapshots[-1])
    made = sample(network, np.arange(4), torch.randn(4, 4, generator=torch_generator(0, "z")), 4)
    assert made.shape == (4, 3, *size)
    assert made.std() > 0
