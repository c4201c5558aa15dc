"""The study's arms as Ray Tune trials, proposed by an Optuna study.

A trial is light: it asks the broker to queue its arm's missing cells and reports each result to
Tune as it comes. The Optuna storage is a view for optuna-dashboard and never the truth.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import ray.tune
from optuna.trial import TrialState
from ray.tune.search.optuna import OptunaSearch

from cluster.broker import warner
from cluster.trials import BROKER_FIELD, OBJECTIVE, TRIAL_CPU, ArmTrial
from sweeps.search.storage import Warn, fresh_storage

# Tune's own records are thrown away: no log files per trial, no snapshots of the experiment.
TUNE_SETTINGS = {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "TUNE_GLOBAL_CHECKPOINT_S": "86400"}


class View(ray.tune.Callback):
    """The arms that are over, as optuna-dashboard sees them: written to and never read from.

    Not the study that `OptunaSearch` asks: in a database that costs 0.1 s a trial, and more with
    every trial (2 cores, 300 arms).

    Args:
        levels: factor → all its levels.
        warn: hears of it, once, where the database cannot be written.
    """

    def __init__(
        self,
        study_name: str,
        path: Path | None,
        levels: Mapping[str, Sequence[Any]],
        warn: Warn,
    ) -> None:
        self._study = optuna.create_study(
            study_name=study_name, storage=fresh_storage(path, warn), direction="maximize"
        )
        self._space = distributions(levels)

    def add(self, point: Mapping[str, Any], value: float | None) -> None:
        """Show an arm with its objective; None: every cell of it failed."""
        state = TrialState.COMPLETE if value is not None else TrialState.FAIL
        self._study.add_trial(
            optuna.trial.create_trial(
                params={name: point[name] for name in self._space},
                distributions=self._space,
                value=value,
                state=state,
            )
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.add(trial.config, trial.last_result[OBJECTIVE])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.add(trial.config, None)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks into tuner.pkl, which nobody reads


def distributions(
    levels: Mapping[str, Sequence[Any]],
) -> dict[str, optuna.distributions.BaseDistribution]:
    """Optuna's words for factor → all its levels."""
    return {
        name: optuna.distributions.CategoricalDistribution(list(values))
        for name, values in levels.items()
    }


def run_arms(
    *,
    study_name: str,
    broker_name: str,
    levels: Mapping[str, Sequence[Any]],
    points: Sequence[Mapping[str, Any]],
    finished: Sequence[tuple[Mapping[str, Any], float]],
    max_concurrent: int,
    storage_path: str,
    database: Path | None,
    seed: int,
) -> list[str]:
    """Run exactly `points`, in order, as the trials of one Tune experiment; blocks until done.

    Args:
        levels: factor → all its levels.
        points: the arms that miss cells.
        finished: arms the ledger already holds with their objective, for the view.
        database: where the view goes; None keeps it in memory.

    Returns:
        The errors of trials that failed, one line each.
    """
    os.environ.update(TUNE_SETTINGS)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    view = View(study_name, database, levels, warner(broker_name))
    for point, value in finished:
        view.add(point, value)
    search = OptunaSearch(
        space=distributions(levels),
        points_to_evaluate=[dict(point) for point in points],
        metric=OBJECTIVE,
        mode="max",
        seed=seed,
    )
    trainable = ray.tune.with_resources(
        ArmTrial, ray.tune.PlacementGroupFactory([{"CPU": TRIAL_CPU}])
    )
    tuner = ray.tune.Tuner(
        trainable,
        param_space={BROKER_FIELD: broker_name},
        tune_config=ray.tune.TuneConfig(
            search_alg=search,
            num_samples=len(points),
            max_concurrent_trials=max_concurrent,
            reuse_actors=True,
        ),
        run_config=ray.tune.RunConfig(
            name="arms", storage_path=storage_path, verbose=0, callbacks=[view]
        ),
    )
    results = tuner.fit()
    return [str(error).strip().splitlines()[-1] for error in results.errors]
