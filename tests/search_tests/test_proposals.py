"""Proposals without an engine: a toy objective, a ledger in a list, an interruption anywhere."""

import random
import sqlite3
import subprocess
import sys

import pytest
from optuna.trial import FrozenTrial
from searches import GROUPS, SPACE, Book, Stopped, objective, problem

from sweeps.search.optuna_study import frozen, importances
from sweeps.search.sampler import propose
from sweeps.search.space import Choice, Problem, Range, points, restrict
from sweeps.search.trials import COMPLETE, FAILED, STOPPED, Trial, best_of


def complete(asked: Problem, number: int, point, value: float) -> FrozenTrial:
    trial = Trial(number=number, group="", params=point, state=COMPLETE, values={0: value})
    return frozen(asked.space, trial)


def states(database) -> dict[str, int]:
    with sqlite3.connect(database) as connection:
        rows = connection.execute("select state, count(*) from trials group by state").fetchall()
    return dict(rows)


def test_a_search_without_ray_does_not_wait_for_it_to_be_imported():
    code = "import sys, sweeps.search.campaign; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_default_comes_first_and_every_group_gets_its_trials_in_turn():
    book = Book()
    book.run(problem())
    assert [group for _, group, _ in book.recorded] == ["one", "two"] * 7
    assert book.recorded[0][2] == {"rate": 0.1, "kind": "a"}
    assert book.recorded[1][2] == {"rate": 0.1, "kind": "a", "extra": 0.5}


def test_an_axis_is_there_only_where_its_condition_is_met():
    book = Book()
    book.run(problem())
    for _, group, point in book.recorded:
        assert ("depth" in point) == (point["kind"] == "b")
        assert ("extra" in point) == (group == "two")
        assert 1e-4 <= point["rate"] <= 1.0
        assert isinstance(point.get("depth", 1), int)


@pytest.mark.parametrize(("every", "size"), [(4, 0), (13, 3)])
def test_killed_anywhere_and_run_again_it_is_the_undisturbed_search(every, size, tmp_path):
    undisturbed, asked = Book(), problem(round=size)
    undisturbed.run(asked)
    book, kills = Book(), 0
    while True:
        book.left = every
        try:
            book.run(asked)
            break
        except Stopped:
            kills += 1
    assert kills > 3
    book.left = None
    book.run(asked, tmp_path / "optuna.db")
    assert book.recorded == undisturbed.recorded
    assert book.cells == undisturbed.cells
    assert book.stops == undisturbed.stops
    assert len(book.stops) > 0
    assert states(tmp_path / "optuna.db") == {
        "COMPLETE": 14 - len(book.stops),
        "PRUNED": len(book.stops),
    }


def with_workers(asked: Problem, workers: int, chance: random.Random) -> dict[str, list]:
    """The search with so many arms at once, whose seeds end in a random order; group → its arms."""
    book = Book()
    campaign = book.campaign(asked)
    running: list[tuple[Trial, list[int]]] = []
    while campaign.left or running:
        while len(running) < workers and (trial := campaign.next()) is not None:
            running.append((trial, book.missing(trial)))
        trial, seeds = running.pop(chance.randrange(len(running)))
        seed = seeds.pop(0)
        if campaign.report(trial, seed, objective(trial.params, seed)):
            running.append((trial, seeds))
        campaign.tell(trial)
    return {
        group: [(p.params, p.state, p.values) for p in campaign.trials if p.group == group]
        for group in asked.groups
    }


def test_in_rounds_the_search_is_the_same_for_any_number_of_workers():
    asked = problem(trials=14, round=4)
    alone = with_workers(asked, 1, random.Random(0))
    assert {state for arms in alone.values() for _, state, _ in arms} == {COMPLETE, STOPPED}
    for workers in (2, 3, 9):
        assert with_workers(asked, workers, random.Random(workers)) == alone
    free = problem(trials=14)
    assert with_workers(free, 9, random.Random(9)) != with_workers(free, 1, random.Random(0))


def test_in_rounds_more_trials_go_on_where_fewer_ended():
    book, longer = Book(), Book()
    book.run(problem(trials=6, round=4))
    book.run(problem(trials=11, round=4))
    longer.run(problem(trials=11, round=4))
    assert sorted(book.recorded[12:]) == sorted(longer.recorded[12:])
    assert book.stops.keys() == longer.stops.keys()


def test_more_trials_go_on_where_fewer_ended():
    book, longer = Book(), Book()
    book.run(problem(trials=3))
    book.run(problem(trials=5))
    longer.run(problem(trials=5))
    assert book.recorded == longer.recorded


def test_a_finite_space_is_proposed_once_each_and_then_refused():
    space = {"kind": Choice(("a", "b")), "depth": Range(1, 4, when={"kind": ("b",)})}
    assert len(list(points(space, {}))) == 5
    asked = problem(space=space, groups={"": {}}, defaults={"": {"kind": "a"}}, trials=5)
    known: list[FrozenTrial] = []
    for number in range(5):
        point = propose(asked, "", known)
        assert point not in [trial.params for trial in known]
        known.append(complete(asked, number, point, 1.0))
    with pytest.raises(ValueError, match=r"every point of toy has been proposed \(5\); ask for"):
        propose(asked, "", known)


def test_the_sampler_learns():
    """From trials that say b is better it proposes b more often than the half of chance."""
    book = Book()
    book.run(problem(trials=30, alpha=0.0))
    late = [point for number, _, point in book.recorded if number >= 30]
    assert sum(point["kind"] == "b" for point in late) > 0.7 * len(late)
    flipped = Book()
    campaign = flipped.campaign(problem(trials=30, alpha=0.0, maximize=False))
    while (trial := campaign.next()) is not None:
        for seed in campaign.problem.seeds:
            campaign.report(trial, seed, objective(trial.params, seed))
        campaign.tell(trial)
    worse = [p.params for p in campaign.trials[30:]]
    assert sum(point["kind"] == "b" for point in worse) < 0.5 * len(worse)


def test_a_failed_arm_is_over_and_never_the_best(tmp_path):
    book = Book()
    campaign = book.campaign(problem(trials=1), tmp_path / "optuna.db")
    first = campaign.next()
    campaign.report(first, 10, 9.0)
    assert not campaign.report(first, 11, None)
    campaign.tell(first)
    second = campaign.next()
    for seed in problem().seeds:
        campaign.report(second, seed, 0.0)
    campaign.tell(second)
    assert campaign.next() is None
    assert first.state == FAILED
    assert best_of(problem(), "one", campaign.trials) is None
    assert best_of(problem(), "two", campaign.trials) is second
    assert states(tmp_path / "optuna.db") == {"COMPLETE": 1, "FAIL": 1}


def test_cells_that_another_search_computed_are_taken_as_they_are(tmp_path):
    book = Book()
    book.elsewhere = dict.fromkeys(problem().seeds, 0.3)
    campaign = book.run(problem(trials=2), tmp_path / "optuna.db")
    assert [(p.state, p.mean) for p in campaign.trials] == [(COMPLETE, 0.3)] * 4
    assert states(tmp_path / "optuna.db") == {"COMPLETE": 4}
    assert book.cells == {}


def test_of_equals_the_earliest_wins_so_that_a_default_is_only_beaten():
    equal = [
        Trial(number=n, group="one", params={}, state=COMPLETE, values={0: 0.5}) for n in (2, 0, 1)
    ]
    for maximize in (True, False):
        assert best_of(problem(maximize=maximize), "one", equal).number == 0


def test_importance_names_the_axis_that_matters():
    known: list[Trial] = []
    space = {"rate": Range(0.0, 1.0), "noise": Range(0.0, 1.0)}
    asked = problem(space=space, groups={"": {}}, defaults={"": {"rate": 0.5, "noise": 0.5}})
    for number in range(25):
        point = propose(asked, "", [frozen(space, trial) for trial in known])
        known.append(
            Trial(number=number, group="", params=point, state=COMPLETE, values={0: point["rate"]})
        )
    shares = importances(asked, known)[""]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["rate"] > 0.8
    assert importances(asked, known[:2]) == {}


def test_restrict_keeps_the_axes_that_hold():
    values = {"rate": 0.1, "kind": "a", "depth": 2, "extra": 0.3}
    assert restrict(SPACE, GROUPS["one"], values) == {"rate": 0.1, "kind": "a"}
    assert restrict(SPACE, GROUPS["two"], {**values, "kind": "b"}) == {**values, "kind": "b"}
