"""Planning: keys that never change, and every cell of the plan accounted for."""

import importlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import toy_study
from toy_core.task import TASK

from imaging_core.fields import as_dict, build
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


STUDIES = (
    "ablation_controller",
    "apga_ambiguities",
    "apga_methods",
    "apga_regularisation",
    "hip_fracture",
    "kshot",
    "selection_ambiguities",
    "selection_methods",
)


def plan_of(study, results, *settings, seeds=(0, 3), preset="demo") -> Plan:
    request = Request(settings=settings, preset=preset)
    study, shared = apply(study, request)
    arms = expand(study, shared, study.data)
    return plan_arms(
        study, request, seeds, arms, {arm.data: DATA for arm in arms},
        results=str(results), retry_failed=False,
    )  # fmt: skip


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
