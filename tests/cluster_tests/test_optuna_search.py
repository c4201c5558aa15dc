"""What Tune asks is Ray's own `OptunaSearch`, and a search without Ray is the same search.

`OptunaSearch` needs no cluster, so these tests start none; they import Ray Tune.
"""

import itertools
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from ray.air.constants import TRAINING_ITERATION
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from searches import Book, Stopped, objective, problem

from cluster.trials import ARM_FIELD
from cluster.tune import ArmSearch, Followed, optuna_search
from sweeps.search.campaign import Campaign
from sweeps.search.optuna_study import STEP, GroupStudy
from sweeps.search.space import Problem
from sweeps.search.trials import COMPLETE, OPEN, STOPPED

pytestmark = pytest.mark.ray


def trials_in(database: Path) -> dict[str, list[dict]]:
    """Study → its trials, as optuna.load_study has them."""
    storage = f"sqlite:///{database}"
    return {
        name: [
            {
                "number": trial.number,
                "state": trial.state.name,
                "value": trial.value,
                "params": trial.params,
                "steps": trial.intermediate_values,
                "marks": trial.user_attrs,
            }
            for trial in optuna.load_study(study_name=name, storage=storage).trials
        ]
        for name in optuna.get_all_study_names(storage)
    }


def expected(campaign: Campaign) -> dict[str, list[dict]]:
    """The same, from the proposals and their values alone."""
    names = {COMPLETE: "COMPLETE", STOPPED: "PRUNED"}
    found = {}
    for group in campaign.problem.groups:
        ours = [p for p in campaign.trials if p.group == group]
        found[f"toy: {group}"] = [
            {
                "number": number,
                "state": names[p.state],
                "value": np.mean(list(p.values.values())),
                "params": p.params,
                "steps": {
                    k: np.mean(list(p.values.values())[:k]) for k in range(1, len(p.values) + 1)
                },
                "marks": {"proposal": p.number},
            }
            for number, p in enumerate(ours)
        ]
    return found


def test_a_step_is_what_tune_calls_it():
    assert STEP == TRAINING_ITERATION


@pytest.mark.parametrize("size", [0, 4])
def test_optuna_search_and_the_search_without_ray_are_the_same(size, tmp_path):
    asked = problem(trials=11, round=size)
    plain, rays = Book(), Book()
    plain.run(asked, tmp_path / "plain.db")
    campaign = rays.run(asked, tmp_path / "rays.db", optuna_search)
    assert rays.recorded == plain.recorded
    assert rays.cells == plain.cells
    assert rays.stops == plain.stops
    assert len(rays.stops) > 0
    assert trials_in(tmp_path / "rays.db") == trials_in(tmp_path / "plain.db")
    assert trials_in(tmp_path / "rays.db") == expected(campaign)


@pytest.mark.parametrize(("every", "size"), [(7, 0), (13, 3)])
def test_killed_anywhere_and_resumed_with_or_without_ray_it_is_the_undisturbed_search(
    every, size, tmp_path
):
    asked = problem(round=size)
    undisturbed, book = Book(), Book()
    undisturbed.run(asked, tmp_path / "calm.db")
    for search in itertools.cycle([GroupStudy.begin, optuna_search]):
        book.left = every
        try:
            campaign = book.run(asked, tmp_path / "optuna.db", search)
            break
        except Stopped:
            (tmp_path / "optuna.db").unlink()  # and its database may go too
    assert book.recorded == undisturbed.recorded
    assert book.cells == undisturbed.cells
    assert trials_in(tmp_path / "optuna.db") == expected(campaign)
    assert trials_in(tmp_path / "optuna.db") == trials_in(tmp_path / "calm.db")


class Heard(OptunaSearch):
    """Ray's, and writes down what it was asked and told."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.name, self.log = options["study_name"], []

    def suggest(self, trial_id):
        point = super().suggest(trial_id)
        self.log.append(("suggest", trial_id, point))
        return point

    def on_trial_result(self, trial_id, result):
        super().on_trial_result(trial_id, result)
        self.log.append(("result", trial_id, result[TRAINING_ITERATION]))

    def on_trial_complete(self, trial_id, result=None, error=False):
        super().on_trial_complete(trial_id, result, error)
        self.log.append(("complete", trial_id, bool(result), error))


class Tune:
    """The order in which Tune speaks to its search algorithm.

    As of `TuneController`: `stop` judges every result first, the last one too; the search algorithm
    hears of it only where the trial goes on, and of the end.
    """

    def __init__(self, asked: Problem, book: Book, database: Path | None) -> None:
        self.announced: list[str] = []
        self.left: list[int] = []
        self.book, self.campaign = book, book.campaign(asked, database, optuna_search)
        self.search = ArmSearch(
            self.campaign,
            take_up=self._take_up,
            at_once=lambda: 100,
            changed=lambda: self.left.append(self.campaign.unfinished),
        )

    def _take_up(self, trial) -> str:
        self.announced.append(f"proposal {trial.number}")
        return self.announced[-1]

    def start(self, trial_id: str) -> SimpleNamespace | None:
        config = self.search.suggest(trial_id)
        if config in (None, Searcher.FINISHED):
            return None
        trial = self.campaign.trials[int(config[ARM_FIELD].removeprefix("proposal "))]
        return SimpleNamespace(trial_id=trial_id, trial=trial, seeds=self.book.missing(trial))

    def step(self, trial: SimpleNamespace, *, ok: bool = True) -> bool:
        """One seed; whether the trial goes on."""
        seed = trial.seeds.pop(0)
        value = objective(trial.trial.params, seed) if ok else None
        result = {"ok": ok, "seed": seed, "objective": value}
        if not self.search.stops(trial.trial_id, result) and trial.seeds:
            self.search.on_trial_result(trial.trial_id, result)
            return True
        self.search.on_trial_complete(trial.trial_id, result)
        return False

    def lose(self, trial: SimpleNamespace) -> None:
        self.search.on_trial_complete(trial.trial_id, error=True)


def test_tunes_search_algorithm_hands_everything_to_the_optuna_search_of_the_group(
    tmp_path, monkeypatch
):
    heard: list[Heard] = []

    def hearing(**options) -> Heard:
        heard.append(Heard(**options))
        return heard[-1]

    monkeypatch.setattr("cluster.tune.OptunaSearch", hearing)
    book, asked = Book(), problem(trials=6)
    tune, number = Tune(asked, book, tmp_path / "optuna.db"), 0
    campaign = tune.campaign
    assert [search.name for search in heard] == ["toy: one", "toy: two"]
    while (trial := tune.start(f"t{number}")) is not None:
        assert book.recorded[-1][0] == number, "suggested before it was on record"
        assert tune.announced[-1] == f"proposal {number}"
        steps = 0
        while tune.step(trial):
            steps += 1
            assert heard[number % 2].log[-1] == ("result", str(number), steps)
        number += 1
    assert tune.search.suggest("more") == Searcher.FINISHED
    assert tune.left[0] == 12
    assert tune.left[-1] == 0
    undisturbed = Book()
    undisturbed.run(asked)
    assert book.recorded == undisturbed.recorded
    assert book.stops == undisturbed.stops
    for group, search in zip(asked.groups, heard, strict=True):
        points = [entry[2] for entry in search.log if entry[0] == "suggest"]
        assert points == [point for _, ours, point in book.recorded if ours == group]
        for p in (p for p in campaign.trials if p.group == group):
            _, *mine = (entry for entry in search.log if entry[1] == str(p.number))
            steps = [("result", str(p.number), k) for k in range(1, len(p.values) + 1)]
            assert mine == [*steps, ("complete", str(p.number), p.state == COMPLETE, False)]
    assert {p.state for p in campaign.trials} == {COMPLETE, STOPPED}
    assert trials_in(tmp_path / "optuna.db") == expected(campaign)


def test_an_arm_whose_trial_tune_gave_up_stays_open_and_ends_no_search(tmp_path):
    book, database = Book(), tmp_path / "optuna.db"
    tune = Tune(problem(trials=1), book, database)
    first, second = tune.start("a"), tune.start("b")
    tune.step(first)
    tune.lose(first)
    tune.lose(second)  # before it had begun
    assert [(t["state"], list(t["steps"])) for (t,) in trials_in(database).values()] == [
        ("RUNNING", [1]),
        ("RUNNING", []),
    ]
    assert [trial.state for trial in tune.campaign.trials] == [OPEN, OPEN]
    assert tune.search.suggest("c") == Searcher.FINISHED  # a campaign that is new takes both up
    tune = Tune(problem(trials=1), book, database)
    assert tune.campaign.left == 2
    for name in "cd":
        trial = tune.start(name)
        while tune.step(trial):
            pass
    assert trials_in(database) == expected(tune.campaign)
    assert len(book.recorded) == 2


def test_once_the_budget_is_spent_arms_stay_open_and_none_is_taken_up(tmp_path):
    book, asked = Book(), problem(trials=2)
    tune = Tune(asked, book, tmp_path / "optuna.db")
    trial = tune.start("a")
    tune.step(trial)
    tune.search._may_start = lambda: False
    assert not tune.search.stops("a", {"ok": None, "objective": None, "done": True})
    tune.search.on_trial_complete("a")
    assert tune.search.suggest("b") == Searcher.FINISHED
    assert (trial.trial.state, len(trial.trial.values)) == (OPEN, 1)
    again = Tune(asked, book, tmp_path / "optuna.db")
    assert again.start("c").trial.number == 0  # it goes on


def test_a_cell_that_is_ended_while_it_runs_stops_its_arm(tmp_path):
    tune = Tune(problem(trials=1), Book(), tmp_path / "optuna.db")
    trial = tune.start("a")
    assert tune.search.stops("a", {"ok": True, "seed": 10, "objective": None, "ended": True})
    tune.search.on_trial_complete("a")
    assert (trial.trial.state, trial.trial.ended_in) == (STOPPED, 10)
    found = trials_in(tmp_path / "optuna.db")["toy: one"][0]
    assert (found["state"], found["value"], found["steps"]) == ("PRUNED", None, {})


def test_a_failed_cell_ends_its_trial_as_fail_with_the_seeds_it_had(tmp_path):
    tune = Tune(problem(trials=1), Book(), tmp_path / "optuna.db")
    early, late = tune.start("a"), tune.start("b")
    assert tune.step(early)
    assert not tune.step(early, ok=False)
    assert [tune.step(late) for _ in range(3)] == [True] * 3
    assert not tune.step(late, ok=False)
    assert tune.search.suggest("c") == Searcher.FINISHED
    found = [trial for (trial,) in trials_in(tmp_path / "optuna.db").values()]
    assert [(t["state"], t["value"], len(t["steps"])) for t in found] == [
        ("FAIL", None, 1),
        ("FAIL", None, 3),
    ]


def arms_of(asked: Problem, book: Book) -> dict[str, list[tuple]]:
    """Group → the points proposed, in order, and whether each was stopped."""
    return {
        group: [(point, n in book.stops) for n, ours, point in book.recorded if ours == group]
        for group in asked.groups
    }


def run_with(asked: Problem, workers: int, patience: int, database: Path | None) -> tuple:
    """So many trials at once, whose seeds end in a random order, all killed after each `patience`
    cells; the book, the last campaign and how many kills it took."""
    book, chance, kills = Book(), random.Random(workers), 0
    names = (f"t{k}" for k in itertools.count())
    while True:
        tune, running = Tune(asked, book, database), []
        for _ in range(patience):
            while len(running) < workers and (trial := tune.start(next(names))):
                running.append(trial)
            if not running:
                return book, tune.campaign, kills
            trial = running.pop(chance.randrange(len(running)))
            seed = trial.seeds[0]
            book.cells[trial.trial.number, seed] = objective(trial.trial.params, seed)
            if tune.step(trial):
                running.append(trial)
        kills += 1


def test_in_rounds_it_is_the_same_search_for_any_number_of_workers_and_kills(tmp_path):
    asked = problem(trials=14, round=4)
    alone = Book()
    alone.run(asked)
    for workers, patience in ((3, 1000), (9, 1000), (9, 17)):
        book, _, kills = run_with(asked, workers, patience, None)
        assert arms_of(asked, book) == arms_of(asked, alone)
        assert (kills > 3) == (patience < 1000)


def test_killed_with_many_workers_it_loses_nothing_and_leaves_no_orphan(tmp_path):
    asked = problem(trials=9)
    book, campaign, kills = run_with(asked, 5, 11, tmp_path / "optuna.db")
    assert kills > 3
    assert len(book.recorded) == 18
    assert len({(group, *point.items()) for _, group, point in book.recorded}) == 18
    assert trials_in(tmp_path / "optuna.db") == expected(campaign)


def result(seed: int, value: float | None, *, done: bool = False) -> dict:
    return {"ok": value is not None, "seed": seed, "objective": value, "done": done}


def test_the_arms_of_a_study_are_trials_of_an_optuna_study_too():
    """Those that the ledger has, those that get their cells now, and one whose cells all fail."""
    arms = Followed(
        study_name="toy",
        levels={"ridge": [0.1, 1.0, 10.0], "pooling": [8]},
        arms=[
            ("a", {"ridge": 0.1, "pooling": 8}, {0: 0.6, 1: 0.8}),
            ("b", {"ridge": 1.0, "pooling": 8}, {3: 0.6}),
            ("c", {"ridge": 10.0, "pooling": 8}, {}),
        ],
        missing={"b", "c"},
    )
    search = ArmSearch(arms, take_up=lambda trial: trial.group, at_once=lambda: 3)
    (b,), (c,) = (search.suggest(name).values() for name in ("t0", "t1"))
    assert (b, c, search.suggest("t2")) == ("b", "c", Searcher.FINISHED)

    def heard(trial_id: str, *results: dict) -> None:
        *early, last = results
        for one in early:
            assert not search.stops(trial_id, one)
            search.on_trial_result(trial_id, one)
        assert not search.stops(trial_id, last)
        search.on_trial_complete(trial_id, last)

    # A trial that starts again hears the first result a second time; the race had no other cell.
    none = {"ok": None, "objective": None, "done": True}
    heard("t0", result(0, 0.5), result(0, 0.5), result(1, None), result(2, 0.7), none)
    heard("t1", result(0, None, done=True))
    found = [
        (t.params["ridge"], t.state.name, t.value, t.intermediate_values) for t in arms.study.trials
    ]
    assert found == [
        (0.1, "COMPLETE", 0.7, {}),
        (1.0, "COMPLETE", pytest.approx(0.6), {1: 0.6, 2: 0.55, 3: pytest.approx(0.6)}),
        (10.0, "FAIL", None, {}),
    ]
