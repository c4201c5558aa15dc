"""What travels: a key knows what it names, a message is the same, wherever it has been."""

import json
import pickle

import pytest

from cluster.traffic import CELL, Failure, Key, Report
from sweeps.engine.recipe import Recipe


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


@pytest.mark.parametrize(
    "sent",
    [
        Report(wall_s=0.1 + 0.2, computed=True),
        Report(wall_s=3.0, seed=2**63 - 1, objective=0.1),
        Failure(error_type="ValueError", error="ε < 0\n", traceback="…", inherited=True),
        Recipe(
            stage="base-3f0c9a",
            key="3f0c9a",
            arm="ridge=1.0",
            levels={"ridge": "1.0"},
            config={"ridge": 1.0, "sizes": [1, 2], "name": None},
            seed=0,
            data="folder:/data",
            fingerprint="f",
            protocol="paper",
            study="toy",
            core="toy_core",
            results="s3://bucket/results",
            objective="val_best",
            token="t",
            keep=("weights",),
            git_commit="c",
            git_dirty=True,
        ),
    ],
    ids=["stage", "cell", "failure", "recipe"],
)
def test_a_message_is_the_same_after_its_way(sent):
    assert type(sent).from_json(sent.to_json()) == sent
    assert type(sent).from_json(json.loads(json.dumps(sent.to_json()))) == sent


def test_a_message_with_a_field_that_its_reader_does_not_know_is_refused():
    with pytest.raises(TypeError, match="lifetime"):
        Report.from_json({**Report().to_json(), "lifetime": 1})
