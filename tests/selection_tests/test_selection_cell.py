"""A whole cell on made-up images: the same bytes every time, and nothing read that must not be."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import selection_cells
from selection_cells import TINY, as_bytes, digest, make_data, make_part, run_cell

from imaging_core.fields import ConfigError, build
from imaging_core.splits import k_shot_index
from selection_core.config import SelectionConfig
from selection_core.controllers import CONTROLLERS
from selection_core.task import TASK


@pytest.fixture(scope="module")
def data():
    return make_data().check()


@pytest.fixture(scope="module")
def memory():
    return {}


@pytest.fixture(scope="module")
def default(data, memory):
    return run_cell(data, memory=memory)


@pytest.mark.long
@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("policy_gradient", ["reinforce", "ppo"])
def test_every_arm_gives_the_same_bytes_twice(data, memory, controller, policy_gradient):
    """What arms share is there already; the selection and the cell are computed both times."""
    arm = {"controller": controller, "policy_gradient": policy_gradient}
    run_cell(data, memory=memory, method="use_all")  # generator, pool, features
    first, second = (as_bytes(*run_cell(data, memory=dict(memory), **arm)) for _ in range(2))
    assert first == second


@pytest.mark.slow
def test_a_fresh_process_gives_the_bytes_of_a_warm_one(data, default):
    """Stages and cell, computed again from nothing in another interpreter."""
    script = str(Path(selection_cells.__file__))
    fresh = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == digest(*default)


def test_what_a_cell_reports(data, default):
    _, outcome = default
    metrics = outcome.metrics
    assert set(metrics) <= {m.name for m in TASK.metrics}
    assert all(np.isfinite(v) for v in metrics.values())
    assert metrics["classifier_trainings"] == 3 * 2 + 1  # iterations × episodes, and the final one
    assert metrics["pool_size"] == 16
    assert metrics["selected"] == outcome.artifacts["kept"].sum()
    assert metrics["accuracy"] == metrics["test_at_best_val"]
    assert {k: len(v) for k, v in outcome.curves.items()} == {
        "reward": 3,
        "entropy": 3,
        "kept_fraction": 3,
        "kept/class 0": 3,
        "kept/class 1": 3,
    }
    kept = np.add(outcome.curves["kept/class 0"], outcome.curves["kept/class 1"])
    assert np.allclose(kept, 16 * np.array(outcome.curves["kept_fraction"]))
    by_split = {p.split: p for p in outcome.predictions}
    assert np.array_equal(by_split["test"].ids, data.test.ids)
    right = by_split["test"].probabilities.argmax(1) == data.test.labels
    assert right.mean() == pytest.approx(metrics["accuracy"])
    assert all(
        v.dtype == np.uint8 and len(v) <= 8
        for k, v in outcome.artifacts.items()
        if k.startswith(("real_", "generated_", "selected_", "discarded_"))
    )


def test_the_seed_moves_the_cell_but_not_a_generator_of_all_images(data, default):
    first, one = run_cell(data, generator_images="all")
    second, two = run_cell(data, seed=1, generator_images="all")
    for shared in ("generator", "pool"):
        assert all(np.array_equal(first[shared][k], second[shared][k]) for k in first[shared])
    assert not np.array_equal(first["features"]["pool"], second["features"]["pool"])
    assert dict(one.metrics) != dict(two.metrics)


def _with_labels(part, seed):
    return dataclasses.replace(part, labels=np.random.default_rng(seed).permutation(part.labels))


@pytest.mark.long
def test_test_labels_change_no_selection_and_no_prediction(data, default):
    """The twin with other *validation* labels must differ, or this test could not fail."""
    _, true = default
    _, other = run_cell(dataclasses.replace(data, test=_with_labels(data.test, 7)))
    for name in ("keep_probability", "centroid_distance"):
        assert np.array_equal(true.artifacts[name], other.artifacts[name])
    for mine, theirs in zip(true.predictions, other.predictions, strict=True):
        assert np.array_equal(mine.probabilities, theirs.probabilities)
    changed = dataclasses.replace(data, validation=_with_labels(data.validation, 7))
    _, twin = run_cell(changed)
    assert not np.array_equal(
        true.artifacts["keep_probability"], twin.artifacts["keep_probability"]
    )


def test_the_generator_sees_training_images_only(data, default):
    other = dataclasses.replace(data, validation=make_part("v", 24, 8), test=make_part("t", 24, 9))
    mine, _ = default
    theirs, _ = run_cell(other, method="use_all")
    assert np.array_equal(mine["pool"]["checksum"], theirs["pool"]["checksum"])
    changed = dataclasses.replace(data, train=make_part("train", 48, 5))
    twin, _ = run_cell(changed, method="use_all")
    assert not np.array_equal(mine["pool"]["checksum"], twin["pool"]["checksum"])


@pytest.mark.parametrize(("level", "same"), [("k_shot", True), ("all", False)])
def test_the_generator_sees_no_image_that_the_classifiers_do_not(data, level, same):
    """By default; with generator_images=all, the twin, it does."""
    other = dataclasses.replace(data.train, images=data.train.images.copy())
    outside = np.setdiff1d(np.arange(len(other)), k_shot_index(other, TINY["k_shot"], 0))
    other.images[outside] = 255 - other.images[outside]
    pools = [
        run_cell(d, generator_images=level, method="use_all")[0]["pool"]["checksum"]
        for d in (data, dataclasses.replace(data, train=other))
    ]
    assert np.array_equal(*pools) == same


@pytest.mark.long
@pytest.mark.parametrize(
    "level",
    [
        {"reward_smoothing": "reward"},
        {"value_baseline": "off"},
        {"value_target": "raw"},
        {"kl_limit": 1e-4},
        {"advantage_scale": "none"},
        {"ratio": "joint"},
        {"candidate_order": "shuffled"},
        {"positions": "off"},
        {"candidate_label": "embedding"},
        {"candidate_label": "off"},
        {"reward_statistic": "mean"},
        {"reward_metric": "accuracy"},
        {"episode": "batch"},
        {"classifier_reset": "warm"},
        {"sampling": "independent"},
        {"reward_model": "linear_probe"},
        {"reward_sign": "flipped"},
        {"reward_sign": "random"},
        {"pool": "natural"},
        {"pool": "real"},
        {"pool_label_noise": 0.5},
        {"reward_norm_momentum": 0.5},
        {"reward_repeats": 2},
        {"generator_images": "all"},
        {"classifier_augment": "flips"},
        {"reward_steps": 0},
    ],
    ids=lambda level: "-".join(f"{k}={v}" for k, v in level.items()),
)
def test_every_level_runs_and_matters(data, default, memory, level):
    _, other = run_cell(data, memory=memory, **level)
    assert all(np.isfinite(v) for v in other.metrics.values())
    same = np.array_equal(
        default[1].artifacts["keep_probability"], other.artifacts["keep_probability"]
    )
    assert not same
    assert ("keep_auc" in other.metrics) == ("pool_label_noise" in level)


@pytest.mark.parametrize("rule", ["threshold", "expected_count", "drawn"])
def test_the_final_rule_shares_the_controllers_stage(data, default, memory, rule):
    stages, outcome = run_cell(data, memory=memory, final_selection=rule)
    assert np.array_equal(
        stages["selection"]["probability"], default[0]["selection"]["probability"]
    )
    assert TASK.stages(build(SelectionConfig, {**TINY, "final_selection": rule}), 0) == (
        TASK.stages(build(SelectionConfig, TINY), 0)
    )
    assert outcome.metrics["selected"] == outcome.artifacts["kept"].sum()
    kept = sum(len(v) for k, v in outcome.artifacts.items() if k.startswith("selected_"))
    assert kept == outcome.artifacts["kept"].sum()


def test_the_readouts_share_the_controllers_stage_and_read_two_policies(data, memory):
    """The last policy is that after the last update, the best one that some iteration drew from."""
    kept = {}
    for readout, array in (("last", "probability"), ("best_smoothed_reward", "probability_best")):
        fields = {"policy_readout": readout, "final_selection": "expected_count"}
        stages, outcome = run_cell(data, memory=memory, **fields)
        assert TASK.stages(build(SelectionConfig, {**TINY, **fields}), 0) == (
            TASK.stages(build(SelectionConfig, TINY), 0)
        )
        kept[readout] = outcome.artifacts["keep_probability"]
        assert np.array_equal(kept[readout], stages["selection"][array])
    assert not np.array_equal(kept["last"], kept["best_smoothed_reward"])


def test_one_reward_per_batch_costs_as_many_trainings(data, memory):
    _, outcome = run_cell(data, memory=memory, episode="batch")
    kept = np.add(outcome.curves["kept/class 0"], outcome.curves["kept/class 1"])
    assert np.allclose(kept, 16 * np.array(outcome.curves["kept_fraction"]))
    assert outcome.metrics["classifier_trainings"] == 3 * 2 * 2 + 1


def test_an_empty_selection_is_the_baseline(data, memory):
    """Without learning p stays exactly 1/2, which p > 0.5 does not keep; the final classifier then
    has the baseline's images, weights and batches, so its very predictions.
    """
    _, outcome = run_cell(
        data, memory=memory, reward_sign="random", learning_rate=1e-12, final_selection="threshold"
    )
    assert outcome.metrics["selected"] == 0
    assert "selected_0" not in outcome.artifacts
    computed, baseline = run_cell(data, method="baseline")
    assert set(computed) == {"final"}
    for mine, theirs in zip(outcome.predictions, baseline.predictions, strict=True):
        assert np.array_equal(mine.probabilities, theirs.probabilities)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"k_shot": 25}, r"k_shot must be at most 24"),
        ({"validation_per_class": 13}, r"validation_per_class must be at most 12 .*\"dark\".*13"),
        ({"pool": "real", "pool_per_class": 20}, r"pool_per_class must be at most 18 .* got 20"),
    ],
)
def test_data_that_does_not_fit_is_refused_before_any_work(data, fields, message):
    with pytest.raises(ConfigError, match=message):
        TASK.check(build(SelectionConfig, {**TINY, **fields}), data)


@pytest.mark.parametrize("method", ["baseline", "traditional_augmentation", "oracle"])
def test_a_method_without_candidates_is_trained_once_for_all_pools(method):
    def final(**fields):
        return TASK.stages(build(SelectionConfig, {**TINY, "method": method, **fields}), 0)

    assert final() == final(pool="collapsed") == final(pool="mixed", pool_label_noise=0.5)
    for other in ({"k_shot": 5}, {"validation_per_class": 4}, {"classifier_epochs": 2}):
        assert final() != final(**other)


def test_stage_identities_hold_no_more_than_they_need():
    """Arms share every stage but the selection; the seed enters only where it matters."""
    base = build(SelectionConfig, TINY)
    arm = build(SelectionConfig, {**TINY, "controller": "gru", "policy_gradient": "reinforce"})
    mine, theirs = TASK.stages(base, 0), TASK.stages(arm, 0)
    assert {name for name in mine if mine[name] != theirs[name]} == {"selection"}
    assert TASK.stages(base, 0)["pool"] != TASK.stages(base, 1)["pool"]
    of_all = build(SelectionConfig, {**TINY, "generator_images": "all"})
    assert TASK.stages(of_all, 0)["pool"] == TASK.stages(of_all, 1)["pool"]
    assert TASK.stages(of_all, 0)["pool"] != TASK.stages(base, 0)["pool"]
    one_k = {"k_shot": 0, "pool": "natural"}  # all images either way: one generator
    every = [
        build(SelectionConfig, {**TINY, **one_k, "generator_images": x}) for x in ("k_shot", "all")
    ]
    assert TASK.stages(every[0], 0)["pool"] == TASK.stages(every[1], 1)["pool"]
    assert TASK.stages(base, 0)["base"] != TASK.stages(base, 1)["base"]
    noisy = build(SelectionConfig, {**TINY, "pool_label_noise": 0.5})
    assert TASK.stages(base, 0)["generator"] == TASK.stages(noisy, 0)["generator"]
    assert TASK.stages(base, 0)["features"] != TASK.stages(noisy, 0)["features"]
