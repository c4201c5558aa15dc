"""The policy's networks: each image for itself, and the decoder's fast form."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_arms import batch, policy

from apga_core.networks import decode
from imaging_core.fields import ConfigError
from imaging_core.seeding import torch_generator


@pytest.mark.parametrize(("name", "grid"), [("small-unet", 0), ("coarse-unet", 8)])
def test_an_images_mask_does_not_depend_on_its_batch(name, grid):
    images, _ = batch()
    net = policy(grid, name=name).train()
    side = grid or 32
    assert net(images).shape == (8, 1, side, side)
    torch.testing.assert_close(net(images)[:1], net(images[:1]), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_decode_is_upsampling_concatenation_and_the_block_with_their_gradients(layout):
    generator = torch_generator(0, "decode")
    shapes = (2, 5, 6, 4), (2, 3, 12, 8), (4, 8, 3, 3)
    small, skip, weight = (
        torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes
    )
    convolution = torch.nn.Conv2d(8, 4, 3, padding=1, bias=False, dtype=torch.float64)
    convolution.weight.data.copy_(weight)
    block = torch.nn.Sequential(convolution, torch.nn.ReLU()).to(memory_format=layout)
    inputs = [x.contiguous(memory_format=layout).requires_grad_() for x in (small, skip)]
    large = F.interpolate(inputs[0], scale_factor=2, mode="nearest")
    plain = block(torch.cat([large, inputs[1]], dim=1))
    ours = decode(block, *inputs)
    torch.testing.assert_close(ours, plain)
    leaves = [*inputs, convolution.weight]
    for own, torchs in zip(
        torch.autograd.grad(ours.square().sum(), leaves),
        torch.autograd.grad(plain.square().sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(own, torchs)


def test_initial_bias_sets_where_p_starts():
    images, _ = batch()
    with torch.no_grad():
        p = torch.sigmoid(policy(bias=-2.0)(images))
    assert float(p.mean()) == pytest.approx(1 / (1 + math.e**2), abs=0.05)


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match=r'unknown policy_network "small-unt".*"small-unet"'):
        policy(name="small-unt")


@pytest.mark.slow
def test_the_papers_policy_gives_a_logit_per_pixel():
    net = policy(grid=0, name="unet-vgg11")
    assert net(torch.zeros(1, 1, 64, 64)).shape == (1, 1, 64, 64)
