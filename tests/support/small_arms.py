"""APGA's parts at the size of a test: a classifier, a policy, a batch, an arm that trains one."""

import torch

from apga_core.arms import Pixels, PolicyArm
from apga_core.config import APGAConfig
from apga_core.learner import Learner
from apga_core.networks import build_policy
from imaging_core.classifiers import build_classifier
from imaging_core.seeding import torch_generator

PIXELS = Pixels(mean=torch.tensor([0.4]), std=torch.tensor([0.2]))


def classifier(seed=0):
    return build_classifier(
        "tiny-resnet", channels=1, classes=2, size=32, generator=torch_generator(seed, "net")
    )


def policy(grid=8, bias=0.0, name="coarse-unet"):
    return build_policy(
        name, channels=1, grid=grid, initial_bias=bias,
        generator=torch_generator(0, "policy"),
    )  # fmt: skip


def batch(count=8):
    images = torch.randn(count, 1, 32, 32, generator=torch_generator(0, "images"))
    return images, torch.arange(count) % 2


def policy_arm(kind=PolicyArm, bias=0.0, **changes):
    config = APGAConfig(
        policy_network="coarse-unet", grid=8, policy_learning_rate=1e-2,
        **{"method": "apga", **changes},
    )  # fmt: skip
    learner = Learner(classifier(), learning_rate=1e-3, weight_decay=0.0, precision="float32")
    return kind(
        config, policy(bias=bias), learner, pixels=PIXELS, classes=2,
        generator=torch_generator(0, "arm"),
    )  # fmt: skip
