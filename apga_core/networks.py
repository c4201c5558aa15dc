"""The policies of Sec. 3: a U-Net that gives every pixel, or cell of a coarse grid, one logit."""

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from apga_core.masking import to_grid
from imaging_core.fields import ConfigError, did_you_mean
from imaging_core.pretrained import load_pretrained
from imaging_core.seeding import initialise


class SmallUNet(nn.Module):
    """A U-Net for 32-64 px: three scales, widths 16-32-64, GroupNorm, no dropout.

    GroupNorm keeps an image's mask independent of the batch it came in, as in the paper's U-Net,
    which has no normalisation at all.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down1 = _double(channels, 16)
        self.down2 = _double(16, 32)
        self.down3 = _double(32, 64)
        self.up2 = _double(64 + 32, 32)
        self.up1 = _double(32 + 16, 16)
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H, W) logits; H and W must be multiples of 4."""
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        third = self.down3(functional.max_pool2d(second, 2))
        second = decode(self.up2, third, second)
        return self.head(decode(self.up1, second, first))


class CoarseUNet(nn.Module):
    """A U-Net whose head sits at a quarter of the resolution, for a grid of side H/4 or less.

    At a finer scale most of the work would only be averaged away; the first convolution has
    stride 2 for the same reason.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stem = _single(channels, 16, stride=2)
        self.down1 = _single(16, 32)
        self.down2 = _double(32, 48)
        self.down3 = _double(48, 48)
        self.up = _double(48 + 48, 48)
        self.head = nn.Conv2d(48, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, H/4, W/4) logits; H and W must be multiples of 8."""
        quarter = self.down2(functional.max_pool2d(self.down1(self.stem(x)), 2))
        eighth = self.down3(functional.max_pool2d(quarter, 2))
        # Not `decode`: at this resolution what it saves is what it costs.
        return self.head(self.up(torch.cat([_double_size(eighth), quarter], dim=1)))


def _single(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
        nn.GroupNorm(4, outputs),
        nn.ReLU(inplace=True),
    )


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(*_single(inputs, outputs), *_single(outputs, outputs))


def _double_size(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")


def decode(block: nn.Sequential, small: Tensor, skip: Tensor) -> Tensor:
    """`block` of `small`, each pixel repeated 2 × 2, and `skip` beside it in the channels.

    On a CPU neither the large copy nor the two side by side are made: a 3 × 3 convolution of
    repeated pixels is a transposed 4 × 4 convolution of the small map, with 4 products for 9.
    """
    convolution, *rest = block
    if small.device.type != "cpu":
        return block(torch.cat([_double_size(small), skip], dim=1))
    of_small, of_skip = convolution.weight.split([small.shape[1], skip.shape[1]], dim=1)
    # Tap k of 4 is the sum of those of the 3 that fall on one small pixel.
    taps = 4 * functional.avg_pool2d(of_small, 2, stride=1, padding=1)
    x = functional.conv_transpose2d(small, taps.flip(2, 3).transpose(0, 1), stride=2, padding=1)
    x = x + functional.conv2d(skip, of_skip, convolution.bias, padding=1)
    for layer in rest:
        x = layer(x)
    return x


def _vgg11_unet(channels: int) -> nn.Module:
    # Here: the import takes a second, and a worker with a small policy needs none of it.
    from segmentation_models_pytorch import Unet

    return Unet("vgg11", encoder_weights=None, decoder_use_norm=False, in_channels=channels)


POLICIES = {"small-unet": SmallUNet, "coarse-unet": CoarseUNet, "unet-vgg11": _vgg11_unet}


class Policy(nn.Module):
    """Importance logits of standardised images (B, C, H, W).

    Args:
        grid: cells per side of the actions; 0 = one per pixel.
    """

    def __init__(self, network: nn.Module, grid: int) -> None:
        super().__init__()
        self.network = network
        self.grid = grid

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, grid, grid) logits, or (B, 1, H, W) with grid 0; p = sigmoid of them."""
        return to_grid(self.network(images), self.grid)


def _last_convolution(network: nn.Module) -> nn.Conv2d:
    return [m for m in network.modules() if isinstance(m, nn.Conv2d)][-1]


def build_policy(
    name: str,
    *,
    channels: int,
    grid: int,
    initial_bias: float,
    weights: Path | None = None,
    generator: torch.Generator,
) -> Policy:
    """The policy `name`, its weights from `generator`, or from a file where one is named.

    `unet-vgg11` is TernausNet's family (a U-Net on a VGG-11 encoder) from
    segmentation-models-pytorch; TernausNet's decoder upsamples by transposed convolutions and ends
    at 32 channels, this one by repetition at 16, so the published Carvana weights do not fit it.
    `initial_bias` is that of the last layer: every p starts near sigmoid(initial_bias). `weights`
    is a file (`imaging_core.pretrained.weights_file`), by torchvision's names or our own.

    Raises:
        ConfigError: an unknown name, or weights that do not fit.
    """
    if name not in POLICIES:
        raise ConfigError(
            f'unknown policy_network "{name}"{did_you_mean(name, POLICIES)} '
            f"(known: {', '.join(POLICIES)})"
        )
    network = initialise(POLICIES[name](channels), generator)
    last = _last_convolution(network)
    # He initialisation by fan-out (one channel) would start p at 0 or 1 at random.
    bound = 1 / math.sqrt(last.weight[0].numel())
    nn.init.uniform_(last.weight, -bound, bound, generator=generator)
    nn.init.constant_(last.bias, initial_bias)
    if weights:
        load_pretrained(network, name, weights, field="policy_weights_path")
    return Policy(network, grid)


def policy_shapes(name: str, channels: int) -> dict[str, Tensor]:
    """The state dict of the network `name` without its numbers (meta tensors)."""
    with torch.device("meta"):
        return POLICIES[name](channels).state_dict()
