"""Kept networks say of the cell's own images what the cell said."""

import numpy as np
import pytest
from test_apga_task import TINY, arrays, computed, data, same  # noqa: F401

from apga_core import applying
from apga_core.task import TASK
from imaging_core import fields
from imaging_core.keeping import Kept, keeping
from imaging_core.task import load_function


def kept_cell(data, computed, keep=True, **changes):  # noqa: F811
    config = fields.build(TASK.config, TINY | changes)
    ready = {n: arrays(stage, data, computed) for n, stage in TASK.stages(config, 0).items()}
    with keeping(keep) as networks:
        outcome = load_function(TASK.train)(config, data, 0, ready, device="cpu")
    kept = Kept(
        config=config, seed=0, classes=data.classes, channels=data.channels, size=data.size,
        arrays=networks,
    )  # fmt: skip
    return outcome, kept


@pytest.fixture(scope="module")
def apga(data, computed):  # noqa: F811
    return kept_cell(data, computed, k_shot=20)


@pytest.mark.long
def test_the_cell_is_the_same_whether_its_networks_are_kept_or_not(data, computed, apga):  # noqa: F811
    plain, nothing = kept_cell(data, computed, keep=False, k_shot=20)
    assert not nothing.arrays
    assert same(plain, apga[0])


def test_its_own_test_set_gets_the_same_probabilities_and_masks(data, apga):  # noqa: F811
    outcome, kept = apga
    test = applying.apply(kept, data.test.images)
    said = next(p for p in outcome.predictions if p.split == "test")
    np.testing.assert_array_equal(test.probabilities, said.probabilities)
    validation = applying.apply(kept, data.validation.images)
    rows = [data.test.ids.tolist().index(name) for name in outcome.artifacts["gallery_ids"]]
    gallery = outcome.artifacts["gallery_importance"].astype(np.float32)
    np.testing.assert_allclose(test.importance[rows], gallery, atol=1e-3)
    assert test.importance.shape == (len(data.test), *data.size)
    # The cell counts cells of the policy's grid, which the image shows interpolated.
    assert abs((validation.importance >= 0.5).mean() - outcome.metrics["mask_area"]) < 0.1
    assert test.masked.dtype == np.uint8
    assert test.masked.shape == data.test.images.shape


def test_a_mask_that_keeps_all_leaves_the_image_as_it_was(data, apga):  # noqa: F811
    _, kept = apga
    state = {name: value.copy() for name, value in kept.arrays.items()}
    last = [name for name in state if name.startswith("policy/") and name.endswith("head.bias")]
    state[last[0]][:] = 50
    open_policy = Kept(
        config=kept.config, seed=0, classes=kept.classes, channels=1, size=kept.size, arrays=state
    )
    found = applying.apply(open_policy, data.test.images[:5])
    np.testing.assert_array_equal(found.masked, data.test.images[:5])
    assert found.importance.min() > 0.5


def test_bytes_are_counted_as_they_are_stored(data, apga):  # noqa: F811
    _, kept = apga
    stored = sum(
        a.nbytes for name, a in kept.arrays.items() if not name.startswith("normalisation/")
    )
    told = applying.bytes_of(
        kept.config, channels=kept.channels, size=kept.size, classes=len(kept.classes)
    )
    assert told == stored


def test_an_arm_without_a_policy_has_a_classifier_alone(data, computed):  # noqa: F811
    outcome, kept = kept_cell(data, computed, method="baseline", k_shot=20)
    found = applying.apply(kept, data.test.images)
    assert found.importance is None
    assert found.masked is None
    said = next(p for p in outcome.predictions if p.split == "test")
    np.testing.assert_array_equal(found.probabilities, said.probabilities)
