"""The learning core's task."""

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from imaging_core.fields import ours
from imaging_core.task import Metric, Task


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LearningConfig:
    """How good a cell becomes, and in how many steps."""

    rate: float = ours(0.1, "test", gt=0, le=1)
    steps: int = ours(10, "test", ge=1)
    wait_s: float = ours(0.0, "seconds a step takes", ge=0)


def check(config: LearningConfig, data) -> None:
    """Everything fits."""


def stages(config: LearningConfig, seed: int) -> dict:
    return {}


TASK = Task(
    name="learning_core",
    version=1,
    config=LearningConfig,
    presets={"demo": {}},
    check=check,
    stages=stages,
    train="learning_core.training:train_cell",
    metrics=tuple(
        Metric(name=name, label=name, higher_is_better=True, low=0.0, high=1.0, meaning=name)
        for name in ("accuracy", "val_best")
    ),
)
