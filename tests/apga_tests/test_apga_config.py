"""APGA's configuration: sources, presets that round-trip, contradictions that are refused."""

import dataclasses
import json

import pytest

from apga_core.task import TASK
from imaging_core import fields
from imaging_core.datasets import phantom_xray
from imaging_core.fields import ConfigError


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
        ({"sampling": "greedy"}, "samples must be 1 with sampling=greedy"),
        ({"samples": 1}, "reward_baseline=leave-one-out needs samples of at least 2, got 1"),
        ({"method": "gradcm"}, 'method must be one of .*did you mean "gradcam"'),
        ({"lambda_zeros": -1}, "lambda_zeros: .*greater than or equal to 0"),
    ],
)
def test_contradictions_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        fields.build(TASK.config, TASK.presets["demo"] | changes)


def test_the_released_preset_is_the_script():
    """Values read in the authors' script (notes on the code: learning rates, loss, modes)."""
    released = fields.build(TASK.config, TASK.presets["released"])
    said = {
        "learning_rate": 1e-5, "policy_learning_rate": 1e-5, "pg_scale": 100.0, "lambda_ones": 0.01,
        "lambda_mode": "abs-advantage", "reward_baseline": "ema-after", "sampling": "greedy",
        "reward_granularity": "batch", "bn_mode": "released", "tta": True, "weights": "none",
        "second_view_statistics": "shared", "batch_size": 25, "patience": 15,
    }  # fmt: skip
    assert {name: getattr(released, name) for name in said} == said


def test_transposes_of_images_that_are_no_squares_are_refused_before_anything_starts():
    data = phantom_xray.load(None)
    part = dataclasses.replace(data.train, images=data.train.images[:, :, :16])
    wide = dataclasses.replace(data, train=part)
    config = fields.build(
        TASK.config, {**TASK.presets["demo"], "augment": "flips-transposes", "grid": 4}
    )
    with pytest.raises(ConfigError, match="augment must be none, flips or traditional for images"):
        TASK.check(config, wide)
