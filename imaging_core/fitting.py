"""Fitting a classifier: images resident on the device, index minibatches, early stopping."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pydantic.dataclasses
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from imaging_core.augment import AUGMENTATIONS, Augmentation, Source
from imaging_core.checkpoint import (
    NO_CHECKPOINT,
    Checkpoint,
    host_copies,
    load_generators,
    prefixed,
    state_of_generators,
    tensors_of,
    under,
)
from imaging_core.descent import Descent, FlatOptimiser, Kind
from imaging_core.fit_past import Past
from imaging_core.precision import Precision, autocast
from imaging_core.standardised import Images
from imaging_core.stream import Stream, by_key
from imaging_core.task import Arrays, Progress, no_progress

EVALUATION_PIXELS = 512 * 64 * 64  # of one batch without gradients


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How one classifier is trained. No defaults: they live in the configuration of each core.

    Attributes:
        epochs: passes over the training images.
        batch_size: a last batch of one image is dropped (batch norm cannot normalise it).
        learning_rate: the peak of the schedule.
        schedule: `onecycle` rises by a cosine over the first 30 % of the steps from a 25th of the
            peak and falls to nearly 0; `cosine` falls from the peak to 0.
        optimiser, weight_decay: see `imaging_core.descent`.
        patience: epochs without a better validation accuracy before the fit stops; 0 = never.
        min_steps: `epochs` is raised until at least so many steps are made (small sets).
        augment: see `imaging_core.augment`.
    """

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=2)
    learning_rate: float = Field(gt=0)
    optimiser: Kind
    schedule: Literal["constant", "onecycle", "cosine"]
    weight_decay: float = Field(ge=0)
    patience: int = Field(ge=0)
    min_steps: int = Field(ge=0)
    augment: Augmentation

    @property
    def descent(self) -> Descent:
        """The optimiser, at the schedule's peak."""
        return Descent(
            kind=self.optimiser,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What one fit did.

    Attributes:
        validation_accuracy: after each epoch; empty without validation images.
        training_loss: mean over the steps of each epoch.
        best_epoch: from 0, the first with the highest validation accuracy; the last without one.
        steps: optimiser steps made.
        epochs_run: epochs made.
    """

    validation_accuracy: tuple[float, ...]
    training_loss: tuple[float, ...]
    best_epoch: int
    steps: int
    epochs_run: int


def learning_rate_at(step: int, total: int, schedule: str, peak: float) -> float:
    """The learning rate of `step` (0 … total − 1) under a schedule with this `peak`.

    `onecycle` is Smith and Topin 2019 as in torch's `OneCycleLR` (cosine, 30 % rise, from
    peak / 25 to peak / 250,000) without its momentum cycle.
    """
    if schedule == "constant":
        return peak
    if schedule == "cosine":
        return peak * 0.5 * (1 + math.cos(math.pi * step / total))
    start, end = peak / 25, peak / 25e4
    rise = 0.3 * total - 1
    if step <= rise:
        return _cosine_between(start, peak, step / rise)
    return _cosine_between(peak, end, (step - rise) / max(total - 1 - rise, 1e-9))


def _cosine_between(first: float, last: float, done: float) -> float:
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * done))


def batches_of(count: int, batch_size: int) -> list[slice]:
    """Slices of a permutation of `count` images; a last batch of one is dropped."""
    starts = range(0, count, batch_size)
    return [slice(s, min(s + batch_size, count)) for s in starts if count - s > 1]


def fit(
    model: nn.Module,
    images: Images,
    labels: Tensor,
    *,
    config: FitConfig,
    generator: torch.Generator,
    stream: Stream | None = None,
    validation: tuple[Images, Tensor] | None = None,
    keep_best: bool,
    precision: Precision = "float32",
    class_weights: Tensor | None = None,
    progress: Progress = no_progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> FitResult:
    """Train `model` in place by cross-entropy; the same generator gives the same bits.

    Args:
        model: gives (B, classes) logits; on the device of `images`.
        images: (N, C, H, W), standardised, all at once or when a batch is taken.
        labels: (N,) int64, on the same device.
        generator: a CPU generator; batch order and augmentation are drawn from it.
        stream: the images are a choice from a list: its steps and its order take the place of
            `config.epochs` passes, and its parts are what is called epochs here.
        validation: images and labels whose accuracy is taken after each epoch.
        keep_best: leave the model with the weights of `best_epoch`, not of the last epoch.
        precision: of the network, in its steps and in its scores.
        class_weights: (classes,) of the loss; None: all equal.
        checkpoint: may be taken before every step; a resumed fit calls `progress` for what is left.

    Raises:
        ValueError: fewer than two images, or early stopping without validation images.
        FloatingPointError: a loss is not finite; the message names the epoch and the step.
    """
    if len(images) < 2:
        raise ValueError(f"fit needs at least 2 images (batch norm), got {len(images)}")
    if validation is None and (keep_best or config.patience):
        raise ValueError("keep_best and patience choose by validation accuracy: pass validation")
    order = _Order(config, len(images), generator, stream)
    augment = AUGMENTATIONS[config.augment]
    class_weights = None if class_weights is None else class_weights.to(images.device)
    model.to(memory_format=torch.channels_last)
    optimiser = FlatOptimiser(model.parameters(), config.descent)
    past = Past()

    def state() -> Arrays:
        found = past.state() | prefixed("order", order.state())
        found |= prefixed("model", host_copies(model.state_dict()))
        return found | prefixed("optimiser", optimiser.state())

    with checkpoint.section("fit", state) as left:
        if left is not None:
            model.load_state_dict(tensors_of(under(left, "model")))
            optimiser.load(under(left, "optimiser"))
            past.load(left, images.device)
            order.load(under(left, "order"), past.epoch)
        for epoch in range(past.epoch, order.epochs):
            batches = order.batches()
            model.train()
            past.trace = past.trace if past.index else torch.zeros(len(batches)).to(images.device)
            for index in range(past.index, len(batches)):
                past.index = index
                checkpoint.tick()
                rows = order.rows(batches[index]).to(images.device)
                x = augment(images[rows], order.draws)
                x = x.contiguous(memory_format=torch.channels_last)
                optimiser.learning_rate = learning_rate_at(
                    past.step, order.total, config.schedule, config.learning_rate
                )
                optimiser.zero_grad()
                with autocast(images.device, precision):
                    logits = model(x)
                loss = functional.cross_entropy(logits.float(), labels[rows], class_weights)
                loss.backward()
                optimiser.step()
                past.trace[index] = loss.detach()
                past.step += 1
            past.losses.append(_mean_loss(past.trace, epoch))
            past.epoch, past.index = epoch + 1, 0
            if validation is not None:
                past.accuracies.append(accuracy(model, *validation, precision=precision))
                if past.is_best():
                    past.best_epoch = epoch
                    if keep_best:
                        past.best_state = {k: v.clone() for k, v in model.state_dict().items()}
            else:
                past.best_epoch = epoch
            progress(
                (epoch + 1) / order.epochs,
                f"epoch {epoch + 1} of {order.epochs}",
                {"training_loss": past.losses, "validation_accuracy": past.accuracies},
            )
            waited = epoch - past.best_epoch
            if config.patience and waited >= config.patience and past.step >= config.min_steps:
                break
    if past.best_state is not None:
        model.load_state_dict(past.best_state)
    return FitResult(
        validation_accuracy=tuple(past.accuracies),
        training_loss=tuple(past.losses),
        best_epoch=past.best_epoch,
        steps=past.step,
        epochs_run=len(past.losses),
    )


class _Order:
    """The batches of a fit, epoch after epoch, and the draws that augment them."""

    def __init__(
        self, config: FitConfig, count: int, generator: torch.Generator, stream: Stream | None
    ) -> None:
        self.stream, self._generator = stream, generator
        if stream is None:
            self.epochs = planned_epochs(config, count)
            self.total = self.epochs * len(batches_of(count, config.batch_size))
            self.draws: Source = generator
            self._planned = _passes(count, self.epochs, config.batch_size, generator)
        else:
            self.epochs, self.total = stream.parts, stream.steps
            keys, self.draws = by_key(stream.groups, generator)
            self._planned = stream.batches(config.batch_size, keys)
        self._left: Arrays = {}
        self._begun: Arrays = {}

    @property
    def _generators(self) -> list[torch.Generator]:
        return [self._generator] if self.stream is None else self.draws.own

    def batches(self) -> list[Tensor]:
        """Of the next epoch."""
        self._begun = state_of_generators(self._generators)
        batches = next(self._planned)
        if self._left:  # a resumed epoch: its order is drawn anew, then its augmentation goes on
            load_generators(self._generators, under(self._left, "now"))
            self._left = {}
        return batches

    def rows(self, batch: Tensor) -> Tensor:
        """The rows of a batch, whose augmentation is drawn next."""
        if self.stream is not None:
            self.draws.rows = self.stream.members[batch]
        return batch

    def state(self) -> Arrays:
        """The generators when this epoch began, and now."""
        now = state_of_generators(self._generators)
        return prefixed("begun", self._begun) | prefixed("now", now)

    def load(self, left: Arrays, epoch: int) -> None:
        """To the beginning of `epoch`, as `left` knew it."""
        if self.stream is not None:
            for _ in range(epoch):  # batches come of keys of their own, that depend on nothing else
                next(self._planned)
        load_generators(self._generators, under(left, "begun"))
        self._left = left


def _passes(
    count: int, epochs: int, batch_size: int, generator: torch.Generator
) -> Iterator[list[Tensor]]:
    """For each epoch its batches, each (B,) rows, in an order drawn when the epoch begins."""
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator)
        yield [order[batch] for batch in batches_of(count, batch_size)]


def _mean_loss(trace: Tensor, epoch: int) -> float:
    """Mean of the losses of one epoch; looked at once an epoch, so that a GPU need not wait."""
    finite = torch.isfinite(trace)
    if not bool(finite.all()):
        step = int((~finite).nonzero()[0])
        raise FloatingPointError(
            f"the loss must be finite, got {float(trace[step])} at epoch {epoch + 1}, "
            f"step {step + 1} of it; lower learning_rate, or look for broken images"
        )
    return float(trace.mean())


def evaluation_batch(images: Images) -> int:
    """How many of `images` (N, C, H, W) a network is shown at once without gradients.

    512 up to 64 px, fewer of larger ones: a wide network would need many GiB. On a CPU 128: the
    maps of more leave its cache.
    """
    height, width = images.shape[2:]
    most = 128 if images.device.type == "cpu" else 512
    return min(most, max(1, EVALUATION_PIXELS // (height * width)))


@torch.inference_mode()
def _logits(
    model: nn.Module, images: Images, batch_size: int | None, precision: Precision
) -> Tensor:
    """(N, classes) float32 in eval mode, on the images' device; the model's mode is put back."""
    was_training = model.training
    batch_size = batch_size or evaluation_batch(images)
    model.eval()
    with autocast(images.device, precision):
        chunks = [
            model(chunk.contiguous(memory_format=torch.channels_last))
            for chunk in images.split(batch_size)
        ]
    model.train(was_training)
    return torch.cat(chunks).float()


def predict(
    model: nn.Module,
    images: Images,
    batch_size: int | None = None,
    *,
    precision: Precision = "float32",
) -> Tensor:
    """(N, classes) float32 probabilities on the CPU, in eval mode."""
    return _logits(model, images, batch_size, precision).softmax(dim=1).cpu().clone()


def accuracy(
    model: nn.Module,
    images: Images,
    labels: Tensor,
    batch_size: int | None = None,
    *,
    precision: Precision = "float32",
) -> float:
    """Share of `images` whose most probable class is the label, in eval mode."""
    right = _logits(model, images, batch_size, precision).argmax(dim=1) == labels
    return int(right.sum()) / len(labels)  # of counts: equal shares are equal numbers


def planned_epochs(config: FitConfig, images: int) -> int:
    """The epochs that `fit` makes of so many images if nothing stops it."""
    steps = len(batches_of(images, config.batch_size))
    return max(config.epochs, math.ceil(config.min_steps / steps))


def epochs_read(epochs: int, last: int = 5) -> int:
    """How many epochs at the end of a fit `last_epochs_reward` reads."""
    return min(last, (epochs + 1) // 2)


def last_epochs_reward(
    validation_accuracy: tuple[float, ...], how: Literal["max", "mean"] = "max", last: int = 5
) -> float:
    """Maximum or mean validation accuracy of the last `last` epochs (Ye et al. 2020, 3.2).

    Never of more than the later half of them: a fit of a given number of steps makes few epochs on
    many images, and those at the top of its schedule would count against the many.
    """
    tail = validation_accuracy[-epochs_read(len(validation_accuracy), last) :]
    if not tail:
        raise ValueError("the reward needs the validation accuracy of at least one epoch")
    return max(tail) if how == "max" else sum(tail) / len(tail)
