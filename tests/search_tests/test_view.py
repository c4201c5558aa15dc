"""Optuna's view of a study's arms, read back by Optuna itself."""

import sqlite3

import optuna
import pytest

from sweeps.search import storage as storages
from sweeps.search.view import ArmsView, space_of

LEVELS = {"ridge": [0.1, 1.0, 10.0], "pooling": [8]}
ARMS = [
    ("a", {"ridge": 0.1, "pooling": 8}, {0: 0.6, 1: 0.8}),
    ("b", {"ridge": 1.0, "pooling": 8}, {3: 0.6}),
    ("c", {"ridge": 10.0, "pooling": 8}, {}),
]


def view_at(path, *, warn=pytest.fail, levels=LEVELS, arms=ARMS, missing=frozenset("bc")):
    return ArmsView(
        path, study_name="toy", levels=levels, arms=arms, missing=missing, warn=warn
    )  # fmt: skip


def shown(path) -> list[tuple]:
    """Trial by trial, as Optuna reads it: factor, state, value, steps."""
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{path}")
    return [
        (t.number, t.params["ridge"], t.state.name, t.value, t.intermediate_values)
        for t in study.trials
    ]


def test_trial_k_is_arm_k_and_its_steps_are_means_over_the_first_seeds(tmp_path):
    path = tmp_path / "optuna.db"
    view = view_at(path)
    half = pytest.approx(0.7)
    assert shown(path) == [
        (0, 0.1, "COMPLETE", half, {1: 0.6, 2: half}),
        (1, 1.0, "RUNNING", None, {1: 0.6}),
        (2, 10.0, "WAITING", None, {}),
    ]
    view.hear("b", 0, 0.5)
    view.hear("c", None, None)
    view.write()
    assert shown(path)[1:] == [
        (1, 1.0, "RUNNING", None, {1: 0.6, 2: pytest.approx(0.55)}),
        (2, 10.0, "RUNNING", None, {}),
    ]
    view.hear("b", 2, 0.7)
    view.close("b")
    view.close("c")
    view.write()
    assert shown(path)[1:] == [
        (1, 1.0, "COMPLETE", pytest.approx(0.6), {1: 0.6, 2: 0.55, 3: pytest.approx(0.6)}),
        (2, 10.0, "FAIL", None, {}),
    ]
    study = optuna.load_study(study_name="toy", storage=f"sqlite:///{path}")
    assert study.best_trial.params == {"ridge": 0.1, "pooling": 8}
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    complete = study.trials[1]
    assert complete.datetime_start <= complete.datetime_complete


def test_seeds_that_a_race_adds_to_an_arm_that_was_over_change_its_value(tmp_path):
    path = tmp_path / "optuna.db"
    view = view_at(path, missing=frozenset("b"))
    view.hear("a", 2, 1.0)
    view.write()
    number, _, state, value, steps = shown(path)[0]
    assert (number, state, value) == (0, "COMPLETE", pytest.approx(0.8))
    assert list(steps.values()) == pytest.approx([0.6, 0.7, 0.8])


def test_at_the_end_of_a_run_arms_that_were_heard_of_are_over(tmp_path):
    path = tmp_path / "optuna.db"
    view = view_at(path)
    view.write(ended=True)
    assert [state for _, _, state, _, _ in shown(path)] == ["COMPLETE", "COMPLETE", "WAITING"]


def test_a_factor_of_many_numbers_is_a_range_and_of_many_words_stays_a_list(tmp_path):
    many = [0.1 * k for k in range(200)]
    space = space_of({"x": many, "n": list(range(200)), "w": [f"w{k}" for k in range(200)]})
    assert space["x"] == optuna.distributions.FloatDistribution(0.0, many[-1])
    assert space["n"] == optuna.distributions.IntDistribution(0, 199)
    assert len(space["w"].choices) == 200
    path = tmp_path / "optuna.db"
    arms = [(str(k), {"ridge": many[k], "pooling": 8}, {0: 0.5}) for k in (7, 150)]
    view_at(path, levels={"ridge": many, "pooling": [8]}, arms=arms, missing=frozenset())
    assert [ridge for _, ridge, *_ in shown(path)] == [many[7], many[150]]


def test_a_thousand_arms_are_one_transaction(tmp_path):
    path = tmp_path / "optuna.db"
    arms = [(str(k), {"ridge": 0.1, "pooling": 8}, {}) for k in range(1000)]
    view = view_at(path, arms=arms, missing={name for name, _, _ in arms})
    with sqlite3.connect(path) as connection:
        before = connection.execute("PRAGMA data_version").fetchone()
        for name, _, _ in arms:
            view.hear(name, 0, 0.5)
            view.close(name)
        assert connection.execute("PRAGMA data_version").fetchone() == before
        view.write()
        assert connection.execute("PRAGMA data_version").fetchone() != before
        count = "SELECT count(*) FROM trials WHERE state = 'COMPLETE'"
        assert connection.execute(count).fetchone() == (1000,)


def test_a_database_that_another_process_holds_costs_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("sweeps.search.view.LOCKED_S", 0.02)
    said: list[str] = []
    path = tmp_path / "optuna.db"
    view = view_at(path, warn=said.append)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    for seed in range(2):
        view.hear("b", seed, 0.5)
        view.write()
    holder.execute("ROLLBACK")
    (line,) = said
    assert "optuna.db cannot be written (database is locked)" in line
    assert shown(path)[1][2] == "RUNNING"


def test_a_database_that_cannot_be_made_costs_one_line(tmp_path):
    (tmp_path / "optuna.db").mkdir()
    said: list[str] = []
    view = view_at(tmp_path / "optuna.db", warn=said.append)
    view.hear("b", 0, 0.5)
    view.write(ended=True)
    assert len(said) == 1
    assert storages.unwritable(tmp_path / "optuna.db", OSError("x"))[:9] == said[0][:9]
