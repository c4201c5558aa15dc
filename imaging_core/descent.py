"""Gradient descent: what kind, and its steps over a network's parameters as one tensor.

A backward pass leaves nothing of an optimiser in the cache: after one, `torch.optim` takes three
times as long over the 28 tensors of a small network as one update of the same numbers does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from imaging_core.checkpoint import array_of, tensors_of
from imaging_core.task import Arrays

Kind = Literal["sgd", "adam", "adamw"]
MOMENTUM = 0.9  # of SGD
BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam and AdamW: torch's defaults
ALIGNED = 16
"""Numbers: every parameter begins at a multiple of 64 bytes, as in memory of its own."""
VECTOR = 8
"""Numbers: the last ones of a tensor, that fill no vector, are rounded by other instructions."""


@dataclass(frozen=True, kw_only=True)
class Descent:
    """What is done with gradients.

    Attributes:
        weight_decay: decoupled for `adamw`, L2 in the gradient for `sgd` and `adam`.
    """

    kind: Kind
    learning_rate: float
    weight_decay: float = 0.0

    def listed(self, tensors: Sequence[Any]) -> torch.optim.Optimizer:
        """torch's optimiser over tensors, or groups of them."""
        shared = {"lr": self.learning_rate, "weight_decay": self.weight_decay, "fused": True}
        if self.kind == "sgd":
            return torch.optim.SGD(tensors, momentum=MOMENTUM, **shared)
        kind = torch.optim.Adam if self.kind == "adam" else torch.optim.AdamW
        return kind(tensors, betas=BETAS, eps=EPSILON, **shared)


class FlatOptimiser:
    """The steps of `Descent.listed`, bit for bit, over parameters that are views of one tensor.

    Each keeps its shape and memory format; its gradient is a view of the one tensor's, set to zero
    (not to None) before a backward pass. Adam, AdamW and SGD treat every number alone, so it makes
    no difference which tensor holds it, but for parameters that fill no whole number of vectors
    (the biases of a head of two classes): those stay apart.

    Args:
        parameters: those that require a gradient are taken, the others left alone.

    Attributes:
        learning_rate: of the next steps.

    Raises:
        ValueError: nothing to learn, or parameters on several devices or of several types.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], descent: Descent) -> None:
        self.descent, self.learning_rate = descent, descent.learning_rate
        self.parameters = [p for p in parameters if p.requires_grad]
        kinds = sorted({f"{p.dtype} on {p.device}" for p in self.parameters})
        if len(kinds) != 1:
            raise ValueError(
                "a flat optimiser needs parameters of one type on one device, got "
                f"{', '.join(kinds) or 'none that requires a gradient'}"
            )
        self.flattened = [p for p in self.parameters if p.numel() % VECTOR == 0]
        apart = [p for p in self.parameters if p.numel() % VECTOR]
        *starts, size = accumulate(
            (-(-p.numel() // ALIGNED) * ALIGNED for p in self.flattened), initial=0
        )
        self.values = self.parameters[0].detach().new_zeros(size)
        self.grad = torch.zeros_like(self.values)
        for parameter, start in zip(self.flattened, starts, strict=True):
            dense = torch.empty_like(parameter)  # of the same format, without gaps
            place = (dense.shape, dense.stride(), start)
            parameter.data = self.values.as_strided(*place).copy_(parameter.detach())
            parameter.grad = self.grad.as_strided(*place)
        for parameter in apart:
            parameter.grad = torch.zeros_like(parameter)
        self._tensors = [self.values, *apart]
        self._grads = [self.grad, *(p.grad for p in apart)]
        self._momenta: list[Tensor | None] = [None] * len(self._tensors)
        self._averages = [[torch.zeros_like(t) for t in self._tensors] for _ in range(2)]
        self._steps = [torch.zeros((), device=t.device) for t in self._tensors]

    def state(self) -> Arrays:
        """The moments, without the parameters, which are the network's."""
        kinds = {
            "momentum": self._momenta,
            "average": self._averages[0],
            "square": self._averages[1],
            "step": self._steps,
        }
        return {
            f"{kind}/{place}": array_of(tensor)
            for kind, tensors in kinds.items()
            for place, tensor in enumerate(tensors)
            if tensor is not None
        }

    def load(self, state: Arrays) -> None:
        """Put back what `state` said."""
        found = tensors_of(state)
        for place, tensor in enumerate(self._tensors):
            if (momentum := found.get(f"momentum/{place}")) is not None:
                self._momenta[place] = momentum.view_as(tensor).to(tensor.device)
            for kind, into in (
                ("average", self._averages[0]),
                ("square", self._averages[1]),
                ("step", self._steps),
            ):
                into[place].copy_(found[f"{kind}/{place}"].view_as(into[place]))

    def zero_grad(self) -> None:
        """Every gradient to zero, in place."""
        for grad in self._grads:
            grad.zero_()

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients that were added up since `zero_grad`.

        Raises:
            RuntimeError: parameters were moved, or gradients replaced, since: the step would change
                nothing that the network sees.
        """
        ends = (*self.flattened[:1], *self.flattened[-1:])
        if not (
            all(_part_of(self.values, p) and _part_of(self.grad, p.grad) for p in ends)
            and all(p.grad is g for p, g in zip(self._tensors[1:], self._grads[1:], strict=True))
        ):
            raise RuntimeError(
                "the parameters were moved, or their gradients replaced, after the optimiser was "
                "made: move a network before, and zero its gradients by the optimiser"
            )
        shared = {
            "lr": self.learning_rate,
            "weight_decay": self.descent.weight_decay,
            "maximize": False,
            "fused": True,
        }
        if self.descent.kind == "sgd":
            sgd(
                self._tensors, self._grads, self._momenta,
                momentum=MOMENTUM, dampening=0.0, nesterov=False, **shared,
            )  # fmt: skip
        else:
            adam(
                self._tensors, self._grads, *self._averages, [], self._steps,
                beta1=BETAS[0], beta2=BETAS[1], eps=EPSILON, amsgrad=False,
                decoupled_weight_decay=self.descent.kind == "adamw", **shared,
            )  # fmt: skip


def _part_of(whole: Tensor, part: Tensor | None) -> bool:
    return part is not None and part.untyped_storage() is whole.untyped_storage()
