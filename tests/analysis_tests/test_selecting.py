"""Which cells a table's entry aggregates: by levels, found once for each set of factors."""

import numpy as np
import pandas as pd
import pytest

from analysis.aggregate import has, select

rng = np.random.default_rng(0)
CELLS = pd.DataFrame(
    {
        "factor.a": rng.choice(["1", "2", None], 60),
        "factor.b": rng.choice(["x", "y", "z"], 60),
        "metric.m": rng.normal(size=60),
    }
)


@pytest.mark.parametrize(
    "levels", [{}, {"a": "1"}, {"a": 2, "b": "z"}, {"b": "z", "a": "2"}, {"a": "3"}, {"b": "None"}]
)
def test_the_rows_are_those_that_have_every_level_in_their_order(levels):
    expected = np.ones(60, dtype=bool)
    for name, level in levels.items():
        expected &= (CELLS[f"factor.{name}"] == str(level)).to_numpy(dtype=bool, na_value=False)
    pd.testing.assert_frame_equal(select(CELLS, levels), CELLS[expected])
    assert has(CELLS, levels) == expected.any()


def test_another_frame_is_another_answer_and_a_factor_that_is_not_there_is_named():
    other = CELLS.iloc[:7].copy()
    assert len(select(other, {"b": "x"})) == (other["factor.b"] == "x").sum()
    with pytest.raises(KeyError, match="this study has no factor 'c'"):
        select(CELLS, {"c": "1"})
