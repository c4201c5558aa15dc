import copy

import pytest
import torch
from torchvision import models

from imaging_core.classifiers import (
    CLASSIFIERS,
    PointwiseConv2d,
    build_classifier,
    parameter_count,
)
from imaging_core.fields import ConfigError
from imaging_core.seeding import torch_generator


def build(name, *, channels=1, classes=2, size=32, seed=0):
    return build_classifier(
        name,
        channels=channels,
        classes=classes,
        size=size,
        generator=torch_generator(seed, "weights"),
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "channels", "size", "feature_dim", "map_side"),
    [
        ("small-resnet", 1, 32, 64, 4),
        ("tiny-resnet", 3, 32, 32, 4),
        ("resnet34", 1, 32, 512, 4),
        ("resnet34", 3, 64, 512, 4),
        ("resnet34", 3, 96, 512, 3),
        ("densenet169", 1, 64, 1664, 4),
        ("densenet169", 3, 96, 1664, 3),
    ],
)
def test_shapes(name, channels, size, feature_dim, map_side):
    net = build(name, channels=channels, classes=3, size=size).eval()
    x = torch.rand(2, channels, size, size, generator=torch_generator(0, "x"))
    with torch.no_grad():
        features = net.features(x)
        assert net.feature_map(x).shape == (2, feature_dim, map_side, map_side)
        assert torch.equal(net.head(features), net(x))
    assert features.shape == (2, feature_dim)
    assert net.feature_dim == feature_dim
    assert float(features.min()) >= 0


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet34", "densenet169"])
def test_above_64_pixels_it_is_torchvisions_network(name):
    net = build(name, channels=3, classes=5, size=96).eval()
    reference = getattr(models, name)(num_classes=5).eval()
    reference.load_state_dict(
        dict(zip(reference.state_dict(), net.state_dict().values(), strict=True))
    )
    x = torch.rand(2, 3, 96, 96, generator=torch_generator(0, "x"))
    with torch.no_grad():
        torch.testing.assert_close(net(x), reference(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_pointwise_convolution_is_torchs_with_its_gradients(stride, layout):
    ours = PointwiseConv2d(3, 5, 1, stride, bias=False, dtype=torch.float64)
    torchs = torch.nn.Conv2d(3, 5, 1, stride, bias=False, dtype=torch.float64)
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 7, 4, generator=torch_generator(0, "x"), dtype=torch.float64)
    x = x.contiguous(memory_format=layout).requires_grad_()
    torch.testing.assert_close(ours(x), torchs(x))
    for convolution in (ours, torchs):
        convolution(x).square().sum().backward()
    torch.testing.assert_close(ours.weight.grad, torchs.weight.grad)
    own = torch.autograd.grad(ours(x).square().sum(), x)
    torch.testing.assert_close(own, torch.autograd.grad(torchs(x).square().sum(), x))


@pytest.mark.parametrize("name", ["tiny-resnet", "small-resnet"])
def test_the_small_networks_are_torchs_own_layers_one_after_the_other(name):
    """Shortcuts as products and statistics folded into weights change rounding alone."""
    net = build(name, size=(18, 31))
    plain = copy.deepcopy(net)
    for layer in plain.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.__class__ = torch.nn.Conv2d
    x = torch.randn(6, 1, 18, 31, generator=torch_generator(0, "x"))
    for model in (net, plain):
        model(x).square().sum().backward()  # in training mode: moves the statistics too
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    folded = net.eval()
    with torch.no_grad():
        quick = folded(x)
    unfolded = plain.eval()(x)  # with gradients nothing is folded
    assert unfolded.requires_grad
    torch.testing.assert_close(quick, unfolded.detach(), rtol=1e-4, atol=1e-4)


def test_weights_come_from_the_generator_alone():
    first = build("small-resnet").state_dict()
    torch.rand(3)  # moves the global generator
    second = build("small-resnet").state_dict()
    other = build("small-resnet", seed=1).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


def test_parameter_counts():
    assert parameter_count(build("tiny-resnet")) == 19_546
    assert parameter_count(build("small-resnet")) == 77_234
    assert parameter_count(torch.nn.Linear(3, 2)) == 8


def test_an_unknown_name_gets_the_nearest_spelling():
    with pytest.raises(ConfigError, match='unknown classifier "resnet43"; did you mean "resnet34"'):
        build("resnet43")
    assert set(CLASSIFIERS) == {"resnet34", "small-resnet", "tiny-resnet", "densenet169"}
