"""What a fit remembers of its epochs so far: the result in the making, and where it stands."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from imaging_core.checkpoint import array_of, host_copies, numbers, prefixed, tensors_of, under
from imaging_core.task import Arrays


@dataclass(kw_only=True)
class Past:
    """See `imaging_core.fitting.FitResult`; `index` is the next batch of `epoch`.

    Attributes:
        step: optimiser steps made.
        trace: (batches,) losses of this epoch's steps; None before the first.
        best_state: the network at `best_epoch`; None before there is one.
    """

    epoch: int = 0
    index: int = 0
    step: int = 0
    best_epoch: int = -1
    losses: list[float] = field(default_factory=list)
    accuracies: list[float] = field(default_factory=list)
    trace: Tensor | None = None
    best_state: dict[str, Tensor] | None = None

    def is_best(self) -> bool:
        """Whether the last accuracy is above all others."""
        return self.best_epoch < 0 or self.accuracies[-1] > self.accuracies[self.best_epoch]

    def state(self) -> Arrays:
        """All of it, as arrays."""
        found = {
            "counts": np.array([self.epoch, self.index, self.step, self.best_epoch]),
            "losses": numbers(self.losses),
            "accuracies": numbers(self.accuracies),
        }
        if self.trace is not None:
            found["trace"] = array_of(self.trace)
        if self.best_state is not None:
            found |= prefixed("best", host_copies(self.best_state))
        return found

    def load(self, left: Arrays, device: torch.device) -> None:
        """Put back what `state` said; other names are passed over."""
        self.epoch, self.index, self.step, self.best_epoch = left["counts"].tolist()
        self.losses, self.accuracies = left["losses"].tolist(), left["accuracies"].tolist()
        self.trace = torch.from_numpy(np.array(left["trace"])).to(device)
        self.best_state = tensors_of(under(left, "best")) or None
