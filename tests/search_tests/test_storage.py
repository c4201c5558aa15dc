"""The database for optuna-dashboard: it shows the study, and may be lost at any moment of it."""

import sqlite3

import optuna
import pytest

from sweeps.search import storage as storages
from sweeps.search.storage import fresh_storage


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(storages, "LOCKED_S", 0.02)


def ask_and_tell(study: optuna.Study, times: int) -> list[float]:
    found = []
    for _ in range(times):
        trial = study.ask()
        found.append(trial.suggest_float("x", 0, 1))
        trial.report(found[-1], 1)
        trial.set_user_attr("seen", True)
        study.tell(trial, found[-1])
    return found


def begin(path, said: list[str]) -> optuna.Study:
    return optuna.create_study(
        study_name="toy",
        storage=fresh_storage(path, said.append),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )


def test_the_database_shows_what_the_study_in_memory_holds(tmp_path):
    said: list[str] = []
    study = begin(tmp_path / "optuna.db", said)
    study.enqueue_trial({"x": 0.5}, user_attrs={"first": True})
    ask_and_tell(study, 3)
    shown = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    for here, there in zip(study.trials, shown.trials, strict=True):
        assert (here.number, here.state, here.params, here.value) == (
            there.number, there.state, there.params, there.value
        )  # fmt: skip
        assert (here.user_attrs, here.intermediate_values) == (
            there.user_attrs, there.intermediate_values
        )  # fmt: skip
    assert shown.trials[0].user_attrs["first"] is True
    assert said == []


@pytest.mark.slow
def test_a_database_that_another_process_holds_costs_one_line(tmp_path, impatient):
    said: list[str] = []
    study = begin(tmp_path / "optuna.db", said)
    before = ask_and_tell(study, 2)
    holder = sqlite3.connect(tmp_path / "optuna.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    after = ask_and_tell(study, 3)
    holder.execute("ROLLBACK")
    assert [trial.value for trial in study.trials] == before + after
    # And it proposed what it would have proposed.
    assert before + after == ask_and_tell(begin(None, said), 5)
    (line,) = said
    assert "optuna.db cannot be written" in line
    assert "database is locked" in line
    assert "nothing else needs it" in line
    shown = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'optuna.db'}")
    assert len(shown.trials) == 2


@pytest.mark.parametrize("obstacle", ["a folder has its name", "its folder is a file"])
def test_a_database_that_cannot_be_made_costs_one_line(tmp_path, obstacle):
    path = tmp_path / "ledger" / "optuna.db"
    if obstacle == "a folder has its name":
        path.mkdir(parents=True)
    else:
        path.parent.write_text("")
    said: list[str] = []
    assert len(ask_and_tell(begin(path, said), 2)) == 2
    assert len(said) == 1
    assert "optuna-dashboard sees no more" in said[0]
