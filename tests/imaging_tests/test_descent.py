"""Steps on one tensor: bit for bit those of torch's optimisers, and never on a network it lost."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from imaging_core.classifiers import build_classifier
from imaging_core.descent import Descent, FlatOptimiser
from imaging_core.seeding import torch_generator

STEPS = 40


def network() -> nn.Module:
    net = build_classifier(
        "tiny-resnet", channels=1, classes=2, size=16, generator=torch_generator(0, "net")
    )
    return net.to(memory_format=torch.channels_last)


def descend(net: nn.Module, optimiser) -> list[torch.Tensor]:
    draws = torch_generator(0, "images")
    for step in range(STEPS):
        x = torch.randn(8, 1, 16, 16, generator=draws)
        optimiser.zero_grad()
        functional.cross_entropy(net(x), torch.arange(8) % 2).backward()
        optimiser.learning_rate = 1e-3 * (1 + step)
        for group in getattr(optimiser, "param_groups", []):
            group["lr"] = optimiser.learning_rate
        optimiser.step()
    return [p.detach() for p in net.parameters()]


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_the_steps_are_those_of_torch_bit_for_bit(kind, weight_decay):
    one, other = network(), network()
    descent = Descent(kind=kind, learning_rate=1e-3, weight_decay=weight_decay)
    flat = descend(one, FlatOptimiser(one.parameters(), descent))
    listed = descend(other, descent.listed(list(other.parameters())))
    assert all(torch.equal(a, b) for a, b in zip(flat, listed, strict=True))
    assert not torch.equal(flat[0], next(network().parameters()))


def test_parameters_keep_values_shapes_and_memory_format():
    net = network()
    before = copy.deepcopy(net)
    FlatOptimiser(net.parameters(), Descent(kind="adam", learning_rate=1e-3))
    for own, old in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(own, old)
        assert own.stride() == old.stride() == own.grad.stride()
    storages = {p.untyped_storage().data_ptr() for p in net.parameters()}
    assert len(storages) == 2  # the one tensor, and the two biases that fill no vector


def test_what_requires_no_gradient_is_left_alone():
    net = network()
    net.trunk[0].weight.requires_grad = False
    place, old = net.trunk[0].weight.data_ptr(), net.trunk[0].weight.clone()
    descend(net, FlatOptimiser(net.parameters(), Descent(kind="adam", learning_rate=1e-3)))
    assert net.trunk[0].weight.data_ptr() == place
    assert torch.equal(net.trunk[0].weight, old)


def _moved(net: nn.Module) -> None:
    for parameter in net.parameters():
        parameter.data = parameter.data.clone()


def _without_gradients(net: nn.Module) -> None:
    net.zero_grad(set_to_none=True)


def _bias_without_gradient(net: nn.Module) -> None:
    net.head.bias.grad = None


@pytest.mark.parametrize("change", [_moved, _without_gradients, _bias_without_gradient])
def test_a_network_that_slipped_away_is_refused(change):
    net = network()
    optimiser = FlatOptimiser(net.parameters(), Descent(kind="adam", learning_rate=1e-3))
    change(net)
    with pytest.raises(RuntimeError, match="moved, or their gradients replaced, after the optim"):
        optimiser.step()


def test_loading_a_state_is_no_move():
    net = network()
    optimiser = FlatOptimiser(net.parameters(), Descent(kind="adam", learning_rate=1e-3))
    net.load_state_dict({name: 2 * value for name, value in net.state_dict().items()})
    optimiser.step()


def test_nothing_to_learn_and_mixed_types_are_refused():
    descent = Descent(kind="sgd", learning_rate=1e-3)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="got none that requires a gradient"):
        FlatOptimiser(frozen.parameters(), descent)
    mixed = [nn.Parameter(torch.zeros(8)), nn.Parameter(torch.zeros(8, dtype=torch.float64))]
    with pytest.raises(ValueError, match=r"got torch.float32 on cpu, torch.float64 on cpu"):
        FlatOptimiser(mixed, descent)
