"""The study's arms as Ray Tune trials, proposed by an Optuna study.

A trial is light: it asks the broker to queue its arm's missing cells and reports each result to
Tune as it comes. The Optuna storage is a view for optuna-dashboard and never the truth.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import ray
import ray.tune
from ray.tune.search.optuna import OptunaSearch

from cluster.broker import on_this_node, point_key
from cluster.connect import NAMESPACE

OBJECTIVE = "objective"
TRIAL_CPU = 0.001
BROKER_FIELD = "__broker__"


class ArmTrial(ray.tune.Trainable):
    """One arm: a step is one seed's result. Reused from arm to arm (a fresh actor costs 1.7 s)."""

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        point = {name: value for name, value in config.items() if name != BROKER_FIELD}
        self.broker = ray.get_actor(config[BROKER_FIELD], namespace=NAMESPACE)
        self.key = point_key(point)
        self.expected = ray.get(self.broker.start_arm.remote(self.key))
        self.received = 0
        self.values: list[float] = []

    def step(self) -> dict[str, Any]:
        """The next result. The objective is the mean over the seeds that have finished so far.

        Raises:
            RuntimeError: every seed of the arm failed, so there is no objective to report.
        """
        while self.received < self.expected:
            result = ray.get(self.broker.result_of_arm.remote(self.key, self.received))
            self.received += 1
            if result["status"] == "finished":
                self.values.append(float(result[OBJECTIVE]))
                break
        if not self.values:
            raise RuntimeError(f"all {self.expected} cells of {self.key} failed")
        return {
            OBJECTIVE: sum(self.values) / len(self.values),
            "seeds_finished": len(self.values),
            "done": self.received >= self.expected,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial's state is the ledger."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to load."""


def fresh_storage(path: Path | None) -> optuna.storages.BaseStorage:
    """An empty Optuna storage: sqlite where there is a local folder for it, else in memory."""
    if path is None:
        return optuna.storages.InMemoryStorage()
    path.unlink(missing_ok=True)
    return optuna.storages.RDBStorage(f"sqlite:///{path}")


def record_finished(
    study: optuna.Study,
    levels: Mapping[str, Sequence[Any]],
    finished: Sequence[tuple[Mapping[str, Any], float]],
) -> None:
    """Show the arms that the ledger already holds, so that the view has every arm."""
    distributions = {
        name: optuna.distributions.CategoricalDistribution(list(values))
        for name, values in levels.items()
    }
    for point, value in finished:
        study.add_trial(
            optuna.trial.create_trial(params=dict(point), distributions=distributions, value=value)
        )


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
        database: where the Optuna storage goes; None keeps it in memory.

    Returns:
        The errors of trials that failed, one line each.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = fresh_storage(database)
    view = optuna.create_study(study_name=study_name, storage=storage, direction="maximize")
    record_finished(view, levels, finished)
    search = OptunaSearch(
        space={
            name: optuna.distributions.CategoricalDistribution(list(values))
            for name, values in levels.items()
        },
        points_to_evaluate=[dict(point) for point in points],
        metric=OBJECTIVE,
        mode="max",
        study_name=study_name,
        storage=storage,
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
        run_config=ray.tune.RunConfig(name="arms", storage_path=storage_path, verbose=0),
    )
    results = tuner.fit()
    return [str(error).strip().splitlines()[-1] for error in results.errors]


def start_arms(**arguments: Any) -> Any:
    """`run_arms` in a process beside the driver (see `cluster.fleet.Supervisor`); its future."""
    return (
        ray.remote(run_arms)
        .options(num_cpus=0, max_retries=0, **on_this_node())
        .remote(**arguments)
    )
