"""The contract of `apga_core.task`: pure cells, refused misfits, configurations that round-trip."""

import dataclasses
import json

import numpy as np
import pytest

from apga_core.task import TASK
from imaging_core import fields
from imaging_core.datasets import phantom_xray
from imaging_core.fields import ConfigError
from imaging_core.task import Outcome, load_function

TINY = {
    **TASK.presets["demo"],
    "classifier": "tiny-resnet",
    "base_epochs": 2,
    "base_min_steps": 0,
    "batch_size": 25,
    "epochs": 1,
    "min_steps": 0,
    "samples": 2,
    "policy_warmup_steps": 0,
    "lambda_ramp_steps": 0,
}


@pytest.fixture(scope="module")
def data():
    variant = dataclasses.replace(phantom_xray.VARIANTS["fracture"], patients=48)
    return phantom_xray.generate(variant, name="tiny", seed=1)[0].check()


@pytest.fixture(scope="module")
def computed():
    """Stages by identity, each computed once."""
    return {}


def arrays(stage, data, computed):
    key = repr((stage.name, dict(stage.inputs)))
    if key not in computed:
        needs = {name: arrays(need, data, computed) for name, need in stage.needs.items()}
        computed[key] = load_function(stage.compute)(stage.inputs, data, needs)
    return computed[key]


def run(data, computed, **changes) -> Outcome:
    config = fields.build(TASK.config, TINY | changes)
    TASK.check(config, data)
    stages = TASK.stages(config, 0)
    ready = {name: arrays(stage, data, computed) for name, stage in stages.items()}
    return load_function(TASK.train)(config, data, 0, ready, device="cpu")


def same(first: Outcome, second: Outcome) -> bool:
    return (
        first.metrics == second.metrics
        and first.curves == second.curves
        and all(
            np.array_equal(a.probabilities, b.probabilities)
            for a, b in zip(first.predictions, second.predictions, strict=True)
        )
        and all(np.array_equal(first.artifacts[k], second.artifacts[k]) for k in first.artifacts)
    )


@pytest.fixture(scope="module")
def by_method(data, computed):
    methods = fields.levels_of(TASK.config, "method")
    return {method: run(data, computed, method=method) for method in methods}


@pytest.mark.parametrize("method", fields.levels_of(TASK.config, "method"))
def test_the_same_cell_twice_is_the_same_bits(data, computed, by_method, method):
    first = by_method[method]
    assert same(first, run(data, computed, method=method))
    known = {metric.name: metric for metric in TASK.metrics}
    for name, value in first.metrics.items():
        assert known[name].low <= value <= known[name].high, name
    json.dumps(dict(first.metrics), allow_nan=False)


def test_every_arm_but_the_baseline_has_the_same_budget(by_method):
    steps = {name: outcome.metrics["classifier_steps"] for name, outcome in by_method.items()}
    assert steps.pop("baseline") == 0
    assert len(set(steps.values())) == 1
    assert min(steps.values()) > 0


def test_arms_share_their_base_classifier_and_seeds_do_not():
    def inputs(seed=0, **changes):
        return TASK.stages(fields.build(TASK.config, TINY | changes), seed)["base"].inputs

    assert inputs(method="apga") == inputs(method="cutout", lambda_zeros=0.5, epochs=9)
    assert inputs() != inputs(seed=1)
    assert inputs() != inputs(k_shot=10)
    assert inputs() != inputs(base_learning_rate=1e-2)


@pytest.mark.parametrize("preset", TASK.presets)
def test_presets_round_trip_through_json(preset):
    config = fields.build(TASK.config, TASK.presets[preset])
    again = fields.build(TASK.config, json.loads(json.dumps(fields.as_dict(config))))
    assert again == config


def test_every_default_says_where_it_comes_from():
    sources = fields.sources(TASK.config)
    assert set(sources) == set(fields.field_names(TASK.config))
    assert all(where for _, where in sources.values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k_shot": 10_000}, "k_shot must be at most"),
        ({"grid": 9}, "coarse-unet needs a grid of 1 to 8"),
        ({"policy_network": "unet-vgg11", "grid": 33}, "grid must be at most the image's side"),
        ({"weights_path": "nowhere.pt"}, 'weights_path must name a file, got "nowhere.pt"'),
    ],
)
def test_misfits_with_the_data_are_refused(data, changes, message):
    with pytest.raises(ConfigError, match=message):
        TASK.check(fields.build(TASK.config, TINY | changes), data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": "greedy"}, "samples must be 1 with sampling=greedy"),
        ({"samples": 1}, "reward_baseline=leave-one-out needs samples of at least 2, got 1"),
        ({"method": "gradcm"}, 'method must be one of .*did you mean "gradcam"'),
        ({"lambda_zeros": -1}, "lambda_zeros: .*greater than or equal to 0"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        fields.build(TASK.config, TINY | changes)


def test_a_policy_cell_reports_masks_rewards_and_the_lesion(data, computed, by_method):
    outcome = run(data, computed, method="apga", tta=True)
    assert {
        "mask_area", "empty_masks", "lesion_auroc", "lesion_iou", "tta_accuracy",
        "lesion_margin", "lesion_iou_margin", "reward_of_lesion",
        "reward_of_patch_positive", "reward_of_patch_negative",
    } <= set(outcome.metrics)  # fmt: skip
    assert {"reward/class1", "mask_area/class0", "mask_area/class1"} <= set(outcome.curves)
    assert outcome.artifacts["gallery_importance"].shape == (8, 32, 32)
    plain = by_method["baseline_matched"]
    assert "lesion_auroc" not in plain.metrics
    assert not plain.artifacts


@pytest.mark.slow
def test_factors_change_the_cell(data, computed, by_method):
    reference = by_method["apga"]
    for changes in (
        {"target": "as-printed"},
        {"reward_granularity": "batch"},
        {"reward_baseline": "ema-after"},
        {"lambda_zeros": 0.2},
        {"lambda_ramp_steps": 5},
        {"lambda_mode": "abs-advantage"},
        {"lambda_ones": 0.01},
        {"pg_scale": 100.0},
        {"advantage_scale": "none"},
        {"erase_value": "zero"},
        {"reward_images": "all"},
        {"bn_mode": "released"},
        {"aid_ratio": 0.5},
        {"sampling": "greedy", "samples": 1, "reward_baseline": "ema-before"},
        {"initial_bias": 0.0},
        {"policy_warmup_steps": 3},
        {"grid": 4},
    ):
        assert not same(reference, run(data, computed, **changes)), changes
