"""Shapes, matched sizes, what order and positions may change, and PPO's first ratio."""

import pytest
import torch

from imaging_core.classifiers import parameter_count
from imaging_core.fields import build
from imaging_core.seeding import torch_generator
from selection_core import objectives as obj
from selection_core.config import SelectionConfig
from selection_core.controllers import (
    CONTROLLERS,
    build_controller,
    candidate_inputs,
    sinusoidal_positions,
)

SMALL = {"controller_width": 16, "controller_feedforward": 32}
SEQUENCE = ("gru", "gru_attention", "transformer")


def _controller(name, inputs=12, seed=0, **fields):
    config = build(SelectionConfig, {**SMALL, **fields, "controller": name})
    return build_controller(config, inputs=inputs, generator=torch_generator(seed, "c"))


def _stirred(name, **fields):
    """A controller whose heads are no longer zero."""
    controller = _controller(name, **fields)
    generator = torch_generator(1, "heads")
    with torch.no_grad():
        for head in (controller.policy, controller.value):
            head.weight.copy_(torch.randn(head.weight.shape, generator=generator))
    return controller


@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_candidate_starts_at_one_half_and_value_at_zero(name):
    x = torch.randn(3, 10, 12, generator=torch_generator(0, "x"))
    logits, value = _controller(name)(x)
    assert logits.shape == (3, 10, 2)
    assert value.shape == (3,)
    assert torch.equal(obj.keep_probability(logits), torch.full((3, 10), 0.5))
    assert torch.equal(value, torch.zeros(3))


@pytest.mark.parametrize("inputs", [12, 130, 1026])
@pytest.mark.parametrize("width", [16, 64])
def test_parameter_counts_match_within_20_percent(inputs, width):
    counts = {
        name: parameter_count(_controller(name, inputs=inputs, controller_width=width))
        for name in SEQUENCE
    }
    assert max(counts.values()) <= 1.2 * min(counts.values()), counts


def test_without_matching_the_state_is_the_width():
    assert _controller("gru", controller_match="off").recurrent.hidden_size == 16


@pytest.mark.parametrize(("name", "changes"), [("gru", False), ("gru_attention", True)])
def test_attention_lets_a_gru_see_later_candidates(name, changes):
    controller = _stirred(name)
    x = torch.randn(1, 10, 12, generator=torch_generator(0, "x"))
    later = x.clone()
    later[0, 9] += 1
    moved = not torch.equal(controller(x)[0][0, 0], controller(later)[0][0, 0])
    assert moved == changes


@pytest.mark.parametrize(("positions", "equivariant"), [("off", True), ("on", False)])
def test_only_positions_tell_a_transformer_the_order(positions, equivariant):
    controller = _stirred("transformer", positions=positions)
    x = torch.randn(1, 10, 12, generator=torch_generator(0, "x"))
    swap = torch.randperm(10, generator=torch_generator(0, "swap"))
    same = torch.allclose(controller(x[:, swap])[0], controller(x)[0][:, swap], atol=1e-5)
    assert same == equivariant


def test_sinusoidal_positions_literals():
    table = sinusoidal_positions(2, 4)
    assert table[0].tolist() == [0, 1, 0, 1]
    expected = [0.841471, 0.540302, 0.009999833, 0.99995]  # sin and cos of 1 and of 1/100
    assert table[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_candidate_inputs_literals():
    f = torch.tensor([[2.0, 3.0], [5.0, 7.0]])
    y = torch.tensor([0, 1])
    assert candidate_inputs(f, y, 2, "off").tolist() == f.tolist()
    assert candidate_inputs(f, y, 2, "embedding").tolist() == [[2, 3, 1, 0], [5, 7, 0, 1]]
    crossed = [[2, 3, -2, -3, 1, 0], [5, 7, 5, 7, 0, 1]]
    assert candidate_inputs(f, y, 2, "crossed").tolist() == crossed
    many = candidate_inputs(f, torch.tensor([0, 2]), 3, "crossed")
    assert many[1].tolist() == [5, 7, 0, 0, 5, 0, 0, 7, 0, 0, 1]


@pytest.mark.parametrize("name", CONTROLLERS)
def test_ratio_is_exactly_one_before_the_first_update(name):
    """The stored log-probability and the first epoch's are the same bits."""
    controller = _stirred(name)
    x = torch.randn(4, 10, 12, generator=torch_generator(0, "x"))
    actions = torch.randint(0, 2, (4, 10), generator=torch_generator(0, "a"))
    with torch.no_grad():
        stored = obj.log_prob(controller(x)[0], actions)
    first = obj.log_prob(controller(x)[0], actions)
    assert torch.equal((first - stored).exp(), torch.ones(4, 10))


def test_only_gru_attention_has_parameters_of_its_own_rate():
    assert len(_controller("gru_attention").attention_parameters()) == 3
    assert _controller("transformer").attention_parameters() == []
