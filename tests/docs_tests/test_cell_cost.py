"""What a cell costs: the counts behind the README's table, and the measurement in the small."""

import cell_cost
import pytest
from cell_cost import Cost, Work

from apga_core.config import PRESETS, APGAConfig
from imaging_core.fields import build
from selection_core.config import SelectionConfig


def test_steps_of_apga_are_those_that_its_configuration_makes():
    config = build(APGAConfig, PRESETS["paper"] | {"weights": "none", "policy_weights": "none"})
    # 720 images are 29 batches of 25; 30 epochs and 20.
    assert cell_cost.apga_steps(config, 720) == (30 * 29, 20 * 29, 50)
    # 100 images are 4 batches: both phases are raised to 200 steps.
    assert cell_cost.apga_steps(config, 100) == (200, 200, 100)


def test_steps_of_a_controller_are_its_rewards_base_and_final_classifier():
    config = build(SelectionConfig, {})
    steps, looks = cell_cost.selection_steps(config)
    assert steps == 200 * 1980 + 2 * 3300
    assert looks == 200 * 5 + 50


def test_a_cost_is_steps_times_seconds_and_operations():
    cost = cell_cost.total(
        "x", [(Work(seconds=36.0, tflop=6.0), 100), (Work(seconds=0, tflop=0), 9)]
    )
    assert cost == Cost(what="x", cpu_h=1.0, tflop=600.0)
    assert cost.gpu_min == pytest.approx((600 / 40 / 60, 600 / 20 / 60))
    assert cost.line == "| x | 1 h | 1 min to 1 min |"
    assert Cost(what="y", cpu_h=90.0, tflop=240_000.0).line == "| y | 90 h | 1.7 h to 3.3 h |"
    assert Cost(what="z", cpu_h=0.5, tflop=48_000).line == "| z | 30 min | 20 min to 40 min |"


@pytest.mark.long
def test_measured_in_the_small_every_kind_of_work_takes_time_and_operations():
    demo = PRESETS["demo"] | {"batch_size": 4}
    found = [
        cell_cost.apga_step(demo, 32, runs=1),
        cell_cost.training("tiny-resnet", channels=1, batch=4, side=32, runs=1),
        cell_cost.showing("tiny-resnet", channels=1, side=32, runs=1),
    ]
    assert all(work.seconds > 0 and work.tflop > 0 for work in found)
    # A training step is a forward pass and a backward one of twice its operations (but the first
    # layer's input has no gradient), of four images.
    assert 8 < found[1].tflop / found[2].tflop < 12
