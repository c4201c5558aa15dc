"""The race: what it wants follows from the values alone, and it spends fewer cells."""

import numpy as np
import pytest

from sweeps.search.decide import Rule
from sweeps.search.race import answers, expected_cells, race, wanted

LOOKS = (12, 16, 24)


def rule(arms: int, looks: tuple[int, ...] = LOOKS) -> Rule:
    return Rule(looks=looks, margin=0.01, error=0.05, family=arms)


def cells(rng: np.random.Generator, means: list[float], seeds: int = 24) -> np.ndarray:
    """(1 + arms, seeds): a baseline and arms that are `means` better, std .004 each."""
    return rng.normal(0, 0.004, size=(1 + len(means), seeds)) + np.array([0, *means])[:, None]


def test_decided_arms_stop_and_open_ones_take_the_baseline_along() -> None:
    rng = np.random.default_rng(0)
    values = cells(rng, [0.03, 0.0, 0.0])
    values[3] += rng.normal(0.01, 0.03, size=24)  # what nobody can decide with so few
    settled = np.zeros(values.shape, dtype=bool)
    first = wanted(values * np.nan, settled, [1, 2, 3], [0, 0, 0], rule(3))
    assert first.sum(axis=1).tolist() == [12, 12, 12, 12]
    settled[:, :12] = True
    second = wanted(values, settled, [1, 2, 3], [0, 0, 0], rule(3))
    assert second.sum(axis=1).tolist() == [16, 12, 12, 16]
    found, spent = race(values, [1, 2, 3], [0, 0, 0], rule(3))
    assert [one.answer for one in found[:2]] == ["better", "equivalent"]
    assert spent == 12 + 12 + 2 * found[2].seeds


@pytest.mark.parametrize("stop", [1, 17, 61])
def test_a_race_that_was_killed_anywhere_ends_with_the_same_answers(stop: int) -> None:
    rng = np.random.default_rng(1)
    values = cells(rng, [0.03, -0.01, 0.005, 0.0])
    values[2, 3] = np.nan  # a cell that fails
    rows, reference = [1, 2, 3, 4], [0, 0, 0, 0]
    whole, spent = race(values, rows, reference, rule(4))
    settled = np.zeros(values.shape, dtype=bool)
    order = rng.permutation(values.size)  # workers finish in any order
    # Killed after `stop` cells, of which it forgets all but what is settled, and resumed.
    for most in (stop, values.size):
        for _ in range(most):
            seen = np.where(settled, values, np.nan)
            open_cells = wanted(seen, settled, rows, reference, rule(4)) & ~settled
            left = [i for i in order if open_cells.flat[i]]
            if not left:
                break
            settled.flat[left[0]] = True
        order = order[::-1]  # its workers finish in another order
    seen = np.where(settled, values, np.nan)
    assert settled.sum() == spent
    assert answers(seen, settled, rows, reference, rule(4)) == whole


@pytest.mark.slow
def test_a_race_spends_some_60_percent_of_a_fixed_design_of_equal_power() -> None:
    # tests/benchmarks/decisions.py has more cases: .42 to .60, and .72 where most stay open.
    rng = np.random.default_rng(2)
    effects = [0.0, 0.005, 0.01, 0.02, 0.03]
    looks = (12, 16, 24, 32, 40)
    spent, power = 0, np.zeros(5)
    studies = 40
    draws = [rng.normal(0, 0.01 / np.sqrt(2), size=(6, 40)) for _ in range(studies)]
    for draw in draws:
        values = draw + np.array([0, *effects])[:, None]
        found, cost = race(values, range(1, 6), [0] * 5, rule(5, looks))
        spent += cost
        power += [one.answer != "undecided" for one in found]
    fixed = np.zeros(5)
    for draw in draws:
        values = draw + np.array([0, *effects])[:, None]
        found, _ = race(values, range(1, 6), [0] * 5, rule(5, (38,)))
        fixed += [one.answer != "undecided" for one in found]
    assert abs(power.sum() - fixed.sum()) <= 0.05 * 5 * studies
    assert spent / studies <= 0.63 * 6 * 38


def test_the_expected_cells_lie_between_the_fewest_and_the_most() -> None:
    expected = expected_cells(4, 16, rule(3, (12, 16)))
    assert 48 < expected < 64
    assert expected == expected_cells(4, 16, rule(3, (12, 16)))
