"""The toy core's task."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from imaging_core.fields import ours
from imaging_core.splits import check_k_shot
from imaging_core.task import Metric, Stage, Task


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ToyConfig:
    """Ridge strength, and what should go wrong."""

    ridge: float = ours(1.0, "toy", gt=0)
    pooling: int = ours(8, "toy", ge=1, le=32)
    k_shot: int = ours(0, "toy", ge=0)
    wait_s: float = ours(0.0, "seconds a cell waits", ge=0)
    stage_wait_s: float = ours(0.0, "seconds a stage waits", ge=0)
    raise_at_seed: int = ours(-1, "this seed raises")
    nan_at_seed: int = ours(-1, "this seed's metric is NaN")
    hang_at_seed: int = ours(-1, "this seed never ends")
    hog_at_seed: int = ours(-1, "this seed asks for more memory than any machine has")
    kill_at_seed: int = ours(-1, "this seed kills its process")
    kill_times: int = ours(99, "so many times, counted in kill_folder", ge=0)
    kill_folder: str = ours("", "where deaths are counted")


def check(config: ToyConfig, data) -> None:
    check_k_shot(data, config.k_shot)


def stages(config: ToyConfig, seed: int) -> dict[str, Stage]:
    shared = Stage(
        name="toy-pixels",
        inputs={"pooling": config.pooling, "wait_s": config.stage_wait_s},
        compute="toy_core.training:pooled_pixels",
    )
    per_seed = Stage(
        name="toy-order",
        inputs={"seed": seed},
        compute="toy_core.training:order",
        needs={"pixels": shared},
    )
    return {"pixels": shared, "order": per_seed}


TASK = Task(
    name="toy_core",
    version=1,
    config=ToyConfig,
    presets={"demo": {}, "paper": {"ridge": 2.0}},
    check=check,
    stages=stages,
    train="toy_core.training:train_cell",
    metrics=(
        Metric(
            name="accuracy",
            label="Accuracy",
            higher_is_better=True,
            low=0.0,
            high=1.0,
            meaning="share of test images classified right",
        ),
        Metric(
            name="val_best",
            label="Validation",
            higher_is_better=True,
            low=0.0,
            high=1.0,
            meaning="share of validation images classified right",
        ),
    ),
)
