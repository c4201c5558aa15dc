"""Equal budgets and equal fills: what every arm shows the classifier, for every setting of them."""

import pytest
import torch

from apga_core import masking
from apga_core.arms import Pixels, build_arm
from apga_core.config import POLICY_METHODS, APGAConfig
from apga_core.learner import Learner
from apga_core.networks import build_policy
from imaging_core.classifiers import build_classifier
from imaging_core.fields import levels_of
from imaging_core.seeding import torch_generator

PIXELS = Pixels(mean=torch.tensor([0.4]), std=torch.tensor([0.2]))
METHODS = [m for m in levels_of(APGAConfig, "method") if m != "baseline"]
MASKED = [m for m in METHODS if m not in ("baseline_matched", "trivial_augment")]
RATIOS = {1.0: 8, 0.5: 4, 0.3: 2, 0.1: 0, 0.0: 0}
"""aid_ratio → second views of a batch of 8; one alone would make no step, and is none."""


def network():
    return build_classifier(
        "tiny-resnet", channels=1, classes=2, size=32, generator=torch_generator(0, "net")
    )


def batch():
    return torch.rand(8, 1, 32, 32, generator=torch_generator(0, "images")), torch.arange(8) % 2


def an_arm(method, bias=0.0, **changes):
    config = APGAConfig(method=method, policy_network="coarse-unet", grid=8, **changes)
    learner = Learner(
        network(), learning_rate=1e-3, weight_decay=0.0, precision="float32",
        second_view_statistics=config.second_view_statistics,
    )  # fmt: skip
    policy = None
    if method in POLICY_METHODS:
        policy = build_policy(
            "coarse-unet", channels=1, grid=8, initial_bias=bias,
            generator=torch_generator(0, "policy"),
        )  # fmt: skip
    return build_arm(
        config, learner, base=network(), policy=policy, pixels=PIXELS, classes=2,
        generator=torch_generator(0, "arm"),
    )  # fmt: skip


def shown(arm) -> list[torch.Tensor]:
    """The second views of one step on `batch()`."""
    images, labels = batch()
    views, update = [], arm.learner.update

    def noted(x, *others, second_view=False, **more):
        if second_view:
            views.append(x.detach())
        return update(x, *others, second_view=second_view, **more)

    arm.learner.update = noted
    arm.second_step(images, labels, arm.learner.update(images, labels))
    return views


SETTINGS = [
    *({"aid_ratio": ratio} for ratio in RATIOS),
    *({"erase_value": value} for value in levels_of(APGAConfig, "erase_value")),
    *(
        {"second_view_statistics": level, "aid_ratio": 0.5}
        for level in levels_of(APGAConfig, "second_view_statistics")
    ),
    *({"empty_aid": level} for level in levels_of(APGAConfig, "empty_aid")),
]


@pytest.mark.long
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_every_arm_has_the_same_budget(setting):
    second = RATIOS[setting.get("aid_ratio", 1.0)]
    for method in METHODS:
        arm = an_arm(method, **setting)
        views = shown(arm)
        assert [len(view) for view in views] == ([second] if second else []), method
        assert arm.learner.steps == (2 if second else 1), method
        assert arm.learner.images_seen == 8 + second, method


@pytest.mark.parametrize("method", MASKED)
def test_every_mask_is_filled_by_the_same_rule(method):
    """Each pixel of a second view is the image's own, or what `erase_value` puts there."""
    images, _ = batch()
    for value in levels_of(APGAConfig, "erase_value"):
        arm = an_arm(method, erase_value=value)
        (view,) = shown(arm)
        fill = masking.fill_images(
            images, value, black=PIXELS.black, blur_sigma=arm.config.blur_sigma * 32
        )
        kept, filled = ((view - x).abs() < 1e-6 for x in (images, fill))
        assert bool((kept | filled).all()), value
        assert 0 < int((~kept).sum()) < images.numel(), value


def test_an_empty_aid_mask_is_the_original_or_as_line_17_has_it():
    images, _ = batch()
    for method in ("apga", "random_mask"):
        (view,) = shown(an_arm(method, bias=-50.0))
        assert torch.equal(view, images)
        (view,) = shown(an_arm(method, bias=-50.0, empty_aid="as-printed"))
        assert torch.equal(view, PIXELS.black.expand_as(view))
