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
from imaging_core.descent import Descent, FlatOptimiser, Kind
from imaging_core.precision import Precision, autocast
from imaging_core.standardised import Standardised
from imaging_core.stream import Stream, by_key
from imaging_core.task import Progress, no_progress

Images = Tensor | Standardised
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

    Raises:
        ValueError: fewer than two images, or early stopping without validation images.
        FloatingPointError: a loss is not finite; the message names the epoch and the step.
    """
    if len(images) < 2:
        raise ValueError(f"fit needs at least 2 images (batch norm), got {len(images)}")
    if validation is None and (keep_best or config.patience):
        raise ValueError("keep_best and patience choose by validation accuracy: pass validation")
    if stream is None:
        epochs = planned_epochs(config, len(images))
        total = epochs * len(batches_of(len(images), config.batch_size))
        draws: Source = generator
        planned = _passes(len(images), epochs, config.batch_size, generator)
    else:
        epochs, total = stream.parts, stream.steps
        keys, draws = by_key(stream.groups, generator)
        planned = stream.batches(config.batch_size, keys)
    augment = AUGMENTATIONS[config.augment]
    class_weights = None if class_weights is None else class_weights.to(images.device)
    model.to(memory_format=torch.channels_last)
    optimiser = FlatOptimiser(model.parameters(), config.descent)

    accuracies: list[float] = []
    losses: list[float] = []
    best_epoch, best_state, step = -1, None, 0
    for epoch, batches in enumerate(planned):
        model.train()
        trace = torch.zeros(len(batches), device=images.device)
        for index, batch in enumerate(batches):
            if stream is not None:
                draws.rows = stream.members[batch]
            rows = batch.to(images.device)
            x = augment(images[rows], draws).contiguous(memory_format=torch.channels_last)
            optimiser.learning_rate = learning_rate_at(
                step, total, config.schedule, config.learning_rate
            )
            optimiser.zero_grad()
            with autocast(images.device, precision):
                logits = model(x)
            loss = functional.cross_entropy(logits.float(), labels[rows], class_weights)
            loss.backward()
            optimiser.step()
            trace[index] = loss.detach()
            step += 1
        losses.append(_mean_loss(trace, epoch))
        if validation is not None:
            accuracies.append(accuracy(model, *validation, precision=precision))
            if best_epoch < 0 or accuracies[-1] > accuracies[best_epoch]:
                best_epoch = epoch
                if keep_best:
                    best_state = {k: v.clone() for k, v in model.state_dict().items()}
        else:
            best_epoch = epoch
        progress((epoch + 1) / epochs, f"epoch {epoch + 1} of {epochs}")
        waited = epoch - best_epoch
        if config.patience and waited >= config.patience and step >= config.min_steps:
            break
    if best_state is not None:
        model.load_state_dict(best_state)
    return FitResult(
        validation_accuracy=tuple(accuracies),
        training_loss=tuple(losses),
        best_epoch=best_epoch,
        steps=step,
        epochs_run=len(losses),
    )


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
