"""What a selection is worth: the reward, and the count of classifier trainings it cost.

Every reward of a cell starts from the same initial weights, makes the same number of steps and
reads its images in the order of keys that each image has (`imaging_core.stream`: common random
numbers), so two rewards differ by their selections and not by their luck.
"""

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from imaging_core.checkpoint import (
    NO_CHECKPOINT,
    Checkpoint,
    load_generators,
    load_modules,
    numbers,
    prefixed,
    state_of_generators,
    state_of_modules,
    under,
)
from imaging_core.classifiers import Classifier
from imaging_core.fitting import (
    FitConfig,
    epochs_read,
    fit,
    last_epochs_reward,
    predict,
)
from imaging_core.seeding import torch_generator
from imaging_core.standardised import Images, joined_images
from imaging_core.task import Arrays
from selection_core.streams import chosen_stream


class Environment(Protocol):
    """Turns a selection into a reward; `trainings` and `steps` count what it cost."""

    trainings: int
    steps: int

    def reward(self, keep: np.ndarray) -> float:  # (N,) bool over the pool
        """The raw reward of keeping these candidates beside the real images."""
        ...

    def state(self) -> Arrays:
        """What the next reward depends on, beside its selection, and the counts."""
        ...

    def load(self, state: Arrays) -> None:
        """Put back what `state` said."""
        ...


def score_of(probabilities: Tensor, labels: Tensor, metric: str) -> float:
    """Of (N, classes) probabilities on the CPU: `accuracy` in [0, 1], or `log_likelihood`, the mean
    log p(label) ≤ 0, in nats.
    """
    if metric == "accuracy":
        return float((probabilities.argmax(1) == labels.cpu()).float().mean())
    own = probabilities.gather(1, labels.cpu().unsqueeze(1))
    return float(own.clamp_min(1e-7).log().mean())


def component(name: str, repeat: int) -> str:
    """The random stream `name` of a reward's `repeat`-th training."""
    return f"{name}/{repeat}" if repeat else name


class ClassifierReward:
    """Section 2.2: train a classifier on real + kept images; its last epochs on validation.

    Args:
        initial: the untrained classifiers every reward starts from, and is the mean over.
        real, pool, validation: standardised images and labels, on the device of `initial`.
        updates: optimiser steps of each training, in `fit_config.epochs` parts; 0: passes.
        seed: of the cell; batch order and augmentation are drawn from (seed, "reward/fit").
        warm: continue from the last reward's weights instead.
    """

    def __init__(
        self,
        initial: Sequence[Classifier],
        *,
        real: tuple[Images, Tensor],
        pool: tuple[Images, Tensor],
        validation: tuple[Images, Tensor],
        fit_config: FitConfig,
        updates: int,
        statistic: str,
        metric: str,
        seed: int,
        warm: bool = False,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ):
        self.initial, self.warm, self.updates = tuple(initial), warm, updates
        self.real, self.pool, self.validation = real, pool, validation
        self.fit_config, self.statistic, self.metric, self.seed = (
            fit_config,
            statistic,
            metric,
            seed,
        )
        self.checkpoint = checkpoint
        self.trainings = 0
        self.steps = 0

    def state(self) -> Arrays:
        """What the next reward depends on, and what the ones so far cost."""
        found = {"cost": np.array([self.trainings, self.steps])}
        return found | (state_of_modules(self.initial) if self.warm else {})

    def load(self, state: Arrays) -> None:
        """Put back what `state` said."""
        self.trainings, self.steps = state["cost"].tolist()
        if self.warm:
            load_modules(self.initial, state)

    def reward(self, keep: np.ndarray) -> float:
        values: list[float] = []
        with self.checkpoint.section("reward", lambda: {"values": numbers(values)}) as left:
            values += [] if left is None else left["values"].tolist()
            for repeat in range(len(values), len(self.initial)):
                values.append(self.one(keep, repeat))
        return float(np.mean(values))

    def one(self, keep: np.ndarray, repeat: int) -> float:
        """The reward of the `repeat`-th training alone."""
        members = np.concatenate(
            [np.arange(len(self.real[0])), len(self.real[0]) + np.flatnonzero(keep)]
        )
        stream = chosen_stream(
            self.fit_config, self.updates, (len(self.real[0]), len(keep)), members
        )
        images, labels = with_kept(self.real, self.pool, keep)
        model = self.initial[repeat] if self.warm else copy.deepcopy(self.initial[repeat])
        seen, truth = self.validation
        # A score costs a pass over validation: only those that the reward reads are taken.
        unread = stream.parts - epochs_read(stream.parts)
        scores: list[float] = []

        def after_part(*_: object) -> None:
            if len(scores) < unread:
                scores.append(math.nan)
            else:
                scores.append(score_of(predict(model, seen), truth, self.metric))

        with self.checkpoint.section("scores", lambda: {"scores": numbers(scores)}) as left:
            scores += [] if left is None else left["scores"].tolist()
            fitted = fit(
                model,
                images,
                labels,
                config=self.fit_config,
                generator=torch_generator(self.seed, component("reward/fit", repeat)),
                stream=stream,
                keep_best=False,
                progress=after_part,
                checkpoint=self.checkpoint,
            )
        self.trainings += 1
        self.steps += fitted.steps
        return last_epochs_reward(tuple(scores), self.statistic)


class LinearProbeReward:
    """A ridge classifier on fixed features, solved exactly in under a millisecond.

    One-hot targets centred at 1 / classes, features with a constant appended, penalty
    `ridge` × (number of rows), none on the constant.
    """

    def __init__(
        self,
        *,
        real: tuple[np.ndarray, np.ndarray],  # (M, F) features, (M,) labels
        pool: tuple[np.ndarray, np.ndarray],
        validation: tuple[np.ndarray, np.ndarray],
        classes: int,
        ridge: float,
        metric: str,
    ):
        def rows(part: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
            x = torch.from_numpy(np.ascontiguousarray(part[0])).double()
            y = functional.one_hot(torch.from_numpy(part[1]), classes).double() - 1 / classes
            return torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1), y

        real_x, real_y = rows(real)
        self.pool_x, self.pool_y = rows(pool)
        self.validation_x, _ = rows(validation)
        self.validation_labels = torch.from_numpy(validation[1])
        self.gram, self.moment, self.count = real_x.T @ real_x, real_x.T @ real_y, len(real_x)
        self.penalty = torch.eye(len(self.gram), dtype=torch.float64) * ridge
        self.penalty[-1, -1] = 0.0
        self.metric = metric
        self.trainings = 0
        self.steps = 0

    def state(self) -> Arrays:
        """Nothing: a reward is a function of its selection."""
        return {}

    def load(self, state: Arrays) -> None:
        """Nothing."""

    def reward(self, keep: np.ndarray) -> float:
        mask = torch.from_numpy(keep)
        x, y = self.pool_x[mask], self.pool_y[mask]
        gram = self.gram + x.T @ x + self.penalty * (self.count + len(x))
        weights = torch.linalg.solve(gram, self.moment + x.T @ y)
        scores = self.validation_x @ weights
        if self.metric == "accuracy":
            return float((scores.argmax(1) == self.validation_labels).double().mean())
        own = scores.log_softmax(1).gather(1, self.validation_labels.unsqueeze(1))
        return float(own.mean())


class SignedReward:
    """The controls of the planted-truth check: an environment's reward flipped, or replaced.

    flipped: −reward. random: U(0, 1) from the cell's own stream, the environment never asked.
    """

    def __init__(self, inner: Environment, sign: str, seed: int):
        self.inner, self.sign = inner, sign
        self.generator = torch_generator(seed, "reward/random")

    @property
    def trainings(self) -> int:
        return self.inner.trainings

    @property
    def steps(self) -> int:
        return self.inner.steps

    def state(self) -> Arrays:
        """The environment's, and the stream of random rewards."""
        found = prefixed("generator", state_of_generators([self.generator]))
        return found | prefixed("inner", self.inner.state())

    def load(self, state: Arrays) -> None:
        """Put back what `state` said."""
        load_generators([self.generator], under(state, "generator"))
        self.inner.load(under(state, "inner"))

    def reward(self, keep: np.ndarray) -> float:
        if self.sign == "random":
            return float(torch.rand((), generator=self.generator))
        value = self.inner.reward(keep)
        return -value if self.sign == "flipped" else value


class Remembered:
    """An environment that remembers its rewards: a killed search for a selection goes on by being
    given them again. What it makes of them is cheap beside them, and a function of them.
    """

    def __init__(self, inner: Environment, checkpoint: Checkpoint):
        self.inner, self.checkpoint = inner, checkpoint
        self._given: list[float] = []
        self._again: list[float] = []

    @property
    def trainings(self) -> int:
        return self.inner.trainings

    @property
    def steps(self) -> int:
        return self.inner.steps

    @contextlib.contextmanager
    def remembering(self) -> Iterator[None]:
        """In the block a checkpoint holds all rewards; those of a killed attempt come first."""
        with self.checkpoint.section("rewards", self.state) as left:
            if left is not None:
                self.load(left)
            yield

    def state(self) -> Arrays:
        """Every reward so far, and what the next one depends on."""
        return {"given": numbers(self._given), **prefixed("inner", self.inner.state())}

    def load(self, state: Arrays) -> None:
        """Put back what `state` said: its rewards are given again before new ones."""
        self._given = state["given"].tolist()
        self._again = self._given[::-1]
        self.inner.load(under(state, "inner"))

    def reward(self, keep: np.ndarray) -> float:
        if self._again:
            return self._again.pop()
        self.checkpoint.tick()
        value = self.inner.reward(keep)
        self._given.append(value)
        return value


def with_kept(
    real: tuple[Images, Tensor], pool: tuple[Images, Tensor], keep: np.ndarray
) -> tuple[Images, Tensor]:
    """Real images, then the kept candidates in the order of the pool; the same for labels."""
    rows = torch.from_numpy(np.flatnonzero(keep)).to(pool[0].device)
    return joined_images(real[0], pool[0], rows), torch.cat([real[1], pool[1][rows]])
