"""The classifiers, by name: each has pooled `features(x)`, `forward(x)` and `feature_dim`."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from imaging_core.fields import ConfigError, did_you_mean
from imaging_core.seeding import initialise


class Classifier(nn.Module):
    """A convolutional trunk, global average pooling and a linear head.

    Args:
        trunk: (B, channels, H, W) → (B, feature_dim, h, w), not negative (it ends in a ReLU).
    """

    def __init__(self, trunk: nn.Module, feature_dim: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(feature_dim, classes)
        self.feature_dim = feature_dim

    def feature_map(self, x: Tensor) -> Tensor:
        """(B, feature_dim, h, w): the last convolutional map, what Grad-CAM reads."""
        return self.trunk(x)

    def features(self, x: Tensor) -> Tensor:
        """(B, feature_dim): the map averaged over its positions."""
        return self.trunk(x).mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """(B, classes) logits of standardised images x (B, channels, H, W)."""
        return self.head(self.features(x))


class PointwiseConv2d(nn.Conv2d):
    """`nn.Conv2d(inputs, outputs, 1, stride, bias=False)`, as a matrix product on a CPU.

    oneDNN's gradients of a strided 1 × 1 convolution take it twice as long at 8 to 64 channels.
    """

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.device.type != "cpu":
            return super()._conv_forward(x, weight, bias)
        # The pixels a stride reads: as a pooling of one pixel, whose gradient is one pass.
        read = functional.avg_pool2d(x, 1, self.stride).permute(0, 2, 3, 1)
        return functional.linear(read, weight.flatten(1), bias).permute(0, 3, 1, 2)


def normalised(convolution: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(convolution(x)); in eval mode without gradients one convolution, scaled and shifted."""
    own = isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    if not own or norm.training or torch.is_grad_enabled():
        return norm(convolution(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    return convolution._conv_forward(x, weight, norm.bias - norm.running_mean * scale)


class Trunk(nn.Sequential):
    """A stem of convolution, batch norm and ReLU, then blocks."""

    def forward(self, x: Tensor) -> Tensor:
        convolution, norm, *rest = self
        x = normalised(convolution, norm, x)
        for layer in rest:
            x = layer(x)
        return x


class ResidualBlock(nn.Module):
    """conv-BN-ReLU-conv-BN plus the shortcut, then ReLU (He et al. 2016, basic block)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                PointwiseConv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(normalised(self.conv1, self.norm1, x), inplace=True)
        out = normalised(self.conv2, self.norm2, out)
        out += x if isinstance(self.shortcut, nn.Identity) else normalised(*self.shortcut, x)
        return functional.relu(out, inplace=True)


def _residual(widths: tuple[int, int, int], channels: int, classes: int, size: int) -> Classifier:
    """A 3×3 stride-2 stem and one residual block per width, the second and third at stride 2."""
    first, second, third = widths
    trunk = Trunk(
        nn.Conv2d(channels, first, 3, 2, 1, bias=False),
        nn.BatchNorm2d(first),
        nn.ReLU(inplace=True),
        ResidualBlock(first, first, 1),
        ResidualBlock(first, second, 2),
        ResidualBlock(second, third, 2),
    )
    return Classifier(trunk, third, classes)


def _stem(channels: int, size: int) -> tuple[nn.Conv2d, bool]:
    """The first convolution of the ImageNet networks for this image size, and: pool after it?

    Above 64 px it is the published one (7×7, stride 2, then max pooling). ImageNet's stem would
    leave a 32-px image one pixel in the last stage, so up to 64 px it is 3×3 without pooling,
    with stride 2 (33 to 64 px) or 1 (up to 32 px).
    """
    if size > 64:
        return nn.Conv2d(channels, 64, 7, 2, 3, bias=False), True
    return nn.Conv2d(channels, 64, 3, 2 if size > 32 else 1, 1, bias=False), False


def _resnet34(channels: int, classes: int, size: int) -> Classifier:
    # Here and below: torchvision takes a second to import, and a worker with a small net needs none
    from torchvision.models import resnet34

    net = resnet34(weights=None)
    stem, pool = _stem(channels, size)
    trunk = nn.Sequential(
        stem,
        net.bn1,
        net.relu,
        net.maxpool if pool else nn.Identity(),
        net.layer1,
        net.layer2,
        net.layer3,
        net.layer4,
    )
    return Classifier(trunk, 512, classes)


def _densenet169(channels: int, classes: int, size: int) -> Classifier:
    from torchvision.models import densenet169

    net = densenet169(weights=None)
    stem, pool = _stem(channels, size)
    net.features.conv0 = stem
    if not pool:
        net.features.pool0 = nn.Identity()
    return Classifier(nn.Sequential(net.features, nn.ReLU(inplace=True)), 1664, classes)


CLASSIFIERS = {
    "resnet34": _resnet34,
    "small-resnet": partial(_residual, (16, 32, 64)),
    "tiny-resnet": partial(_residual, (8, 16, 32)),
    "densenet169": _densenet169,
}


def build_classifier(
    name: str,
    *,
    channels: int,
    classes: int,
    size: int | tuple[int, int],
    generator: torch.Generator,
) -> Classifier:
    """The classifier `name` for images (channels, size, size), its weights from `generator`.

    `resnet34` and `densenet169` are torchvision's, with a stem that fits the image (`_stem`);
    `small-resnet` (16-32-64) and `tiny-resnet` (8-16-32) are for 32 px on a CPU. `size` may be
    (H, W); the shorter side decides on the stem.

    Raises:
        ConfigError: an unknown name.
    """
    if name not in CLASSIFIERS:
        raise ConfigError(
            f'unknown classifier "{name}"{did_you_mean(name, CLASSIFIERS)} '
            f"(known: {', '.join(CLASSIFIERS)})"
        )
    side = size if isinstance(size, int) else min(size)
    return initialise(CLASSIFIERS[name](channels, classes, side), generator)


def classifier_shapes(
    name: str, *, channels: int, classes: int, size: int | tuple[int, int]
) -> dict[str, Tensor]:
    """The state dict of `build_classifier`'s network without its numbers (meta tensors)."""
    side = size if isinstance(size, int) else min(size)
    with torch.device("meta"):
        return CLASSIFIERS[name](channels, classes, side).state_dict()


def parameter_count(module: nn.Module) -> int:
    """How many numbers `module` learns."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
