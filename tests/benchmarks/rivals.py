"""The other ways to run the same cells on this machine, each with the same core function.

Every one computes a cell whole: it knows no stages, so each cell trains what it stands on anew.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SLOTS = os.cpu_count() or 1
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A cell as every rival gets it.

    Attributes:
        core: the package that has the cell's `task.TASK`.
        fields: of its configuration, all of them.
        data: name of the dataset.
    """

    core: str
    fields: Mapping[str, Any]
    data: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a rival took.

    Attributes:
        wall_s: of the whole call, its start and end included.
        cells_s: seconds inside the core's functions, per cell.
    """

    wall_s: float
    cells_s: tuple[float, ...]


def whole_cell(recipe: Recipe) -> float:
    """Compute the cell and everything under it; the seconds that took."""
    from imaging_core import datasets
    from imaging_core.fields import build
    from imaging_core.task import Stage, load_function, no_progress
    from sweeps.engine.worker import prepare_process

    prepare_process()
    task = load_function(f"{recipe.core}.task:TASK")
    data = datasets.load(recipe.data, None, "held-out")
    began = time.monotonic()
    config = build(task.config, dict(recipe.fields))
    found: dict[str, Any] = {}

    def compute(stage: Stage) -> Any:
        if stage.name not in found:
            needs = {name: compute(need) for name, need in stage.needs.items()}
            function = load_function(stage.compute)
            found[stage.name] = function(
                stage.inputs, data, needs, device="cpu", progress=no_progress
            )
        return found[stage.name]

    arrays = {name: compute(stage) for name, stage in task.stages(config, recipe.seed).items()}
    train = load_function(task.train)
    train(config, data, recipe.seed, arrays, device="cpu", progress=no_progress)
    return time.monotonic() - began


def _timed(call: Callable[[], Sequence[float]]) -> Run:
    paths = [ROOT, ROOT / "tests" / "support", Path(__file__).parent]  # the toy core, this file
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.monotonic()
    cells = call()
    return Run(wall_s=time.monotonic() - began, cells_s=tuple(cells))


@contextmanager
def _local_ray():
    import ray

    before = os.environ.pop("RAY_ADDRESS", None)
    context = ray.init(
        address="local", num_cpus=SLOTS, include_dashboard=False, log_to_driver=False
    )
    # Else Train asks whatever cluster this machine ran last, which costs each job seconds.
    os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
    try:
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        if before is not None:
            os.environ["RAY_ADDRESS"] = before
        ray.shutdown()


def _tune_cell(config: dict[str, Any]) -> None:
    import ray.tune

    ray.tune.report({"seconds": whole_cell(config["recipe"])})


def plain_tune(recipes: Sequence[Recipe], storage: str) -> Run:
    """Ray Tune as its guide has it: a function trainable, a grid, one CPU a trial."""

    def call() -> list[float]:
        import ray.tune

        with _local_ray():
            results = ray.tune.Tuner(
                ray.tune.with_resources(_tune_cell, {"cpu": 1}),
                param_space={"recipe": ray.tune.grid_search(list(recipes))},
                run_config=ray.tune.RunConfig(storage_path=storage, name="plain", verbose=0),
            ).fit()
            return [result.metrics["seconds"] for result in results]

    return _timed(call)


def _train_cell(config: dict[str, Any]) -> None:
    seconds = whole_cell(config["recipe"])
    with open(config["report"], "w") as file:
        file.write(str(seconds))


def _one_job(recipe: Recipe, storage: str, number: int) -> float:
    import ray.train
    from ray.train.torch import TorchTrainer

    report = os.path.join(storage, f"seconds-{number}")
    TorchTrainer(
        _train_cell,
        train_loop_config={"recipe": recipe, "report": report},
        scaling_config=ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.99}),
        run_config=ray.train.RunConfig(storage_path=storage, name=f"job-{number}"),
    ).fit()
    with open(report) as file:
        return float(file.read())


def job_per_cell(recipes: Sequence[Recipe], storage: str) -> Run:
    """One Ray Train job per cell, as many at once as there are slots."""

    def call() -> list[float]:
        import ray

        job = ray.remote(num_cpus=0)(_one_job)
        with _local_ray():
            waiting = list(enumerate(recipes))
            running: list[Any] = []
            seconds: list[float] = []
            while waiting or running:
                while waiting and len(running) < SLOTS:
                    number, recipe = waiting.pop(0)
                    running.append(job.remote(recipe, storage, number))
                over, running = ray.wait(running, num_returns=1)
                seconds += ray.get(over)
            return seconds

    return _timed(call)


def _optuna_worker(storage: str, study_name: str, recipes: Sequence[Recipe]) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.load_study(study_name=study_name, storage=storage)
    seconds: list[float] = []

    def objective(trial: optuna.Trial) -> float:
        number = trial.suggest_int("cell", 0, len(recipes) - 1)
        seconds.append(whole_cell(recipes[number]))
        return seconds[-1]

    while any(trial.state.name == "WAITING" for trial in study.get_trials(deepcopy=False)):
        study.optimize(objective, n_trials=1)
    return seconds


def optuna_and_joblib(recipes: Sequence[Recipe], storage: str) -> Run:
    """Optuna's study in sqlite with every cell enqueued, and a joblib process per slot."""

    def call() -> list[float]:
        import joblib
        import optuna

        url = f"sqlite:///{storage}/rival.db"
        study = optuna.create_study(study_name="rival", storage=url)
        for number in range(len(recipes)):
            study.enqueue_trial({"cell": number})
        workers = joblib.Parallel(n_jobs=SLOTS)(
            joblib.delayed(_optuna_worker)(url, "rival", list(recipes)) for _ in range(SLOTS)
        )
        return [seconds for worker in workers for seconds in worker]

    return _timed(call)
