"""Every method end to end on made-up images: what it keeps, what it costs, what it may not see."""

import dataclasses

import numpy as np
import pytest
from selection_cells import TINY, as_bytes, make_data, run_cell

from imaging_core.fields import ConfigError, build
from imaging_core.splits import k_shot_index
from imaging_core.task import Metric
from selection_core.config import SelectionConfig
from selection_core.task import TASK

# keep_share of the rivals' 16 candidates, and classifier trainings: 3 iterations × 2 episodes.
REWARDS = 6
EXPECTED = {
    "controller": (None, REWARDS + 1),
    "logistic_policy": (None, REWARDS + 1),
    "baseline": (0, 1),
    "traditional_augmentation": (0, 1),
    "gan_augmentation": (8, 1),
    "metric_learning": (8, 2),
    "centroid_distance": (8, 1),
    "confidence_centroid": (None, 1),
    "agreement": (8, 1),
    "use_all": (16, 1),
    "k_matched_random": (None, REWARDS + 3),
    "k_matched_centroid": (None, REWARDS + 1),
    "random_subset_search": (None, REWARDS + 1),
    "true_half": (8, 1),
    "oracle": (0, 1),
}
WITHOUT_REWARD = (
    "gan_augmentation",
    "metric_learning",
    "centroid_distance",
    "confidence_centroid",
    "agreement",
    "use_all",
    "true_half",
)
WITH_REWARD = (
    "controller",
    "logistic_policy",
    "k_matched_random",
    "k_matched_centroid",
    "random_subset_search",
)
POOLED = (*WITHOUT_REWARD, *WITH_REWARD)
DRAWS = {"k_matched_random": {"matched_draws": 3}}


@pytest.fixture(scope="module")
def data():
    return make_data().check()


@pytest.fixture(scope="module")
def memory():
    return {}


@pytest.fixture(scope="module")
def cells(data, memory):
    """Method → (stages, outcome)."""
    return {
        method: run_cell(data, memory=memory, method=method, **DRAWS.get(method, {}))
        for method in EXPECTED
    }


def test_every_level_of_the_factor_is_expected_here():
    from imaging_core.fields import levels_of

    assert set(levels_of(SelectionConfig, "method")) == set(EXPECTED)


@pytest.mark.long
@pytest.mark.parametrize("method", EXPECTED)
def test_what_a_method_keeps_and_costs(cells, method):
    _, outcome = cells[method]
    selected, trainings = EXPECTED[method]
    assert outcome.metrics["classifier_trainings"] == trainings
    if selected is not None:
        assert outcome.metrics["selected"] == selected
    known: dict[str, Metric] = {m.name: m for m in TASK.metrics}
    for name, value in outcome.metrics.items():
        assert known[name].low <= value <= known[name].high
    for name in ("accuracy", "auc", "sensitivity", "specificity", "optimiser_steps"):
        assert name in outcome.metrics


@pytest.mark.parametrize("method", ["metric_learning", "random_subset_search", "k_matched_random"])
def test_a_method_gives_the_same_bytes_twice(data, memory, cells, method):
    again = run_cell(data, memory=memory, method=method, **DRAWS.get(method, {}))
    assert as_bytes(*again) == as_bytes(*cells[method])


def test_matched_controls_keep_as_many_of_each_class_and_share_the_controllers_stage(cells):
    stages, controller = cells["controller"]
    labels = controller.artifacts["pool_labels"]
    chosen = np.bincount(labels[controller.artifacts["kept"]], minlength=2)
    for method in ("k_matched_random", "k_matched_centroid"):
        theirs, outcome = cells[method]
        assert theirs["selection"] is stages["selection"]
        mass = outcome.artifacts["keep_probability"]
        kept = [float(mass[labels == c].sum()) for c in (0, 1)]
        assert np.allclose(kept, chosen)
    nearest = cells["k_matched_centroid"][1].artifacts
    for label in (0, 1):
        rows = labels == label
        keep = nearest["keep_probability"][rows] > 0.5
        distance = nearest["centroid_distance"][rows]
        if 0 < keep.sum() < len(keep):
            assert distance[keep].max() <= distance[~keep].min()


def test_every_draw_is_stored_and_the_metrics_are_their_mean(data, cells):
    _, outcome = cells["k_matched_random"]
    for part, split in zip(outcome.predictions, (data.validation, data.test), strict=True):
        assert np.array_equal(part.ids.reshape(3, -1), np.tile(split.ids, (3, 1)))
    tested = outcome.predictions[1]
    right = (tested.probabilities.argmax(1) == tested.labels).reshape(3, -1)
    assert outcome.metrics["accuracy"] == pytest.approx(right.mean())
    draws = tested.probabilities.reshape(3, len(data.test), -1)
    assert not np.array_equal(draws[0], draws[1])


def test_the_search_takes_the_best_reward_it_saw(cells):
    _, outcome = cells["random_subset_search"]
    assert len(outcome.curves["reward"]) == REWARDS


def test_every_final_fit_makes_the_same_steps_whatever_is_kept(data, memory, cells):
    """And every reward too; by passes over the images, the twin, they differ."""
    rewards, final = REWARDS * TINY["reward_steps"], TINY["classifier_steps"]
    spent = {method: outcome.metrics["optimiser_steps"] for method, (_, outcome) in cells.items()}
    expected = dict.fromkeys(EXPECTED, final)
    expected |= dict.fromkeys(WITH_REWARD, rewards + final)
    expected["k_matched_random"] += 2 * final  # three draws
    expected["metric_learning"] += final  # the embedding's
    assert spent == expected
    by_passes = {
        method: run_cell(data, memory=memory, method=method, classifier_steps=0)[1]
        for method in ("baseline", "use_all")
    }
    baseline, everything = (o.metrics["optimiser_steps"] for o in by_passes.values())
    assert everything > 1.5 * baseline


def test_the_oracle_sees_all_training_images_and_the_baseline_few(data, cells):
    other = dataclasses.replace(data.train, images=data.train.images.copy())
    outside = np.setdiff1d(np.arange(len(other)), k_shot_index(other, TINY["k_shot"], 0))
    other.images[outside] = 255 - other.images[outside]
    changed = dataclasses.replace(data, train=other)
    for method, same in (("baseline", True), ("oracle", False)):
        mine, (_, theirs) = cells[method][1], run_cell(changed, method=method)
        assert (mine.metrics["accuracy"] == theirs.metrics["accuracy"]) == same
        probabilities = [o.predictions[1].probabilities for o in (mine, theirs)]
        assert np.array_equal(*probabilities) == same


def test_traditional_augmentation_is_the_baseline_with_that_augmentation(data, cells):
    _, mine = cells["traditional_augmentation"]
    _, theirs = run_cell(data, method="baseline", classifier_augment="traditional")
    _, plain = cells["baseline"]

    def tested(outcome):
        return outcome.predictions[1].probabilities

    assert np.array_equal(tested(mine), tested(theirs))
    assert not np.array_equal(tested(mine), tested(plain))


def _permuted(part, seed=11):
    return dataclasses.replace(part, labels=np.random.default_rng(seed).permutation(part.labels))


@pytest.mark.long
@pytest.mark.parametrize("method", POOLED)
def test_test_labels_change_no_selection(data, memory, cells, method):
    other = dataclasses.replace(data, test=_permuted(data.test))
    _, theirs = run_cell(other, memory=memory, method=method, **DRAWS.get(method, {}))
    mine = cells[method][1].artifacts["keep_probability"]
    assert np.array_equal(mine, theirs.artifacts["keep_probability"])


@pytest.mark.long
@pytest.mark.parametrize("method", POOLED)
def test_validation_labels_change_selections_by_reward_and_no_other(data, memory, cells, method):
    """The methods with a reward are the twin: they must change, or the check would be blind."""
    other = dataclasses.replace(data, validation=_permuted(data.validation))
    _, theirs = run_cell(other, memory=memory, method=method, **DRAWS.get(method, {}))
    mine = cells[method][1].artifacts["keep_probability"]
    same = np.array_equal(mine, theirs.artifacts["keep_probability"])
    assert same == (method in WITHOUT_REWARD)


@pytest.mark.parametrize("method", WITHOUT_REWARD)
def test_training_labels_do_change_them(data, memory, cells, method):
    """The handcrafted selections rest on training labels, but for two that look at nothing."""
    other = dataclasses.replace(data, train=_permuted(data.train))
    _, theirs = run_cell(other, memory=memory, method=method)
    mine = cells[method][1].artifacts["keep_probability"]
    same = np.array_equal(mine, theirs.artifacts["keep_probability"])
    assert same == (method in ("gan_augmentation", "use_all"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "logistic_policy", "controller": "gru"}, "controller must be left at .*gru"),
        (
            {"method": "traditional_augmentation", "classifier_augment": "traditional"},
            "classifier_augment must not be traditional .* try classifier_augment=none",
        ),
        ({"method": "metric_learning", "k_shot": 1}, "k_shot must be 0 .*at least 2.* got 1"),
    ],
)
def test_one_method_under_the_name_of_another_is_refused(data, fields, message):
    with pytest.raises(ConfigError, match=message):
        TASK.check(build(SelectionConfig, {**TINY, **fields}), data)


def test_an_unknown_method_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r'method must be one of .*did you mean "agreement"'):
        build(SelectionConfig, {"method": "agrement"})
