"""How long a classifier is trained, and in which order: the same for every selection."""

import numpy as np
import torch

from imaging_core.fitting import FitConfig, batches_of, planned_epochs
from imaging_core.stream import Stream


def chosen_stream(
    config: FitConfig, updates: int, groups: tuple[int, ...], members: np.ndarray
) -> Stream:
    """The order of a fit on `members` of the real images and the pool.

    Args:
        updates: optimiser steps, in `config.epochs` parts; 0: as many as so many passes make.
        groups: how many real images and how many candidates there are.
        members: (N,) places among both, real images first.
    """
    steps, parts = updates, config.epochs
    if not updates:
        parts = planned_epochs(config, len(members))
        steps = parts * len(batches_of(len(members), config.batch_size))
    return Stream(groups=groups, members=torch.from_numpy(members), steps=steps, parts=parts)
