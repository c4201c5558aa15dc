"""The contract of `imaging_core.task` as tests: a core that passes can be planned, run and kept."""

import dataclasses
import importlib
import json
import math
import random
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from imaging_core.datasets.base import ImageDataset
from imaging_core.fields import ConfigError, as_dict, build, field_names
from imaging_core.task import Arrays, Metric, Outcome, Stage, Task, load_function, no_progress
from sweeps.engine.keys import StageKeys

MOST_CURVE_STEPS = 100_000


def stages_of(task: Task, config: Any, data: ImageDataset, seed: int) -> dict[str, Arrays]:
    """Every stage of a cell, computed, each once; the arrays are as the engine's store has them."""
    done: dict[int, Arrays] = {}

    def computed(stage: Stage) -> Arrays:
        if id(stage) not in done:
            needs = {name: computed(need) for name, need in stage.needs.items()}
            arrays = load_function(stage.compute)(
                stage.inputs, data, needs, device="cpu", progress=no_progress
            )
            # What comes back from the store has no order of its own.
            done[id(stage)] = load(save({k: np.asarray(v, order="C") for k, v in arrays.items()}))
        return done[id(stage)]

    return {name: computed(stage) for name, stage in task.stages(config, seed).items()}


def cell(
    task: Task,
    config: Any,
    data: ImageDataset,
    seed: int = 0,
    progress: Callable[..., None] = no_progress,
    stages: Mapping[str, Arrays] | None = None,
) -> Outcome:
    """One cell, its stages computed before it unless they are given."""
    ready = stages_of(task, config, data, seed) if stages is None else stages
    return load_function(task.train)(config, data, seed, ready, device="cpu", progress=progress)


def as_bytes(outcome: Outcome) -> dict[str, bytes]:
    """Everything that a cell says, by name."""
    found = {f"metric {name}": repr(value).encode() for name, value in outcome.metrics.items()}
    found |= {f"curve {name}": repr(tuple(v)).encode() for name, v in outcome.curves.items()}
    found |= {f"artifact {name}": a.tobytes() for name, a in outcome.artifacts.items()}
    for part in outcome.predictions:
        found[f"predictions {part.split}"] = part.probabilities.tobytes()
    return found


class CoreContract:
    """Inherit as `Test...`; set `task` and `fields`, and override the fixture `data`."""

    task: ClassVar[Task]
    fields: ClassVar[Mapping[str, Any]] = {}
    """Fields on top of the defaults that make a cell take well under a second."""
    moved: ClassVar[Mapping[str, Any]] = {}
    """Fields on top of those that make another cell; empty: the seed alone does."""

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls) -> ImageDataset:
        raise NotImplementedError("the data that the cells of this core are tried on")

    @pytest.fixture(scope="class")
    @classmethod
    def config(cls, data: ImageDataset) -> Any:
        config = build(cls.task.config, cls.fields)
        cls.task.check(config, data)
        return config

    @pytest.fixture(scope="class")
    @classmethod
    def stages(cls, config: Any, data: ImageDataset) -> dict[str, Arrays]:
        return stages_of(cls.task, config, data, 0)

    @pytest.fixture(scope="class")
    @classmethod
    def outcome(cls, config: Any, data: ImageDataset, stages: dict[str, Arrays]) -> Outcome:
        return cell(cls.task, config, data, stages=stages)

    # What is declared

    def test_the_task_is_found_by_the_cores_name(self):
        assert importlib.import_module(f"{self.task.name}.task").TASK is self.task
        assert self.task.version >= 1

    def test_presets_are_fields_of_the_configuration(self):
        assert self.task.presets
        for preset in self.task.presets.values():
            assert set(preset) <= set(field_names(self.task.config))
            build(self.task.config, preset)

    def test_a_configuration_is_frozen_refuses_the_unknown_and_is_json(self, config):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field_names(type(config))[0], None)
        with pytest.raises(ConfigError, match="no_such_field"):
            build(self.task.config, {"no_such_field": 1})
        written = json.loads(json.dumps(as_dict(config), allow_nan=False))
        assert build(self.task.config, written) == config

    def test_metrics_are_declared_once_with_a_range_and_a_meaning(self):
        names = [metric.name for metric in self.task.metrics]
        assert len(set(names)) == len(names)
        for metric in self.task.metrics:
            assert metric.low < metric.high
            assert metric.label
            assert metric.meaning

    # What is planned

    def test_stages_are_recipes_whose_functions_are_there(self, config):
        for stage in self._all_stages(config, 0):
            assert callable(load_function(stage.compute))
            json.dumps(dict(stage.inputs), allow_nan=False)

    def test_stages_depend_on_nothing_but_configuration_and_seed(self, config):
        assert self.task.stages(config, 3) == self.task.stages(config, 3)

    def test_the_seed_stands_in_a_stage_as_it_is_and_so_do_fields_that_are_handed_on(self, config):
        """`StageKeys` compares what it fills in with what the core derives."""
        assert self.task.passed_on <= set(field_names(self.task.config))
        keys = StageKeys(self.task, "data")
        for seed in (0, 5):
            keys(config, seed)
        if self.moved:
            keys(build(self.task.config, {**self.fields, **self.moved}), 5)

    def test_what_the_data_forces_is_no_field_that_was_typed(self, config, data):
        if self.task.fit is None:
            return
        few = self._with_few_images(data)
        found = self.task.fit(config, few, ())
        assert set(found) <= set(field_names(self.task.config))
        fitted = build(self.task.config, {**as_dict(config), **found})
        assert self.task.fit(fitted, few, ()) == {}
        assert not set(self.task.fit(config, few, tuple(found))) & set(found)

    # What a cell is

    def test_a_cell_says_numbers_that_are_declared_and_in_range(self, outcome):
        known: dict[str, Metric] = {metric.name: metric for metric in self.task.metrics}
        assert outcome.metrics
        for name, value in outcome.metrics.items():
            assert isinstance(value, (int, float)), name
            assert math.isfinite(value), name
            assert known[name].low <= value <= known[name].high, name
        for name, curve in outcome.curves.items():
            assert 0 < len(curve) < MOST_CURVE_STEPS, name
            assert all(isinstance(value, (int, float)) for value in curve), name
        for name, array in outcome.artifacts.items():
            assert isinstance(array, np.ndarray), name
            assert array.dtype != object, name

    def test_predictions_are_of_the_datas_own_rows(self, outcome, data):
        assert {part.split for part in outcome.predictions} >= {"test"}
        for part in outcome.predictions:
            split = getattr(data, part.split)
            row_of = {identity: row for row, identity in enumerate(split.ids.tolist())}
            rows = np.array([row_of[identity] for identity in part.ids.tolist()])
            draws, rest = divmod(len(rows), len(split))
            assert draws >= 1, "an example lacks"
            assert rest == 0
            assert np.array_equal(np.bincount(rows), np.full(len(split), draws))
            assert np.array_equal(part.groups, split.groups[rows])
            assert np.array_equal(part.labels, split.labels[rows])
            assert part.probabilities.shape == (len(rows), len(data.classes))
            assert part.probabilities.dtype == np.float32
            assert np.allclose(part.probabilities.sum(axis=1), 1, atol=1e-5)
            assert float(part.probabilities.min()) >= 0

    def test_a_cell_is_a_pure_function(self, config, data, outcome):
        """Stages and cell again from nothing, with other global generators, change no byte; and
        leave them and the data as they were."""
        random.seed(1)
        np.random.seed(1)  # noqa: NPY002 (the global generator is what must not matter)
        torch.manual_seed(1)
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        again = cell(self.task, config, data)
        assert as_bytes(again) == as_bytes(outcome)
        assert random.getstate() == python
        assert np.array_equal(np.random.get_state()[1], numpy[1])  # noqa: NPY002
        fresh = dataclasses.replace(data)  # its fingerprint is taken anew
        assert fresh.fingerprint == data.fingerprint

    def test_another_seed_or_setting_is_another_cell(self, data, outcome):
        config = build(self.task.config, {**self.fields, **self.moved})
        other = cell(self.task, config, data, seed=0 if self.moved else 1)
        assert as_bytes(other) != as_bytes(outcome)

    def test_test_labels_change_no_prediction(self, config, data, outcome):
        """Test is read once, at the end. (Each core tests that validation labels do change it.)"""
        turned = dataclasses.replace(data.test, labels=np.roll(data.test.labels, 1))
        blind = cell(self.task, config, dataclasses.replace(data, test=turned))
        mine = {part.split: part.probabilities for part in outcome.predictions}
        for part in blind.predictions:
            assert np.array_equal(part.probabilities, mine[part.split]), part.split
        if "val_best" in outcome.metrics:
            assert blind.metrics["val_best"] == outcome.metrics["val_best"]

    def test_progress_goes_from_0_to_1_and_may_stop_the_work(self, config, data, stages):
        told, heard = [], {}

        def listen(done: float, note: str = "", curves: Mapping | None = None) -> None:
            told.append(done)
            for name, values in (curves or {}).items():
                assert tuple(values)[: len(heard.get(name, ()))] == heard.get(name, ())
                heard[name] = tuple(values)

        outcome = cell(self.task, config, data, progress=listen, stages=stages)
        assert all(0 <= done <= 1 for done in told)
        assert told == sorted(told)
        for name in heard.keys() & outcome.curves.keys():  # what was seen live is what is stored
            assert heard[name] == tuple(outcome.curves[name])

        class Enough(Exception):
            pass

        def stop(done: float, note: str = "", curves: Mapping | None = None) -> None:
            raise Enough

        if told:
            with pytest.raises(Enough):
                cell(self.task, config, data, progress=stop, stages=stages)

    def _all_stages(self, config: Any, seed: int) -> list[Stage]:
        found: list[Stage] = []

        def walk(stage: Stage) -> None:
            found.append(stage)
            for need in stage.needs.values():
                walk(need)

        for stage in self.task.stages(config, seed).values():
            walk(stage)
        return found

    @staticmethod
    def _with_few_images(data: ImageDataset) -> ImageDataset:
        """Two images of each class in each part."""

        def few(part):
            rows = [np.flatnonzero(part.labels == label)[:2] for label in part.class_sizes]
            return part.take(np.sort(np.concatenate(rows)))

        parts = {name: few(getattr(data, name)) for name in ("train", "validation", "test")}
        return dataclasses.replace(data, **parts)
