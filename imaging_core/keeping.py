"""Trained networks for whoever wants to keep them: a core offers, the caller collects or does not.

A cell's outcome is its numbers; its networks are large, and most runs throw them away. So a core
only says where they are (`offer`), and nothing is copied unless the caller runs it inside
`keeping()`. What is offered changes nothing that the cell computes. No torch here.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from imaging_core.task import Arrays

_kept: ContextVar[Arrays | None] = ContextVar("kept", default=None)


@contextmanager
def keeping(wanted: bool = True) -> Iterator[Arrays]:
    """What is offered inside, `<group>/<name>` → array; stays empty where it is not `wanted`."""
    found: Arrays = {}
    token = _kept.set(found if wanted else None)
    try:
        yield found
    finally:
        _kept.reset(token)


def wanted() -> bool:
    """Whether anybody keeps what is offered now."""
    return _kept.get() is not None


def offer(group: str, arrays: Callable[[], Mapping[str, np.ndarray]]) -> None:
    """`group`'s arrays, called for if they are kept; of several offers the first counts."""
    found = _kept.get()
    if found is not None and not any(name.startswith(f"{group}/") for name in found):
        found.update({f"{group}/{name}": value for name, value in arrays().items()})


def offered() -> Arrays:
    """What is kept so far; empty where nobody keeps."""
    return dict(_kept.get() or {})


def put_back(arrays: Mapping[str, np.ndarray]) -> None:
    """What a killed attempt at the same work was offered, as `offered` gave it."""
    found = _kept.get()
    if found is not None:
        found.update(arrays)


def group_of(arrays: Mapping[str, np.ndarray], group: str) -> Arrays:
    """What was offered as `group`, by the names it had there; empty where nothing was."""
    head = f"{group}/"
    return {name.removeprefix(head): a for name, a in arrays.items() if name.startswith(head)}


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The networks of one cell, and what using them takes.

    Attributes:
        config: of the core, an instance of its configuration.
        seed: the cell's.
        classes: names, in the order of the probabilities.
        channels, size: of the images, (H, W).
        arrays: `<group>/<name>` → array, the groups being those that the core offers.
    """

    config: Any
    seed: int
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    arrays: Arrays


@dataclass(frozen=True, kw_only=True)
class Applied:
    """What kept networks say of N images.

    Attributes:
        probabilities: (N, classes) float32 of the final classifier.
        importance: (N, H, W) float32 in [0, 1], p of APGA's policy at the images' resolution.
        masked: (N, C, H, W) uint8, the images as the policy's masks leave them.
        keep_probability, keep: (N,) float32, (N,) bool of a controller that was shown the images
            as a pool.
    """

    probabilities: np.ndarray
    importance: np.ndarray | None = None
    masked: np.ndarray | None = None
    keep_probability: np.ndarray | None = None
    keep: np.ndarray | None = None
