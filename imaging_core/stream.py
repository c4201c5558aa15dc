"""Batches of a fit that keep common random numbers when the images are a choice from a list.

Two classifiers trained on two selections are to differ by the selections and not by luck. Every
image of the whole list has a key for each pass, drawn whether it is chosen or not; the chosen ones
are read in the order of their keys, pass after pass, and cut into batches of one size. So images
that two selections share come in the same order in both, and every selection, of whatever size,
makes the same number of steps on batches of the same size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Which images of which list a fit reads, and for how long.

    Attributes:
        groups: lengths of the parts of the whole list (real images, pool); the keys of a part do
            not depend on whether another one follows.
        members: (N,) int64 on the CPU, the places of the fit's images in the whole list.
        steps: optimiser steps, in `parts` parts of equal length, after each of which validation is
            looked at.
    """

    groups: tuple[int, ...]
    members: Tensor
    steps: int
    parts: int

    def __post_init__(self) -> None:
        if not 1 <= self.parts <= self.steps:
            raise ValueError(
                f"a fit has at least as many steps as parts, got {self.steps} steps in "
                f"{self.parts} parts"
            )

    def batches(self, batch_size: int, keys: "Draws") -> Iterator[list[Tensor]]:
        """For each part its batches, each (batch_size,) rows of the fit's own images."""
        waiting = torch.empty(0, dtype=torch.int64)
        for part in range(self.parts):
            made = []
            first, after = (self.steps * p // self.parts for p in (part, part + 1))
            for _ in range(after - first):
                while len(waiting) < batch_size:
                    order = keys.uniform()[self.members].argsort(stable=True)
                    waiting = torch.cat([waiting, order])
                made.append(waiting[:batch_size])
                waiting = waiting[batch_size:]
            yield made


class Draws:
    """Uniform numbers for every image of the whole list, from a generator for each of its parts.

    `rows` are the images of the present batch, as places in the whole list: `uniform(3)` then is
    (batch, 3), and an image's numbers do not depend on what else is in the batch. `own` are the
    generators that numbers are drawn from.
    """

    def __init__(self, groups: Sequence[int], generator: Generator):
        self.groups = groups
        self.rows: Tensor | None = None
        # Drawn one by one, or the first seed would depend on how many there are.
        seeds = [int(torch.randint(2**62, (1,), generator=generator)) for _ in groups]
        self.own = [Generator().manual_seed(seed) for seed in seeds]

    def uniform(self, *shape: int) -> Tensor:
        """(images, *shape) in [0, 1): of the whole list, or of `rows`."""
        every = torch.cat(
            [
                torch.rand(count, *shape, generator=own)
                for count, own in zip(self.groups, self.own, strict=True)
            ]
        )
        return every if self.rows is None else every[self.rows]


def by_key(groups: Sequence[int], generator: Generator) -> tuple[Draws, Draws]:
    """The keys of the batch order and the draws of the augmentation, each a stream of its own."""
    first = [Generator().manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
             for _ in range(2)]  # fmt: skip
    return Draws(groups, first[0]), Draws(groups, first[1])
