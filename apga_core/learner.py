"""The classifier in the second phase: its updates, counted, and its losses, in either mode."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from imaging_core.classifiers import Classifier
from imaging_core.descent import Descent, FlatOptimiser


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """`x` from the host on `device`; a GPU's queue is not waited for."""
    if device.type != "cuda" or x.device.type != "cpu":
        return x.to(device)
    return x.pin_memory().to(device, non_blocking=True)


class Learner:
    """A classifier with its Adam, alone or together with a policy that learns end to end.

    Attributes:
        steps: optimiser steps made on the classifier.
    """

    def __init__(
        self,
        classifier: Classifier,
        *,
        learning_rate: float,
        weight_decay: float,
        precision: str,
    ) -> None:
        self.classifier = classifier
        self.device = next(classifier.parameters()).device
        self.optimiser = FlatOptimiser(
            classifier.parameters(),
            Descent(kind="adam", learning_rate=learning_rate, weight_decay=weight_decay),
        )
        self.precision = precision
        self.steps = 0

    def autocast(self) -> AbstractContextManager[None]:
        """bfloat16 for the networks where it was asked for."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def logits(self, images: Tensor) -> Tensor:
        """(B, classes) float32, in the mode and graph the caller set."""
        with self.autocast():
            x = images.contiguous(memory_format=torch.channels_last)
            return self.classifier(x).float()

    def update(self, images: Tensor, labels: Tensor, penalty: Tensor | None = None) -> Tensor:
        """One gradient step on the mean cross-entropy (+ `penalty`): (B,) losses before it.

        A batch of one image makes no step: batch norm cannot normalise it.
        """
        self.classifier.train()
        if len(labels) < 2:
            return self.losses(images, labels)
        losses = functional.cross_entropy(self.logits(images), labels, reduction="none")
        loss = losses.mean() if penalty is None else losses.mean() + penalty
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.steps += 1
        return losses.detach()

    @torch.no_grad()
    def losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """(B,) cross-entropies in eval mode: running statistics, so images do not interact."""
        self.classifier.eval()
        return functional.cross_entropy(self.logits(images), labels, reduction="none")
