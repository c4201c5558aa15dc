"""Kept networks say of the cell's own images and pool what the cell said."""

import numpy as np
import pytest
from selection_cells import TINY, as_bytes, compute_stages, make_data

from imaging_core.fields import build
from imaging_core.keeping import Kept, keeping
from imaging_core.task import load_function, no_progress
from selection_core import applying
from selection_core.task import TASK

DATA = make_data()


def kept_cell(keep=True, seed=0, **fields):
    config = build(TASK.config, {**TINY, **fields})
    with keeping(keep) as of_stages:
        computed = compute_stages(config, DATA, seed, {})
    with keeping(keep) as networks:
        outcome = load_function(TASK.train)(
            config, DATA, seed, computed, device="cpu", progress=no_progress
        )
    kept = Kept(
        config=config, seed=seed, classes=DATA.classes, channels=1, size=DATA.size,
        arrays={**of_stages, **networks},
    )  # fmt: skip
    return computed, outcome, kept


def said_of_test(outcome):
    return next(p.probabilities for p in outcome.predictions if p.split == "test")


CELLS = {
    "gru": {"controller": "gru"},
    "attention": {"controller": "gru_attention", "final_selection": "expected_count"},
    "transformer": {"controller": "transformer", "candidate_order": "shuffled"},
    "last": {"policy_readout": "last", "final_selection": "drawn", "iterations": 7},
    "best": {"policy_readout": "best_smoothed_reward", "iterations": 7},
    "logistic": {"method": "logistic_policy"},
}


FAST = ("gru", "best")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in CELLS]
)
def test_a_controller_keeps_of_its_own_pool_what_it_kept(name):
    computed, outcome, kept = kept_cell(**CELLS[name])
    pool = computed["pool"]
    found = applying.apply(kept, pool["images"], pool["labels"])
    np.testing.assert_array_equal(found.keep_probability, outcome.artifacts["keep_probability"])
    np.testing.assert_array_equal(found.keep, outcome.artifacts["kept"])
    test = applying.apply(kept, DATA.test.images)
    np.testing.assert_array_equal(test.probabilities, said_of_test(outcome))
    assert test.keep is None
    shape = {"channels": 1, "size": DATA.size, "classes": 2}
    stored = sum(
        a.nbytes
        for name, a in kept.arrays.items()
        if not name.startswith("normalisation/") and name != "features/candidates"
    )
    assert applying.bytes_of(kept.config, **shape) == stored


def test_another_pool_is_standardised_by_the_controllers_own():
    computed, _, kept = kept_cell(controller="gru")
    pool = computed["pool"]
    rows = np.array([0, 1, 8, 9])  # two of each class: half of a batch
    part = applying.apply(kept, pool["images"][rows], pool["labels"][rows])
    assert part.keep_probability.shape == (4,)
    own = kept.arrays
    moved = Kept(
        config=kept.config, seed=0, classes=kept.classes, channels=1, size=kept.size,
        arrays={**own, "features/mean": own["features/mean"] + 3 * own["features/std"]},
    )  # fmt: skip
    other = applying.apply(moved, pool["images"][rows], pool["labels"][rows])
    assert not np.array_equal(part.keep_probability, other.keep_probability)


def test_the_cell_is_the_same_whether_its_networks_are_kept_or_not():
    computed, outcome, _ = kept_cell(controller="gru_attention")
    plain, without, nothing = kept_cell(keep=False, controller="gru_attention")
    assert not nothing.arrays
    assert as_bytes(plain, without) == as_bytes(computed, outcome)


@pytest.mark.parametrize("method", ["baseline", "oracle", "centroid_distance"])
def test_a_method_without_a_controller_has_a_classifier_alone(method):
    _, outcome, kept = kept_cell(method=method)
    found = applying.apply(kept, DATA.test.images, DATA.test.labels)
    np.testing.assert_array_equal(found.probabilities, said_of_test(outcome))
    assert found.keep_probability is None
