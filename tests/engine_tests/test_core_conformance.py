"""The toy core and both real ones pass the contract of cores."""

import dataclasses
from typing import ClassVar

import pytest
import selection_cells
import toy_core.task
from conformance.cores import CoreContract

import apga_core.task
import selection_core.task
from imaging_core.datasets import load, phantom_xray


class TestToyCore(CoreContract):
    task = toy_core.task.TASK
    moved: ClassVar = {"ridge": 100.0}

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls):
        return load("ihc-colon")


class TestSelectionCore(CoreContract):
    task = selection_core.task.TASK
    fields = selection_cells.TINY

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls):
        return selection_cells.make_data().check()


class TestApgaCore(CoreContract):
    task = apga_core.task.TASK
    fields: ClassVar = {
        **apga_core.task.TASK.presets["demo"],
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
    moved: ClassVar = {"method": "cutout"}

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls):
        few = dataclasses.replace(phantom_xray.VARIANTS["fracture"], patients=24)
        return phantom_xray.generate(few, name="tiny", seed=1).check()
