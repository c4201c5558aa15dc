"""Fitting K classifiers at once: the rule of `imaging_core.fitting.fit`, on one fused network.

Every replica has its own images, batch order, schedule and stopping. A replica that is over keeps
its result; its place in the network is filled with another's batches until all are over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from imaging_core import fitting
from imaging_core.augment import AUGMENTATIONS
from imaging_core.fitting import (
    FitConfig,
    FitResult,
    batches_of,
    learning_rate_at,
    planned_epochs,
    predict,
)
from imaging_core.fusing import Fused, structure
from imaging_core.rendezvous import Alone, meet, meeting
from imaging_core.task import Progress, no_progress

EVALUATION_PIXELS = 512 * 64 * 64  # of one batch without gradients, over all replicas


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What is looked at after an epoch: `score` of the probabilities of `images`.

    Attributes:
        images: (N, C, H, W) float, standardised.
        score: of (N, classes) float32 probabilities on the CPU.
        since: the first epoch, from 0, that is looked at.
    """

    images: Tensor
    score: Callable[[Tensor], float]
    since: int = 0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: the arguments of `imaging_core.fitting.fit`, and what to watch."""

    model: nn.Module
    images: Tensor
    labels: Tensor
    config: FitConfig
    generator: Generator
    validation: tuple[Tensor, Tensor] | None = None
    keep_best: bool = False
    watch: Watch | None = None
    progress: Progress = no_progress


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What one training did; `watched` has one score per epoch looked at."""

    result: FitResult
    watched: tuple[float, ...]


def fit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    config: FitConfig,
    generator: Generator,
    validation: tuple[Tensor, Tensor] | None = None,
    keep_best: bool,
    progress: Progress = no_progress,
) -> FitResult:
    """`imaging_core.fitting.fit`, fused with the fits that other calls ask for (`fit_job`)."""
    job = Job(
        model=model,
        images=images,
        labels=labels,
        config=config,
        generator=generator,
        validation=validation,
        keep_best=keep_best,
        progress=progress,
    )
    return fit_job(job).result


def fit_job(job: Job) -> Fitted:
    """`fit_alone`, fused with the jobs of its kind that other calls of
    `imaging_core.rendezvous.together` ask for; outside it, and alone of its kind, the same bits.
    """
    if not meeting():
        return fit_alone(job)
    return meet((structure(job.model), signature(job)), job, _serve)


def _serve(jobs: Sequence[Job]) -> list[Fitted | Alone]:
    """Fused; where that fails every job starts again alone, so that a failure is its own."""
    if len(jobs) > 1:
        before = [(_state(job.model), job.generator.get_state()) for job in jobs]
        try:
            return list(fit_fused(jobs))
        except Exception:  # of one of them, or a network or a memory that cannot hold them all
            for job, (state, drawn) in zip(jobs, before, strict=True):
                job.model.load_state_dict(state)
                job.generator.set_state(drawn)
    answers = []
    for job in jobs:
        try:
            answers.append(Alone(fit_alone(job)))
        except Exception as error:
            answers.append(Alone(error))
    return answers


def fit_alone(job: Job) -> Fitted:
    """`fit`, and the watch after each of its epochs."""
    watched: list[float] = []
    made = 0

    def after_epoch(done: float, note: str = "") -> None:
        nonlocal made
        made += 1
        if job.watch is not None and made > job.watch.since:
            watched.append(job.watch.score(predict(job.model, job.watch.images)))
        job.progress(done, note)

    result = fitting.fit(
        job.model,
        job.images,
        job.labels,
        config=job.config,
        generator=job.generator,
        validation=job.validation,
        keep_best=job.keep_best,
        progress=after_epoch,
    )
    return Fitted(result=result, watched=tuple(watched))


class _Course:
    """Where one replica's training stands."""

    def __init__(self, job: Job) -> None:
        count, config = len(job.images), job.config
        if count < 2:
            raise ValueError(f"fit needs at least 2 images (batch norm), got {count}")
        if job.validation is None and (job.keep_best or config.patience):
            raise ValueError(
                "keep_best and patience choose by validation accuracy: pass validation"
            )
        self.job = job
        self.batches = batches_of(count, config.batch_size)
        self.epochs = planned_epochs(config, count)
        self.total = self.epochs * len(self.batches)
        self.augment = AUGMENTATIONS[config.augment]
        self.step = 0
        self.order = torch.empty(0)
        self.trace = torch.zeros(len(self.batches), device=job.images.device)
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.watched: list[float] = []
        self.best_epoch = -1
        self.state: dict[str, Tensor] | None = None  # of the best epoch, and of the end
        self.over = False

    @property
    def learning_rate(self) -> float:
        config = self.job.config
        step = min(self.step, self.total - 1)
        return learning_rate_at(step, self.total, config.schedule, config.learning_rate)

    def batch(self) -> tuple[Tensor, Tensor]:
        """The next one; draws the order of an epoch at its start."""
        at = self.step % len(self.batches)
        job = self.job
        if not at:
            order = torch.randperm(len(job.images), generator=job.generator)
            self.order = order.to(job.images.device)
        rows = self.order[self.batches[at]]
        return self.augment(job.images[rows], job.generator), job.labels[rows]

    def after_step(self, loss: Tensor) -> bool:
        """Note the loss of this step; true at the end of an epoch."""
        self.trace[self.step % len(self.batches)] = loss
        self.step += 1
        return not self.step % len(self.batches)

    def after_epoch(self, accuracy: float | None, watched: float | None) -> None:
        epoch, config = len(self.losses), self.job.config
        finite = torch.isfinite(self.trace)
        if not bool(finite.all()):
            raise FloatingPointError(f"a fused loss is not finite in epoch {epoch + 1}")
        self.losses.append(float(self.trace.mean()))
        if watched is not None:
            self.watched.append(watched)
        if accuracy is None:
            self.best_epoch = epoch
        else:
            self.accuracies.append(accuracy)
            if self.best_epoch < 0 or accuracy > self.accuracies[self.best_epoch]:
                self.best_epoch = epoch
                if self.job.keep_best:
                    self.state = _state(self.job.model)
        self.job.progress((epoch + 1) / self.epochs, f"epoch {epoch + 1} of {self.epochs}")
        waited = epoch - self.best_epoch
        stopped = config.patience and waited >= config.patience and self.step >= config.min_steps
        if stopped or epoch + 1 == self.epochs:
            self.over = True
            if self.state is None:
                self.state = _state(self.job.model)

    def fitted(self) -> Fitted:
        result = FitResult(
            validation_accuracy=tuple(self.accuracies),
            training_loss=tuple(self.losses),
            best_epoch=self.best_epoch,
            steps=self.step,
            epochs_run=len(self.losses),
        )
        return Fitted(result=result, watched=tuple(self.watched))


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


class _Optimiser:
    """The optimiser of `fit` over the fused parameters: each replica's steps are its own.

    Where the replicas' learning rates always agree one group takes every parameter whole;
    otherwise each replica has a group of views.
    """

    def __init__(self, fused: Fused, courses: Sequence[_Course]) -> None:
        config = courses[0].job.config
        self.courses = courses
        self.parameters = [p for p in fused.parameters() if p.requires_grad]
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        alike = config.schedule == "constant" or len({c.total for c in courses}) == 1
        groups: list[list[Tensor]] = [self.parameters] if alike else []
        for k in range(0 if alike else fused.replicas):
            views = []
            for parameter in self.parameters:
                view = fused.own(parameter.detach(), k)
                view.grad = fused.own(parameter.grad, k)
                views.append(view)
            groups.append(views)
        self.inner = config.descent.listed([{"params": group} for group in groups])

    def zero(self) -> None:
        torch._foreach_zero_([p.grad for p in self.parameters])

    def step(self) -> None:
        active = next(c for c in self.courses if not c.over)
        for k, group in enumerate(self.inner.param_groups):
            whose = active if len(self.inner.param_groups) == 1 else self.courses[k]
            group["lr"] = whose.learning_rate
        self.inner.step()


def fit_fused(
    jobs: Sequence[Job], *, dropout: Sequence[Generator] | None = None
) -> tuple[Fitted, ...]:
    """Train every job's model in place, all at once; each result is that of `fit_alone`.

    The same up to rounding: sums run in another order, and small differences grow with the steps.

    Args:
        jobs: of one structure of model, image shape and configuration (`compatible`).
        dropout: one generator for each job, where the models have active dropout.

    Raises:
        ValueError: jobs that cannot be fused, or that `fit` would refuse.
        FloatingPointError: a loss is not finite; the models are left somewhere on their way.
    """
    if len({signature(job) for job in jobs}) > 1:
        raise ValueError("fused jobs must agree in configuration, image shape and what they watch")
    courses = [_Course(job) for job in jobs]
    fused = Fused([job.model for job in jobs], dropout)
    try:
        optimiser = _Optimiser(fused, courses)
        while not all(course.over for course in courses):
            _step(fused, courses, optimiser)
    finally:
        fused.release()
    for course in courses:
        course.job.model.load_state_dict(course.state)
        course.job.model.to(memory_format=torch.channels_last)
    return tuple(course.fitted() for course in courses)


def _step(fused: Fused, courses: Sequence[_Course], optimiser: _Optimiser) -> None:
    fused.train()
    drawn = [None if course.over else course.batch() for course in courses]
    filler = next(batch for batch in drawn if batch is not None)
    batches = [filler if batch is None else batch for batch in drawn]
    counts = [len(labels) for _, labels in batches]
    images = _padded([x for x, _ in batches], max(counts))
    labels = _padded([y for _, y in batches], max(counts))
    logits = fused(images, counts)
    losses = functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none"
    ).view(labels.shape)
    if min(counts) == max(counts):
        mean = losses.mean(dim=1)
    else:
        own = torch.tensor(counts, device=losses.device)
        rows = torch.arange(max(counts), device=losses.device) < own.unsqueeze(1)
        mean = torch.where(rows, losses, 0.0).sum(dim=1) / own
    optimiser.zero()
    mean.sum().backward()
    optimiser.step()
    ended = [
        k
        for k, course in enumerate(courses)
        if not course.over and course.after_step(mean[k].detach())
    ]
    if not ended:
        return
    accuracies = dict.fromkeys(ended)
    watched = dict.fromkeys(ended)
    if courses[0].job.validation is not None:
        seen = [course.job.validation[0] for course in courses]
        for k, logits_k in _logits(fused, seen, ended).items():
            truth = courses[k].job.validation[1]
            accuracies[k] = float((logits_k.argmax(dim=1) == truth).float().mean())
    watch = courses[0].job.watch
    looked_at = [k for k in ended if watch and len(courses[k].losses) >= courses[k].job.watch.since]
    if looked_at:
        seen = [course.job.watch.images for course in courses]
        for k, logits_k in _logits(fused, seen, looked_at).items():
            probabilities = logits_k.float().softmax(dim=1).cpu()
            watched[k] = courses[k].job.watch.score(probabilities)
    for k in ended:
        courses[k].after_epoch(accuracies[k], watched[k])


def _padded(parts: Sequence[Tensor], length: int) -> Tensor:
    """(K, length, …): the parts, zeros after their ends."""
    if all(len(part) == length for part in parts):
        return torch.stack(list(parts))
    whole = parts[0].new_zeros((len(parts), length, *parts[0].shape[1:]))
    for row, part in zip(whole, parts, strict=True):
        row[: len(part)] = part
    return whole


@torch.no_grad()
def _logits(fused: Fused, images: Sequence[Tensor], wanted: Sequence[int]) -> dict[int, Tensor]:
    """Replica → (N, classes) in eval mode on its own images; one alone is asked alone."""
    pixels = images[0].shape[2] * images[0].shape[3]
    if len(wanted) * 2 <= fused.replicas or len({len(x) for x in images}) > 1:
        size = min(512, max(1, EVALUATION_PIXELS // pixels))
        found = {}
        for k in wanted:
            model = fused.models[k]
            was_training = model.training
            model.eval()
            found[k] = torch.cat(
                [
                    model(chunk.contiguous(memory_format=torch.channels_last))
                    for chunk in images[k].split(size)
                ]
            )
            model.train(was_training)
        return found
    size = max(1, min(512, EVALUATION_PIXELS // pixels) // fused.replicas)
    fused.eval()
    parts = zip(*(x.split(size) for x in images), strict=True)
    chunks = [fused(torch.stack(part)) for part in parts]
    fused.train()
    whole = torch.cat(chunks, dim=1)
    return {k: whole[k] for k in wanted}


def signature(job: Job) -> tuple:
    """What jobs must agree in to be fused, beside the structure of their models."""
    seen = None if job.watch is None else tuple(job.watch.images.shape[1:])
    return (
        job.config,
        tuple(job.images.shape[1:]),
        job.images.dtype,
        str(job.images.device),
        job.keep_best,
        job.validation is None,
        seen,
    )
