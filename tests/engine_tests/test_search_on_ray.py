"""The same search on a real cluster, undisturbed and killed."""

import time

import pytest
from studies import elsewhere
from test_search import SCRIPT, assert_whole, kill_after, proposals, trials

pytestmark = pytest.mark.ray


def test_a_search_on_ray_ends_with_the_trials_asked_for_and_the_winners_rerun(tmp_path):
    answer = elsewhere("--results", tmp_path, "--trials", 3, "--seeds", 1, script=SCRIPT)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "6 of 6 proposals" in answer.stdout
    assert_whole(tmp_path, asked=6)
    rows = trials(tmp_path)
    assert [row["ridge"] for row in rows[:2]] == ["1.0", "1.0"]
    assert (tmp_path / "toy_search" / "study.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)  # it starts Ray five times
def test_killed_three_times_on_ray_it_proposes_nothing_twice_and_loses_nothing(tmp_path):
    slowly = ("--set", "wait_s=0.4")
    seen: dict[str, dict] = {}
    for cells in (4, 14, 24):
        kill_after(tmp_path, cells, *slowly)
        time.sleep(3)  # what its workers were committing is there by now
        now = proposals(tmp_path)
        assert seen.items() <= now.items()
        seen = now
    last = elsewhere("--results", tmp_path, *slowly, script=SCRIPT)
    assert last.returncode == 0, last.stdout + last.stderr
    assert seen.items() <= proposals(tmp_path).items()
    assert_whole(tmp_path, asked=12)
