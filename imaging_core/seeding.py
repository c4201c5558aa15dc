"""Every random stream comes from (seed, name of the component), never from the arm.

Two arms with the same seed therefore share their split, k-shot subset, initial weights and batch
order (common random numbers), which is what makes their differences paired. No global generator
is ever seeded or read.
"""

import hashlib
import math

import numpy as np
import torch
from torch import nn


def derive(seed: int, component: str) -> int:
    """A 63-bit seed for one component: the same on every machine, independent across names."""
    digest = hashlib.sha256(f"{seed}/{component}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(
    seed: int, component: str, device: str | torch.device = "cpu"
) -> torch.Generator:
    """A fresh torch generator for the stream (seed, component)."""
    generator = torch.Generator(device=device)
    generator.manual_seed(derive(seed, component))
    return generator


def numpy_generator(seed: int, component: str) -> np.random.Generator:
    """A fresh numpy generator for the stream (seed, component)."""
    return np.random.default_rng(derive(seed, component))


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw every parameter of `module` again from `generator` (a CPU generator), in place.

    Layers are drawn in the order of `module.modules()`; convolutions get He initialisation
    (fan-out, ReLU), linear, recurrent and attention weights U(−1/√fan_in, 1/√fan_in), embeddings
    N(0, 1), normalisation layers weight 1 and bias 0. A layer of any other kind that has
    parameters of its own is refused, so that none keeps weights from torch's global generator.

    Raises:
        TypeError: a layer with parameters that this function does not know.
    """
    for layer in module.modules():
        own = dict(layer.named_parameters(recurse=False))
        if not own:
            continue
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(
                layer.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
            if layer.bias is not None:
                layer.bias.zero_()
        elif isinstance(layer, nn.Linear | nn.MultiheadAttention | nn.GRU | nn.GRUCell):
            for name, parameter in own.items():
                if "bias" in name:
                    parameter.zero_()
                else:
                    bound = 1 / math.sqrt(parameter.shape[-1])
                    nn.init.uniform_(parameter, -bound, bound, generator=generator)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, generator=generator)
        elif isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
            layer.weight.fill_(1.0)
            layer.bias.zero_()
        else:
            raise TypeError(
                f"initialise() does not know {type(layer).__name__} (parameters: "
                f"{', '.join(own)}); add its rule, or a global generator would draw it"
            )
    return module
