"""The APGA studies declare what they say: levels the core accepts, one decision moved at a time."""

import importlib

import pytest
from studies import studies_of

from apga_core.task import TASK
from imaging_core import fields
from sweeps import apga_ambiguities
from sweeps.engine.study import Request, apply, expand

STUDIES = studies_of("apga_core")


def arms(name):
    study = importlib.import_module(f"sweeps.{name}").STUDY
    applied, shared = apply(study, Request())
    return applied, expand(applied, shared, applied.data)


@pytest.mark.parametrize("name", STUDIES)
def test_every_arm_is_accepted_and_the_baseline_is_one_of_them(name):
    study, expanded = arms(name)
    labels = [arm.label for arm in expanded]
    assert len(set(labels)) == len(labels)
    assert dict(study.baseline) in [dict(arm.levels) for arm in expanded]


def test_ambiguities_start_from_the_demo_preset():
    demo = fields.as_dict(fields.build(TASK.config, TASK.presets["demo"]))
    assert {name: demo[name] for name in apga_ambiguities.DEFAULT} == apga_ambiguities.DEFAULT


def test_ambiguities_are_leave_one_out():
    _, expanded = arms("apga_ambiguities")
    assert len(expanded) == len(apga_ambiguities.MOVES) + 1
    # A single action per image has no others to leave out, so it moves together with the baseline.
    together = {"samples", "reward_baseline", "sampling", "target"}
    for arm in expanded:
        moved = {n for n, level in arm.levels.items() if level != apga_ambiguities.DEFAULT[n]}
        assert len(moved) <= 1 or moved <= together
    reached = {name for move in apga_ambiguities.MOVES for name in move}
    assert reached == set(apga_ambiguities.DEFAULT)


@pytest.mark.parametrize("name", STUDIES)
def test_the_paper_preset_can_run_it(name):
    study = importlib.import_module(f"sweeps.{name}").STUDY
    applied, shared = apply(study, Request(preset="paper"))
    assert expand(applied, shared, applied.data)
