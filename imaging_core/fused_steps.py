"""Training loops that run side by side and whose networks' steps are fused, forward and backward.

For loops that are more than a fit. Each keeps its own losses and optimisers: where all of a crew
ask at once, one pass of the fused network answers them all, and one backward pass gives every
network its gradients. A loop that asks without the others asks its own network.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from imaging_core.descent import Descent, FlatOptimiser
from imaging_core.fusing import Fused, structure
from imaging_core.rendezvous import Alone, meet, meeting

Optimiser = torch.optim.Optimizer | FlatOptimiser


class Solo:
    """The networks of one loop, asked alone."""

    def forward(self, network: nn.Module, x: Tensor) -> Tensor:
        """network(x) for x (B, C, H, W), in the mode and graph the caller set."""
        return network(x)

    def backward(self, loss: Tensor) -> None:
        """The gradients of `loss`, after the optimiser's `zero_grad`."""
        loss.backward()

    def optimiser(self, network: nn.Module, descent: Descent) -> Optimiser:
        """What moves `network`; it may not be moved to another device or format after this."""
        return FlatOptimiser(network.parameters(), descent)


@dataclass(frozen=True)
class _Asked:
    """One replica's forward pass, with the caller's settings of its thread."""

    replica: int
    x: Tensor


class _Crew:
    """K loops, each with a network of every kind: the fused networks, and who they belong to."""

    def __init__(self, networks: Sequence[Sequence[nn.Module]]) -> None:
        self.networks = networks
        self.fused = [Fused(kind) for kind in zip(*networks, strict=True)]

    def passes(
        self, kind: int, training: bool, grad: bool, precision: torch.dtype | None, asked: list
    ) -> list[Tensor | Alone]:
        x = asked[0].x
        with (
            torch.set_grad_enabled(grad),
            torch.autocast(x.device.type, dtype=precision, enabled=precision is not None),
        ):
            if len(asked) < len(self.networks):  # the fused network would move the others' state
                return [Alone(self.networks[one.replica][kind](one.x)) for one in asked]
            counts = [len(one.x) for one in asked]
            padded = [_padded(one.x, max(counts)) for one in asked]
            out = self.fused[kind].train(training)(torch.stack(padded), counts)
        return [part[:count] for part, count in zip(out, counts, strict=True)]

    def gradients(self, asked: list[tuple[int, Tensor]]) -> list[None]:
        torch.stack([loss for _, loss in asked]).sum().backward()
        for kind, fused in enumerate(self.fused):
            for name, whole in fused.network.named_parameters():
                if whole.grad is None:
                    continue
                for k, _ in asked:
                    own = self.networks[k][kind].get_parameter(name)
                    own.grad = fused.own(whole.grad, k).view_as(own)
                whole.grad = None
        return [None] * len(asked)


class Replica(Solo):
    """One loop of a crew."""

    def __init__(self, crew: _Crew, k: int) -> None:
        self.crew, self.k = crew, k

    def forward(self, network: nn.Module, x: Tensor) -> Tensor:
        kinds = [i for i, own in enumerate(self.crew.networks[self.k]) if own is network]
        if not kinds:
            return network(x)
        (kind,) = kinds
        device = x.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        settings = (kind, network.training, torch.is_grad_enabled(), precision)
        return meet(
            ("forward", id(self.crew), *settings, tuple(x.shape[1:])),
            _Asked(self.k, x),
            lambda asked: self.crew.passes(*settings, asked),
        )

    def optimiser(self, network: nn.Module, descent: Descent) -> Optimiser:
        """Over the network's own parameters, which are views of the fused ones already."""
        return descent.listed(list(network.parameters()))

    def backward(self, loss: Tensor) -> None:
        meet(("backward", id(self.crew)), (self.k, loss), self.crew.gradients)


def _padded(x: Tensor, length: int) -> Tensor:
    if len(x) == length:
        return x
    return torch.cat([x, x.new_zeros((length - len(x), *x.shape[1:]))])


def join(networks: Sequence[nn.Module]) -> Solo:
    """A place in a crew for the loop that trains these networks (say a classifier and a policy).

    Inside `imaging_core.rendezvous.together` the loops that join at once with networks of the
    same structure make a crew; outside it, and alone, the networks are asked as they are.
    """
    if not meeting():
        return Solo()
    return meet(("join", *(structure(network) for network in networks)), networks, _enlist)


def _enlist(crews: list[Sequence[nn.Module]]) -> list[Solo | Alone]:
    if len(crews) == 1:
        return [Alone(Solo())]
    crew = _Crew(crews)
    return [Replica(crew, k) for k in range(len(crews))]
