"""A network's state as arrays, and back."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from imaging_core.task import Arrays


def arrays_of(network: nn.Module) -> Arrays:
    """A copy of the state dict as arrays on the host; scalars stay scalars."""
    return {
        name: value.detach().cpu().contiguous().numpy().copy()
        for name, value in network.state_dict().items()
    }


def load_arrays(network: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Put back what `arrays_of` copied.

    Raises:
        RuntimeError: the arrays are another network's.
    """
    network.load_state_dict({name: torch.from_numpy(np.array(a)) for name, a in arrays.items()})
