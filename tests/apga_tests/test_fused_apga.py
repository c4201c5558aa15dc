"""The second phase of several seeds as one network: the same networks as each seed alone."""

import pytest
import torch

from apga_core.arms import Pixels, build_arm
from apga_core.config import PRESETS, APGAConfig
from apga_core.learner import Learner
from apga_core.networks import build_policy
from imaging_core.classifiers import build_classifier
from imaging_core.fused_steps import join
from imaging_core.rendezvous import together, widest
from imaging_core.seeding import torch_generator

SIDE, BATCH, STEPS = 16, 8, 3


def phase(seed: int, method: str, positives: int = 4):
    """A few steps of both networks on noise; the last batch has `positives` positive images."""
    config = APGAConfig(**{**PRESETS["demo"], "method": method, "grid": 4, "samples": 2})
    net = {"channels": 1, "generator": torch_generator(seed, "net")}
    classifier = build_classifier("tiny-resnet", classes=2, size=SIDE, **net)
    policy = None
    if method != "baseline_matched":
        policy = build_policy("coarse-unet", grid=4, initial_bias=0.0, weights_path="", **net)
    learner = Learner(
        classifier,
        learning_rate=1e-3,
        weight_decay=1e-4,
        precision="float32",
        runner=join([classifier] if policy is None else [classifier, policy]),
    )
    arm = build_arm(
        config,
        learner,
        base=classifier,
        policy=policy,
        pixels=Pixels(mean=torch.tensor([0.5]), std=torch.tensor([0.2])),
        classes=2,
        generator=torch_generator(seed, "arm"),
    )
    draws = torch_generator(seed, "images")
    losses = []
    for step in range(STEPS):
        images = torch.randn(BATCH, 1, SIDE, SIDE, generator=draws)
        count = positives if step == STEPS - 1 else BATCH // 2
        labels = (torch.arange(BATCH) < count).long()
        losses.append(learner.update(images, labels))
        arm.second_step(images, labels, losses[-1])
    states = [*classifier.state_dict().values()]
    states += [] if policy is None else [*policy.state_dict().values()]
    return torch.stack(losses), states, learner.steps, arm.policy_steps, widest()


LONGER = [pytest.param(name, marks=pytest.mark.slow) for name in ("random_mask", "end2end")]


@pytest.mark.parametrize("method", ["apga", "baseline_matched", *LONGER])
def test_fused_seeds_are_separate_seeds(method):
    positives = (4, 2, 0)  # the third seed's last batch has nothing that its policy learns from
    calls = [lambda s=s, n=n: phase(s, method, n) for s, n in enumerate(positives)]
    apart = [call() for call in calls]
    fused = together(calls, width=3)
    assert [found[-1] for found in fused] == [3, 3, 3]
    assert [found[-1] for found in apart] == [1, 1, 1]
    assert not torch.allclose(apart[0][0], apart[1][0])
    for ours, own in zip(fused, apart, strict=True):
        assert ours[2:4] == own[2:4]
        torch.testing.assert_close(ours[0], own[0], rtol=1e-3, atol=1e-4)
        for a, b in zip(ours[1], own[1], strict=True):
            torch.testing.assert_close(a, b, rtol=5e-3, atol=2e-3)
