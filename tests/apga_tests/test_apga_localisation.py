"""End to end on planted patches: what the policy ranks first is what the classifier needs."""

import functools

import numpy as np
import pytest
import torch

from apga_core import localisation, masking
from apga_core.arms import Pixels, PolicyArm
from apga_core.config import APGAConfig
from apga_core.learner import Learner
from apga_core.networks import build_policy
from imaging_core.classifiers import build_classifier
from imaging_core.fitting import FitConfig, fit
from imaging_core.seeding import torch_generator

CONFIG = APGAConfig(
    policy_network="coarse-unet",
    policy_learning_rate=5e-3,
    sampling="bernoulli-grid",
    grid=8,
    samples=4,
    reward_baseline="leave-one-out",
    advantage_scale="running-rms",
    reward_images="positives",
    lambda_zeros=0.05,
    erase_value="blur",
    initial_bias=-1.0,
)
PIXELS = Pixels(mean=torch.tensor([0.5]), std=torch.tensor([0.2]))


class Flipped(PolicyArm):
    """The twin that learns from −R."""

    def _descend(self, logits, erased, reward):
        super()._descend(logits, erased, -reward)


class Shuffled(PolicyArm):
    """The twin whose rewards belong to other actions and images."""

    def _descend(self, logits, erased, reward):
        order = torch.randperm(reward.numel(), generator=self.generator)
        super()._descend(logits, erased, reward.flatten()[order].view_as(reward))


def top_pixels(scores: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W) 0/1: the `counts` (N,) highest pixels of each (N, H, W) map."""
    flat = scores.flatten(1)
    rank = flat.argsort(dim=1, descending=True).argsort(dim=1)
    return (rank < counts.view(-1, 1)).to(scores.dtype).view(len(scores), 1, *scores.shape[1:])


@functools.cache
def planted():
    """Noise, and on positives a 6 × 6 patch anywhere, darker or brighter: images, labels, truth."""
    rng = np.random.default_rng(0)
    count = 500
    images = 0.5 * rng.standard_normal((count, 1, 32, 32)).astype(np.float32)
    labels = np.arange(count) % 2
    truth = np.zeros((count, 32, 32), dtype=bool)
    for row in np.flatnonzero(labels):
        y, x = rng.integers(1, 25, size=2)
        truth[row, y : y + 6, x : x + 6] = True
        images[row, 0, y : y + 6, x : x + 6] += rng.choice([-1.5, 1.5])
    return torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(truth)


@functools.cache
def learner() -> Learner:
    images, labels, _ = planted()
    net = build_classifier(
        "tiny-resnet", channels=1, classes=2, size=32, generator=torch_generator(0, "net")
    )
    fit(
        net, images[:400], labels[:400], generator=torch_generator(0, "fit"), keep_best=False,
        config=FitConfig(
            epochs=5, batch_size=50, learning_rate=3e-3, optimiser="adam", schedule="onecycle",
            weight_decay=0.0, patience=0, min_steps=0, augment="flips",
        ),
    )  # fmt: skip
    return Learner(net, learning_rate=1e-3, weight_decay=0.0, precision="float32")


@functools.cache
def found(kind: type[PolicyArm], steps: int = 60) -> dict[str, float]:
    """Rewards of the top-ranked pixels and of patches as large elsewhere, on unseen positives."""
    images, labels, truth = planted()
    generator = torch_generator(0, "policy")
    policy = build_policy(
        "coarse-unet", channels=1, grid=8, initial_bias=CONFIG.initial_bias,
        generator=generator,
    )  # fmt: skip
    arm = kind(CONFIG, policy, learner(), pixels=PIXELS, classes=2, generator=generator)
    for _ in range(steps):
        rows = torch.randperm(400, generator=generator)[:50]
        arm.learn(images[rows], labels[rows])
    positive = torch.arange(401, 500, 2)
    x, y, lesion = images[positive], labels[positive], truth[positive]
    fill = PIXELS.fill(CONFIG, x)
    p = arm.importance(x)
    scores = torch.from_numpy(localisation.over_pixels(p, (32, 32)))
    top = top_pixels(scores, lesion.sum(dim=(1, 2)))
    random = masking.shift_masks(top, generator)
    rewards = [
        float(localisation.reward_of_erasing(arm.learner.losses, x, y, mask, fill).mean())
        for mask in (top, random)
    ]
    return {
        "top": rewards[0],
        "random": rewards[1],
        "iou": localisation.lesion_iou(scores.numpy(), lesion.numpy()),
        "random_iou": localisation.lesion_iou(random[:, 0].numpy(), lesion.numpy()),
        "auroc": localisation.lesion_auroc(scores.numpy(), lesion.numpy()),
        "inside": float(scores[lesion].mean() - scores[~lesion].mean()),
    }


@pytest.mark.long
def test_top_ranked_pixels_are_worth_five_times_a_random_patch():
    result = found(PolicyArm)
    assert result["top"] > 5 * max(result["random"], 0.05), result
    assert result["inside"] > 0
    assert result["iou"] > 2 * result["random_iou"]
    assert result["auroc"] > 0.8


@pytest.mark.slow  # two more trainings
@pytest.mark.parametrize("twin", [Flipped, Shuffled])
def test_the_twins_do_not_find_it(twin):
    """The same run with the reward flipped or shuffled stays below what the true reward finds."""
    result, true = found(twin), found(PolicyArm)
    assert result["top"] < 0.5 * true["top"], result
    assert result["top"] <= 5 * max(result["random"], 0.05), result
    assert result["iou"] < 0.5 * true["iou"]
    assert result["auroc"] < true["auroc"] - 0.1
