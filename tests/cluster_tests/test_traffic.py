"""What travels: a key knows what it names, wherever it has been."""

import pickle

import pytest

from cluster.traffic import CELL, Key


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        ("3f0c9a", None),
        ("base-3f0c9a", "base"),
        ("toy-pixels-3f0c9a", "toy-pixels"),
    ],
)
def test_a_key_says_whether_it_names_a_stage_and_which(text, stage):
    for key in (Key(text), pickle.loads(pickle.dumps(Key(text)))):
        assert key == text
        assert key.stage == stage
        assert key.kind == (stage or CELL)
