"""Planning: keys that never change, and every cell of the plan accounted for."""

import importlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import toy_study
from studies import studies_of
from toy_core.task import TASK

from imaging_core.fields import Builder, ConfigError, as_dict, build, levels_of
from imaging_core.task import Stage
from sweeps.engine.keys import CellKeys, StageKeys
from sweeps.engine.plan import Plan, plan_arms, stage_store
from sweeps.engine.stages import flatten
from sweeps.engine.study import Request, apply, expand
from sweeps.ledger.schema import cell_key

DATA = "f00d"
PIXELS = "toy-pixels-1c03364327dbcddcadf45210"
CELLS = {0: "88e2973e36f2892db2c5a17dfc1c95ae", 7: "185541508ab323a1babca6f4ff81c32e"}
ORDERS = {0: "toy-order-d38993526696dfdfa69e87ab", 7: "toy-order-a2aeec6b88b4cb6bf1cb9266"}


@dataclass(frozen=True)
class SimpleConfig:
    x: Any


def test_keys_are_those_of_the_ledgers_there_are():
    config = build(TASK.config, {"ridge": 0.1, "pooling": 16})
    for seed, key in CELLS.items():
        assert cell_key(TASK.name, TASK.version, as_dict(config), seed, DATA) == key
        found = flatten(TASK, TASK.stages(config, seed), DATA)
        assert {k: needs for k, (_, needs) in found.items()} == {
            PIXELS: (),
            ORDERS[seed]: (PIXELS,),
        }


STUDIES = studies_of("")


def plan_of(study, results, *settings, seeds=(0, 3), preset="demo") -> Plan:
    request = Request(settings=settings, preset=preset)
    study, shared = apply(study, request)
    arms = expand(study, shared, study.data)
    return plan_arms(
        study, request, seeds, arms, {arm.data: DATA for arm in arms},
        results=str(results), retry_failed=False,
    )  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("preset", ["demo", "paper"])
@pytest.mark.parametrize("name", STUDIES)
def test_keys_of_many_are_the_keys_of_each(name, preset, tmp_path):
    study = importlib.import_module(f"sweeps.{name}").STUDY
    plan, task = plan_of(study, tmp_path, preset=preset), study.task
    expected: dict[str, tuple[str, ...]] = {}
    for cell in plan.cells:
        config = as_dict(cell.arm.config)
        assert cell.key == cell_key(task.name, task.version, config, cell.seed, DATA)
    for cell in plan.todo:
        stages = flatten(task, task.stages(cell.arm.config, cell.seed), DATA)
        assert plan.needs(cell) == tuple(stages)
        expected |= {key: needs for key, (_, needs) in stages.items()}
    assert {work.key: work.needs for work in plan.stages} == expected


def test_values_that_are_equal_but_not_the_same_have_keys_of_their_own():
    keys = CellKeys(TASK)
    config = build(TASK.config, {})
    values = (1.0, 1, True, 1.0, 0.0, -0.0)
    configs = [SimpleConfig(value) for value in values]
    assert [keys(c, [0], DATA)[0] for c in configs] == [
        cell_key(TASK.name, TASK.version, {"x": value}, 0, DATA) for value in values
    ]
    assert keys(config, [0, 7], DATA) == [
        cell_key(TASK.name, TASK.version, as_dict(config), seed, DATA) for seed in (0, 7)
    ]


def test_a_core_that_hides_the_seed_in_a_stage_is_refused(tmp_path):
    def stages(config, seed):
        return {"order": Stage(name="order", inputs={"fold": seed % 5}, compute="")}

    keys = StageKeys(replace(TASK, stages=stages), DATA)
    with pytest.raises(ValueError, match="may hold the seed among its inputs as it is"):
        keys(build(TASK.config, {}), 3)


def test_a_core_that_chooses_by_a_field_that_it_says_it_hands_on_is_refused():
    def stages(config, seed):
        return {"order": Stage(name="order", inputs={"big": config.ridge > 1}, compute="")}

    keys = StageKeys(replace(TASK, stages=stages, passed_on=frozenset({"ridge"})), DATA)
    keys(build(TASK.config, {"ridge": 0.5}), 3)
    with pytest.raises(ValueError, match="may hold the seed or ridge among its inputs as it is"):
        keys(build(TASK.config, {"ridge": 2.0}), 3)


VARIANTS = [
    ("selection_core", {"pool": pool, "k_shot": 16, "pool_quality": quality, "method": method})
    for pool, quality, methods in (
        ("natural", "off", ("controller", "baseline")),
        ("mixed", "on", ("logistic_policy",)),
        ("collapsed", "on", ("use_all",)),
    )
    for method in methods
] + [("apga_core", {"method": method}) for method in ("apga", "baseline", "end2end")]


@pytest.mark.long
@pytest.mark.parametrize(("core", "fields"), VARIANTS)
def test_fields_that_a_core_hands_on_give_the_keys_that_it_derives(core, fields):
    task = importlib.import_module(f"{core}.task").TASK
    config = build(task.config, fields)
    keys = StageKeys(task, DATA)
    keys(config, 0)  # the template that the others are filled into
    tried = 0
    for name in sorted(task.passed_on):
        value = getattr(config, name)
        others = levels_of(task.config, name)
        if others is None:
            # 512 and 8 times as much pass every rule of numbers that fit together.
            others = ("x",) if isinstance(value, str) else (8 * value, value / 2, 1, 0.5, False)
        for other in others:
            try:
                changed = build(task.config, {**fields, name: other})
            except ConfigError:
                continue
            found = [template.key(5) for template in keys(changed, 5)]
            assert found == list(flatten(task, task.stages(changed, 5), DATA)), (name, other)
            tried += changed != config
    assert tried > len(task.passed_on) / 2


@pytest.mark.parametrize("name", STUDIES)
def test_arms_built_from_one_another_are_those_built_alone(name):
    study = importlib.import_module(f"sweeps.{name}").STUDY
    study, shared = apply(study, Request())
    make = Builder(study.task.config)
    for arm in expand(study, shared, study.data):
        assert make(as_dict(arm.config)) == build(study.task.config, as_dict(arm.config))


def test_a_refusal_is_the_same_whatever_was_built_before():
    core = importlib.import_module("selection_core.task").TASK.config
    fields = {"controller_width": 512, "learning_rate": 1e-3, "pool": "natural", "k_shot": "4"}
    bad = (
        {"controller_width": 513},
        {"learning_rate": -1.0},
        {"pool": "natrual"},
        {"pool": "duplicates", "k_shot": 0},
        {"kshot": 4},
    )
    make = Builder(core)
    for change in bad:
        assert make(fields) == build(core, fields)
        with pytest.raises(ConfigError) as alone:
            build(core, {**fields, **change})
        with pytest.raises(ConfigError) as after:
            make({**fields, **change})
        assert str(after.value) == str(alone.value)
    assert make({**fields, "k_shot": "8"}).k_shot == 8
    assert make(fields).k_shot == 4


@pytest.mark.parametrize("seeds", [(0, 1), tuple(range(40))])  # looked up one by one, and listed
def test_what_is_stored_is_not_planned_again(seeds, tmp_path):
    first = plan_of(toy_study.STUDY, tmp_path, seeds=seeds)
    assert len(first.stages) == 2 + 2 * len(seeds)
    stored = {first.stages[0].key, first.stages[-1].key}
    for key in stored:
        stage_store(str(tmp_path)).save(key, {"x": np.zeros(1)}, 0.0)
    plan = plan_of(toy_study.STUDY, tmp_path, seeds=seeds)
    assert {w.key for w in plan.stages} == {w.key for w in first.stages} - stored
    assert plan.reused == first.reused + 2
    assert not stored & {key for work in plan.stages for key in work.needs}
    for before, now in zip(first.todo, plan.todo, strict=True):
        assert plan.needs(now) == tuple(key for key in first.needs(before) if key not in stored)
