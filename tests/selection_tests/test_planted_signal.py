"""Does the advantage follow what a selection is worth, for every controller and at every noise?

The planted reward's worth is exact (`selection_core.planted_signal`), so the correlation is with
the truth and not with a noisy copy. One run's varies by some hundredths, hence means over seeds.
"""

import functools

import numpy as np
import pytest

from selection_core.config import PRESETS
from selection_core.planted_signal import CONTROLLERS, measure

SEEDS = range(3)
# The demo's controller and steps; units of a hundredth, as where accuracies hardly differ.
SMALL = {**PRESETS["demo"], "iterations": 20}
UNITS = 0.01
ARMS = {
    "normalised": {**SMALL, "value_baseline": "on", "value_target": "normalised"},
    "raw": {**SMALL, "value_baseline": "on", "value_target": "raw"},
    "off": {**SMALL, "value_baseline": "off"},
}


# One controller holds each promise in the fast part.
EACH = [
    pytest.param(name, marks=() if name == "transformer" else pytest.mark.slow)
    for name in CONTROLLERS
]


@functools.cache
def _correlation(arm, controller, *, noise=0.02, units=UNITS, sign=1):
    rows = measure(
        {arm: ARMS[arm]},
        SEEDS,
        controllers=[controller],
        noises=[noise * units],
        slope=0.5 * units,
        sign=sign,
        candidates=128,
        features=16,
    )
    return float(np.mean([row["correlation"] for row in rows]))


# What noise alone leaves: the signal's deviation at p = 1/2 of 128 candidates is 0.5 · 0.5 / √128.
def _bound(noise):
    signal = 0.25 / 128**0.5
    return signal / (signal**2 + noise**2) ** 0.5


@pytest.mark.parametrize("controller", EACH)
@pytest.mark.parametrize(
    "noise", [0.02, *(pytest.param(n, marks=pytest.mark.slow) for n in (0.0, 0.04))]
)
def test_the_advantage_carries_the_signal_at_every_noise(controller, noise):
    assert _correlation("normalised", controller, noise=noise) > 0.75 * _bound(noise)


@pytest.mark.parametrize("controller", EACH)
def test_a_reward_of_the_wrong_sign_fails_what_the_right_one_passes(controller):
    assert _correlation("normalised", controller, sign=-1) < -0.75 * _bound(0.02)


@pytest.mark.long
@pytest.mark.parametrize("controller", EACH)
def test_a_value_head_on_the_raw_signal_swamps_it(controller):
    """What the normalised target cures: at these units V moves further than the reward does."""
    assert _correlation("raw", controller) < _correlation("normalised", controller) - 0.15


@pytest.mark.slow
@pytest.mark.parametrize("controller", EACH)
def test_the_units_of_the_reward_do_not_matter(controller):
    small, large = (_correlation("normalised", controller, units=u) for u in (0.01, 1.0))
    assert small == pytest.approx(large, abs=0.02)


@pytest.mark.long
@pytest.mark.parametrize("controller", EACH)
def test_of_a_constant_state_a_value_head_is_worth_nothing(controller):
    """The pool is the same at every iteration, so V can only know what the average knows."""
    assert _correlation("normalised", controller) < _correlation("off", controller) + 0.05


@pytest.mark.slow
def test_the_paper_preset_keeps_its_policy_open_while_it_learns():
    """At full width and 100 rewards; beside it the settings of before, which settle from 40 on."""
    before = {"episodes": 1, "sampling": "independent", "ppo_epochs": 4, "entropy_weight": 0.01}
    arms = {"now": {"iterations": 25}, "before": {**before, "iterations": 40}}
    now, old = measure(arms, [0], controllers=["transformer"])
    print({r["arm"]: (r["entropy"][-1], r["auc"][-1]) for r in (now, old)})
    assert now["entropy"][-1] > 0.55
    assert now["auc"][-1] > 0.7
    assert old["entropy"][-1] < now["entropy"][-1] - 0.1
