"""The presets, the published values, and what is refused."""

import dataclasses
import subprocess
import sys
import typing

import pytest

from imaging_core.fields import ConfigError, build, sources
from selection_core.config import PRESETS, SelectionConfig
from selection_core.controllers import CONTROLLERS
from selection_core.objectives import VALUE_TARGETS
from selection_core.policy_reading import FINAL_RULES, READOUTS

PUBLISHED = {
    "method": "controller",
    "keep_share": 0.5,
    "classifier": "resnet34",
    "pool_per_class": 1024,
    "batches": 8,
    "controller": "transformer",
    "controller_layers": 2,
    "controller_heads": 2,
    "positions": "on",
    "candidate_order": "sorted",
    "policy_gradient": "ppo",
    "clip": 0.2,
    "ema_alpha": 0.8,
    "learning_rate": 2.5e-4,
    "attention_learning_rate": 1e-4,
    "reward_model": "classifier",
    "reward_classifier": "same",
    "reward_statistic": "max",
    "reward_metric": "accuracy",
    "value_baseline": "on",
}


def test_paper_preset_holds_the_published_values_and_marks_only_them():
    config = build(SelectionConfig, PRESETS["paper"])
    assert {name: getattr(config, name) for name in PUBLISHED} == PUBLISHED
    marked = {name for name, (source, _) in sources(SelectionConfig).items() if source == "paper"}
    assert marked == set(PUBLISHED)


def test_every_field_says_where_its_default_comes_from():
    assert set(sources(SelectionConfig)) == {f.name for f in dataclasses.fields(SelectionConfig)}


@pytest.mark.parametrize(
    ("field", "registry"),
    [
        ("controller", CONTROLLERS),
        ("final_selection", FINAL_RULES),
        ("policy_readout", READOUTS),
        ("value_target", VALUE_TARGETS),
    ],
)
def test_every_level_has_its_builder_and_no_builder_is_without_a_level(field, registry):
    levels = typing.get_type_hints(SelectionConfig)[field]
    assert set(typing.get_args(levels)) == set(registry)


def test_presets_are_valid():
    for preset in PRESETS.values():
        build(SelectionConfig, preset)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"controller": "transfomer"}, r'got "transfomer"; did you mean "transformer"\?'),
        ({"pool_per_class": 0}, r"pool_per_class must be at least 1 with pool=natural, got 0; 0 m"),
        (
            {"keep_share": 1.5},
            r"most 1 with keep_share_of=pool, got 1.5; try keep_share_of=real",
        ),
        ({"reward_steps": 20}, r"reward_epochs must be at most reward_steps \(20\), .*got 30"),
        ({"classifier_patience": 3}, r"patience must be 0 with classifier_steps above 0.*got 3"),
        ({"episodes": 3, "sampling": "antithetic"}, r"episodes must be even .* got 3; try .*=4"),
        ({"pool": "real"}, r"k_shot must be above 0 with pool=real.*got 0; try k_shot=16"),
        ({"controller_width": 6}, r"multiple of 2 × controller_heads \(4\), got 6"),
        ({"generator_steps": 2, "generator_snapshots": 3}, r"at most generator_steps \(2\), got 3"),
        ({"clip": 1.5}, r"clip: .*less than 1, got 1.5"),
    ],
)
def test_refusals_give_rule_value_and_remedy(values, message):
    with pytest.raises(ConfigError, match=message):
        build(SelectionConfig, values)


def test_task_and_config_import_no_torch():
    code = "import sys, selection_core.task; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
