"""What a long training leaves so that a killed one goes on where it stood, with the same bits.

Work is nested: a cell trains a controller, whose reward trains a classifier. Each level is a
section that can say its state; a checkpoint holds the state of every section that is open. Who
keeps it, where and how often, is not a core's business.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor, nn

from imaging_core.state_arrays import arrays_of, load_arrays
from imaging_core.task import Arrays


class Checkpoint(Protocol):
    """Where the state of a computation goes, and comes from."""

    def section(
        self, name: str, state: Callable[[], Arrays]
    ) -> contextlib.AbstractContextManager[Arrays | None]:
        """While the block runs, a checkpoint holds `state()` too.

        Args:
            name: of the section; those around it are part of its full name.
            state: everything that the rest of the block depends on, as it is at a `tick`.

        Returns:
            A context that yields what a killed attempt left for the first section of this name, in
            the sections around it; None where it left nothing.
        """
        ...

    def tick(self) -> None:
        """The work may be cut here: every open section's state is whole. Saves if it is time."""
        ...


class NoCheckpoint:
    """Keeps nothing."""

    @contextlib.contextmanager
    def section(self, name: str, state: Callable[[], Arrays]) -> Iterator[Arrays | None]:
        """Nothing was left."""
        yield None

    def tick(self) -> None:
        """Nothing."""


NO_CHECKPOINT = NoCheckpoint()


def under(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    """The arrays whose names begin with `prefix/`, without it."""
    start = f"{prefix}/"
    return {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}


def prefixed(prefix: str, arrays: Mapping[str, np.ndarray]) -> Arrays:
    """The inverse of `under`."""
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def array_of(tensor: Tensor) -> np.ndarray:
    """A copy on the host, which training does not change."""
    return np.array(tensor.detach().cpu().numpy(), order="C")


def host_copies(tensors: Mapping[str, Tensor]) -> Arrays:
    """Copies on the host."""
    return {name: array_of(value) for name, value in tensors.items()}


def tensors_of(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The inverse of `host_copies`, on the CPU."""
    return {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}


def state_of_modules(modules: Sequence[nn.Module]) -> Arrays:
    """`<place>/<name>` → array of what each module has learnt."""
    found: Arrays = {}
    for place, module in enumerate(modules):
        found |= prefixed(str(place), arrays_of(module))
    return found


def load_modules(modules: Sequence[nn.Module], arrays: Arrays) -> None:
    """Put back what `state_of_modules` said, in place."""
    for place, module in enumerate(modules):
        load_arrays(module, under(arrays, str(place)))


def state_of_optimiser(optimiser: torch.optim.Optimizer) -> Arrays:
    """`<parameter>/<name>` → array of the moments that torch's optimiser keeps."""
    return {
        f"{index}/{name}": array_of(value)
        for index, values in optimiser.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None
    }


def load_optimiser(optimiser: torch.optim.Optimizer, arrays: Arrays) -> None:
    """Put back what `state_of_optimiser` said."""
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors_of(arrays).items():
        index, _, name = key.partition("/")
        if name == "step":
            value = tensor.reshape(())
        else:  # in the parameter's own memory format, which torch's fused steps take for granted
            value = torch.empty_like(parameters[int(index)]).detach().copy_(tensor)
        state.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def state_of_generators(generators: Sequence[Generator]) -> Arrays:
    """`<place>` → the state of each generator."""
    return {str(place): g.get_state().numpy().copy() for place, g in enumerate(generators)}


def load_generators(generators: Sequence[Generator], arrays: Arrays) -> None:
    """Put back what `state_of_generators` said."""
    for place, generator in enumerate(generators):
        generator.set_state(torch.from_numpy(np.array(arrays[str(place)])))


def numbers(values: Sequence[float]) -> np.ndarray:
    """(N,) float64."""
    return np.asarray(list(values), dtype=np.float64)
