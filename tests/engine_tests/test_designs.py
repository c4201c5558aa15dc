"""Designs: which combinations are arms, and what is refused."""

from dataclasses import replace

import pytest

from imaging_core.fields import ConfigError
from sweeps import apga_ambiguities, selection_ambiguities
from sweeps.engine.designs import designed
from sweeps.engine.study import Request, apply, expand

STUDY = replace(apga_ambiguities.STUDY, screening={})


def arms_of(study, design, *settings):
    asked, shared = apply(study, Request(settings=settings))
    typed = [text.partition("=")[0] for text in settings]
    asked = designed(asked, design, typed)
    return asked, expand(asked, shared, study.data)


def test_without_a_design_a_study_is_its_own():
    assert designed(STUDY, None) is STUDY


def test_one_at_a_time_is_the_baseline_and_every_single_move():
    study, arms = arms_of(
        STUDY, "one-at-a-time", "samples=4", "sampling=bernoulli-grid", "k_shot=8,16",
        "reward_baseline=leave-one-out,ema-before",
    )  # fmt: skip
    moves = [
        {n: level for n, level in arm.levels.items() if level != study.baseline[n]} for arm in arms
    ]
    methods = {n: v for n, v in study.factors.items() if n != "k_shot"}
    singles = sum(len(levels) - 1 for levels in methods.values())
    assert len(arms) == 2 * (1 + singles)  # on both tasks
    assert all(len(set(move) - {"k_shot"}) <= 1 for move in moves)


def test_full_is_every_combination():
    levels = {"target": ("taken-action", "as-printed"), "reward_images": ("positives", "all")}
    baseline = {name: first for name, (first, _) in levels.items()}
    _, arms = arms_of(replace(STUDY, factors=levels, baseline=baseline), "full")
    assert len(arms) == 4


@pytest.mark.parametrize(
    ("module", "arms", "factors"), [(apga_ambiguities, 32, 10), (selection_ambiguities, 32, 12)]
)
def test_the_ambiguities_can_be_screened(module, arms, factors):
    study, found = arms_of(module.STUDY, "screening")
    assert len(found) == arms
    varied = [n for n, levels in study.factors.items() if len(levels) == 2]
    assert len(varied) == factors
    for name in varied:
        assert sum(arm.levels[name] == study.baseline[name] for arm in found) == arms // 2
    assert any(dict(study.baseline) == dict(arm.levels) for arm in found)
    # Applied again, as a run that computes damaged cells anew does, it is the same design.
    assert designed(study, "screening").only == study.only


def test_what_is_typed_wins_over_what_the_study_screens():
    study, _ = arms_of(apga_ambiguities.STUDY, "screening", "erase_value=zero,mean")
    assert study.factors["erase_value"] == ("zero", "mean")


@pytest.mark.parametrize(
    ("study", "design", "said"),
    [
        (STUDY, "half", '--design must be one of full, one-at-a-time, screening, got "half"'),
        (STUDY, "screening", "--design screening takes two levels of a factor at most, .*"
         "reward_baseline has leave-one-out, .*; choose, for example --set reward_baseline="),
        (replace(STUDY, factors={"target": ("taken-action", "as-printed")}), "screening",
         "--design screening needs from 2 to 16 factors of two levels, apga_ambiguities has 1"),
    ],
)  # fmt: skip
def test_what_is_no_design_is_refused(study, design, said):
    with pytest.raises(ConfigError, match=said):
        designed(study, design)


def test_bundles_cannot_be_combined():
    bundled = replace(STUDY, bundles={"setting=a": {}})
    with pytest.raises(ConfigError, match="needs factors that can be combined"):
        designed(bundled, "full")
