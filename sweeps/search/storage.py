"""Where Optuna keeps a study: in memory, and for optuna-dashboard in a database that may fail."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

LOCKED_S = 1.0
"""So long a change waits for another process that holds the database; Optuna tries six times."""
Warn = Callable[[str], None]


def to_log(text: str) -> None:
    """Where nobody listens."""
    logging.getLogger(__name__).warning(text)


def _shown(name: str, numbers: str) -> Callable[..., Any]:
    """The method `name` of a storage: done in memory, then in the database by its own number."""

    def method(self: "Shown", number: int, *arguments: Any, **named: Any) -> Any:
        answer = getattr(InMemoryStorage, name)(self, number, *arguments, **named)
        theirs = getattr(self, numbers)[number]
        self._show(lambda there: getattr(there, name)(theirs, *arguments, **named))
        return answer

    return method


class Shown(InMemoryStorage):
    """A study in memory whose every change is written to a database too, which nothing reads.

    Another process may hold the database, its folder may have no locks, its disk be full: at the
    first error it is left as it is, `warn` hears of it once, and the study goes on.

    Args:
        path: of the sqlite database; one that is there is replaced.
    """

    def __init__(self, path: Path, warn: Warn) -> None:
        super().__init__()
        self._path, self._warn = path, warn
        self._study_there: dict[int, int] = {}  # ours → the database's
        self._trial_there: dict[int, int] = {}
        self._there: BaseStorage | None = None
        try:
            self._there = fresh_database(path)
        except Exception as error:  # of sqlite, SQLAlchemy, Optuna or the file system
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._there = None
        self._warn(unwritable(self._path, error))

    def _show(self, write: Callable[[BaseStorage], Any]) -> Any:
        """The same in the database, while there is one."""
        if self._there is None:
            return None
        try:
            return write(self._there)
        except Exception as error:
            self._give_up(error)
            return None

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        study = super().create_new_study(directions, study_name)
        name = self.get_study_name_from_id(study)
        self._study_there[study] = self._show(
            lambda there: there.create_new_study(directions, name)
        )
        return study

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial = super().create_new_trial(study_id, template_trial)
        study = self._study_there[study_id]
        self._trial_there[trial] = self._show(
            lambda there: there.create_new_trial(study, template_trial)
        )
        return trial

    set_study_user_attr = _shown("set_study_user_attr", "_study_there")
    set_study_system_attr = _shown("set_study_system_attr", "_study_there")
    set_trial_param = _shown("set_trial_param", "_trial_there")
    set_trial_state_values = _shown("set_trial_state_values", "_trial_there")
    set_trial_intermediate_value = _shown("set_trial_intermediate_value", "_trial_there")
    set_trial_user_attr = _shown("set_trial_user_attr", "_trial_there")
    set_trial_system_attr = _shown("set_trial_system_attr", "_trial_there")


def unwritable(path: Path, error: Exception) -> str:
    """What the user is told of a database that cannot be written."""
    known = error.__cause__ or error
    reason = (str(known).strip() or type(known).__name__).splitlines()[0]
    return (
        f"warning: {path} cannot be written ({reason}), so optuna-dashboard sees no more "
        "of this run; nothing else needs it"
    )


def fresh_database(path: Path) -> RDBStorage:
    """Optuna's storage in an empty sqlite database at `path`; one that is there is replaced."""
    for leaf in (path, *(path.with_name(path.name + end) for end in ("-journal", "-wal"))):
        leaf.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # else it logs what `warn` hears
    patience = {"connect_args": {"timeout": LOCKED_S}}
    return RDBStorage(f"sqlite:///{path}", engine_kwargs=patience)


def fresh_storage(path: Path | None, warn: Warn = to_log) -> BaseStorage:
    """An empty Optuna storage; seen in the database at `path` too, where one is named."""
    return InMemoryStorage() if path is None else Shown(path, warn)
