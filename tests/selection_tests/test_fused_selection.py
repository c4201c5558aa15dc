"""Rewards that are computed side by side: the same rewards and the same counts as one by one."""

import numpy as np
import pytest
import torch
from torch.nn import BatchNorm2d

from imaging_core.classifiers import build_classifier
from imaging_core.fitting import FitConfig
from imaging_core.rendezvous import together, widest
from imaging_core.seeding import torch_generator
from selection_core.environment import ClassifierReward
from selection_core.policy_training import _rewards


def environment(seed: int = 0) -> ClassifierReward:
    """Twenty real images and a pool of forty, two noisy classes, in float64."""
    draws = torch_generator(seed, "images")
    images = torch.randn(100, 1, 8, 8, generator=draws).double()
    labels = (images.mean(dim=(1, 2, 3)) > 0).long()
    initial = build_classifier(
        "tiny-resnet", channels=1, classes=2, size=8, generator=torch_generator(seed, "net")
    ).double()
    for layer in initial.modules():
        if isinstance(layer, BatchNorm2d):
            layer.momentum = 0.3
    return ClassifierReward(
        initial,
        real=(images[:20], labels[:20]),
        pool=(images[20:60], labels[20:60]),
        validation=(images[60:], labels[60:]),
        fit_config=FitConfig(
            epochs=1, batch_size=8, learning_rate=5e-3, optimiser="adamw", schedule="onecycle",
            weight_decay=1e-4, patience=0, min_steps=12, augment="none",
        ),
        statistic="mean",
        metric="log_likelihood",
        seed=seed,
    )  # fmt: skip


@pytest.mark.parametrize("episode", ["pass", "batch"])
def test_the_rewards_of_an_iteration_are_those_of_separate_trainings(episode):
    actions = torch.rand(2, 2, 20, generator=torch_generator(3, "draws")) < 0.5

    def ask(env: ClassifierReward, order: list):
        def reward(selection: np.ndarray) -> float:
            order.append(int(selection.sum()))
            return env.reward(selection.ravel())

        return lambda: (_rewards(actions.float(), reward, episode, True), widest())

    alone, fused, asked, asked_fused = environment(), environment(), [], []
    expected, width = ask(alone, asked)()
    assert width == 1
    ((found, width),) = together([ask(fused, asked_fused)], width=8)
    assert width == len(asked) == (2 if episode == "pass" else 4)
    assert len(set(asked)) > 1  # trainings of different lengths
    assert asked_fused == asked
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert (fused.trainings, fused.steps) == (alone.trainings, alone.steps)
