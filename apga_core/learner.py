"""The classifier in the second phase: its updates, counted, and its losses, in either mode."""

from collections.abc import Iterable
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from apga_core.batch_norm import STATISTICS
from imaging_core.checkpoint import (
    load_modules,
    load_optimiser,
    prefixed,
    state_of_modules,
    state_of_optimiser,
    under,
)
from imaging_core.classifiers import Classifier
from imaging_core.descent import Descent, FlatOptimiser
from imaging_core.fitting import predict
from imaging_core.precision import Precision, autocast
from imaging_core.standardised import Images
from imaging_core.task import Arrays

State = tuple[dict[str, Tensor], ...]


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """`x` from the host on `device`; a GPU's queue is not waited for."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


def state_of(networks: Iterable[nn.Module]) -> State:
    """A copy of what each network has learnt."""
    return tuple({k: v.clone() for k, v in net.state_dict().items()} for net in networks)


def load_state(networks: Iterable[nn.Module], state: State) -> None:
    """Put back what `state_of` copied."""
    for network, of_network in zip(networks, state, strict=True):
        network.load_state_dict(of_network)


class Learner:
    """A classifier with its Adam, alone or together with a policy that learns end to end.

    Args:
        second_view_statistics: a level of `apga_core.batch_norm.STATISTICS`.
        class_weights: (classes,) of the loss that is descended; None: all equal.

    Attributes:
        steps: optimiser steps made on the classifier.
        images_seen: images in the batches of these steps, of both views.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        learning_rate: float,
        weight_decay: float,
        precision: Precision,
        second_view_statistics: str = "shared",
        class_weights: Tensor | None = None,
    ) -> None:
        self.classifier = classifier
        self.device = next(classifier.parameters()).device
        self.statistics = STATISTICS[second_view_statistics](classifier)
        descent = Descent(kind="adam", learning_rate=learning_rate, weight_decay=weight_decay)
        if len(self.statistics.layers):
            # A view has no gradient for the other's layers, and torch's Adam leaves them alone; at
            # a gradient of 0 its momentum would move them.
            self.optimiser = descent.listed([*classifier.parameters(), *self.own.parameters()])
        else:
            self.optimiser = FlatOptimiser(classifier.parameters(), descent)
        self.precision = precision
        self.class_weights = None if class_weights is None else class_weights.to(self.device)
        self.steps = self.images_seen = 0

    def state(self) -> Arrays:
        """What the networks have learnt, the optimiser's moments, and the counts."""
        moments = (
            self.optimiser.state()
            if isinstance(self.optimiser, FlatOptimiser)
            else state_of_optimiser(self.optimiser)
        )
        return {
            **prefixed("networks", state_of_modules(self.networks)),
            **prefixed("optimiser", moments),
            "counts": np.array([self.steps, self.images_seen]),
        }

    def load(self, state: Arrays) -> None:
        """Put back what `state` said."""
        load_modules(self.networks, under(state, "networks"))
        moments = under(state, "optimiser")
        if isinstance(self.optimiser, FlatOptimiser):
            self.optimiser.load(moments)
        else:
            load_optimiser(self.optimiser, moments)
        self.steps, self.images_seen = state["counts"].tolist()

    @property
    def own(self) -> nn.ModuleList:
        """The layers that the second view has for itself; none but with `separate`."""
        return self.statistics.layers

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        """All that learns here."""
        return self.classifier, self.own

    def logits(self, images: Tensor) -> Tensor:
        """(B, classes) float32, in the mode and graph the caller set."""
        with autocast(self.device, self.precision):
            x = images.contiguous(memory_format=torch.channels_last)
            return self.classifier(x).float()

    def update(
        self,
        images: Tensor,
        labels: Tensor,
        penalty: Tensor | None = None,
        *,
        second_view: bool = False,
    ) -> Tensor:
        """One gradient step on the mean cross-entropy (+ `penalty`): (B,) losses before it.

        The mean is weighted where classes are, as torch's `CrossEntropyLoss` weighs; the losses
        returned never are.

        A batch of one image makes no step: batch norm cannot normalise it.
        """
        if len(labels) < 2:
            return self.losses(images, labels)
        with self.statistics.second_view() if second_view else nullcontext():
            self.classifier.train()
            losses = functional.cross_entropy(self.logits(images), labels, reduction="none")
        loss = self._mean(losses, labels)
        if penalty is not None:
            loss = loss + penalty
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.steps += 1
        self.images_seen += len(labels)
        return losses.detach()

    def _mean(self, losses: Tensor, labels: Tensor) -> Tensor:
        if self.class_weights is None:
            return losses.mean()
        weights = self.class_weights[labels]
        return (weights * losses).sum() / weights.sum()

    @torch.no_grad()
    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """(B,) cross-entropies in eval mode: running statistics, so images do not interact."""
        self.classifier.eval()
        return functional.cross_entropy(self.logits(images), labels, reduction="none")

    def predict(self, images: Images, *, second_view: bool = False) -> Tensor:
        """(N, classes) probabilities on the CPU, in eval mode."""
        with self.statistics.second_view() if second_view else nullcontext():
            return predict(self.classifier, images, precision=self.precision)

    def before_scoring(self, images: Images, batch_size: int, generator: torch.Generator) -> None:
        """See `apga_core.batch_norm.SharedStatistics`; `images` are the original training ones."""
        self.statistics.before_scoring(self.logits, images, batch_size, generator)
