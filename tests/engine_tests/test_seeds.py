"""Which replicates `--seeds` and `--tuning-seeds` mean."""

import time

import pytest
import toy_study
from studies import here

from imaging_core.fields import ConfigError
from sweeps.engine.search import parse_tuning_seeds
from sweeps.engine.seeds import parse_seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        (None, (0, 1, 2)),
        ("2", (0, 1)),
        ("7,", (7,)),
        ("0,", (0,)),
        (" 7 ,", (7,)),
        ("20231105,", (20231105,)),
        ("7,3", (7, 3)),
        ("7,3,", (7, 3)),
    ],
)
def test_a_count_a_list_and_one_alone(text, seeds):
    assert parse_seeds(text, 3) == seeds


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("20231105", r'at most 10000, got 20231105; .* alone write "20231105,"'),
        (",", 'one seed \\("7,"\\), got ","'),
        ("7,,", "takes a count"),
        (",7", "takes a count"),
        ("", "takes a count"),
        ("9" * 5000, "takes a count"),
        ("-7,", "must not be negative, got -7"),
        ("1,2,1,", "lists 1 more than once"),
        (f"{2**63},", "must be at most 9223372036854775807"),
    ],
)
def test_what_nobody_means_is_refused(text, rule):
    with pytest.raises(ConfigError, match=rule):
        parse_seeds(text, 3)


def test_tuning_seeds_follow_the_same_rules_by_their_own_name():
    assert parse_tuning_seeds("2", 5) == (1000, 1001)
    assert parse_tuning_seeds("7,", 5) == (7,)
    with pytest.raises(ConfigError, match="--tuning-seeds must be a count of at most"):
        parse_tuning_seeds("20231105", 5)


def test_a_date_as_a_count_is_refused_at_once(tmp_path):
    began = time.process_time()
    answer = here(toy_study, "--plan", "--seeds", "20231105", "--results", tmp_path)
    assert answer.returncode == 2
    assert '"20231105,"' in answer.stderr
    assert time.process_time() - began < 5
    alone = here(toy_study, "--plan", "--seeds", "20231105,", "--results", tmp_path)
    assert "6 arms × 1 seeds = 6 cells" in alone.stdout
