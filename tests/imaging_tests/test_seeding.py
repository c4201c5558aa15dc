import numpy as np
import pytest
import torch
from torch import nn

from imaging_core.seeding import derive, initialise, numpy_generator, torch_generator


def test_a_stream_is_its_seed_and_name():
    assert derive(0, "order") == derive(0, "order")
    assert len({derive(s, c) for s in range(50) for c in ("order", "weights", "k-shot")}) == 150
    assert 0 <= derive(3, "x") < 2**63
    # on every machine, in every version: a changed value would orphan every committed cell
    assert derive(0, "order") == 5231958647509549229


def test_generators_are_fresh_each_time():
    draws = [torch.rand(3, generator=torch_generator(1, "a")) for _ in range(2)]
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], torch.rand(3, generator=torch_generator(1, "b")))
    first, second = (numpy_generator(1, "a").random(3) for _ in range(2))
    assert np.array_equal(first, second)


def test_initialise_draws_every_parameter():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(float("nan"))
    initialise(net, torch_generator(0, "w"))
    assert all(bool(torch.isfinite(p).all()) for p in net.parameters())
    assert net[3].weight.abs().max().item() <= 0.5
    assert net[0].weight.std().item() == pytest.approx((2 / 36) ** 0.5, rel=0.4)


def test_an_unknown_layer_is_refused():
    with pytest.raises(TypeError, match="does not know PReLU"):
        initialise(nn.Sequential(nn.Linear(2, 2), nn.PReLU()), torch_generator(0, "w"))
