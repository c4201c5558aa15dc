"""APGA's masks for a whole batch against one image at a time, and its step against its bare passes.

    python tests/benchmarks/bench_masking.py          # the networks for a CPU, on one thread
    python tests/benchmarks/bench_masking.py --cuda   # the steps alone on a GPU, the paper's too
    python tests/benchmarks/bench_masking.py --cpu    # the same on one thread, the paper's at 64 px

The rival makes both masks of a step as the released script does (our own words): for every image
and each mask a policy pass of its own, p and the image to numpy, a threshold, `np.where`, the
channels stacked, back to a tensor, and the batch grown by concatenation. The script's gradient
pass over the batch comes on top; in ours the adversary's mask is read off that pass, so that the
masks of a step cost one more batched pass, for the aid mask.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from timing import Figure, gpu_clock, machine, paired
from torch import Tensor

from apga_core.arms import Pixels, PolicyArm, rewarded_rows
from apga_core.config import PRESETS, APGAConfig
from apga_core.learner import Learner, to_device
from apga_core.masking import aid_keep, erase, fill_images, to_pixels
from apga_core.networks import Policy, build_policy
from imaging_core.classifiers import build_classifier
from imaging_core.fields import build
from imaging_core.precision import autocast
from imaging_core.seeding import torch_generator
from sweeps.engine.worker import prepare_process

BATCH, SIDE = 25, 64

PIXEL_WISE = {
    "policy_network": "small-unet",
    "grid": 0,
    "sampling": "greedy",
    "samples": 1,
    "reward_baseline": "ema-before",
    "advantage_scale": "none",
    "reward_images": "all",
    "erase_value": "zero",
}
"""The paper's actions, on networks for a CPU."""

SETTINGS = {"demo preset": {}, "pixel-wise and greedy": PIXEL_WISE}
PAPER_SIDE = {"cuda": 224, "cpu": SIDE}


def figures() -> list[Figure]:
    """25 images of 64 × 64, in a process set up as a worker's (one thread) for both ways."""
    prepare_process()
    found = []
    for name, changes in SETTINGS.items():
        arm, images, labels = arm_of({**PRESETS["demo"], **changes}, SIDE, "cpu")
        found += [
            masks(name, arm.policy, images, clock=time.process_time),
            step(name, arm, images, labels, clock=time.process_time),
        ]
    return found


def steps(device: str, clock: Callable[[], float]) -> Iterator[Figure]:
    """The steps of both settings and of the paper's networks, in float32 and bfloat16."""
    prepare_process()
    every = {name: ({**PRESETS["demo"], **changes}, SIDE) for name, changes in SETTINGS.items()}
    every["paper preset"] = (PRESETS["paper"], PAPER_SIDE[device])
    for name, (values, side) in every.items():
        for precision in ("float32", "bfloat16"):
            arm, images, labels = arm_of({**values, "precision": precision}, side, device)
            yield step(f"{name}, {precision}", arm, images, labels, clock=clock)


def arm_of(
    values: dict, side: int, device: str, batch: int = BATCH
) -> tuple[PolicyArm, Tensor, Tensor]:
    """An arm of these values, and a batch: (batch, 1, side, side) images and their labels."""
    config = build(APGAConfig, values)
    policy = build_policy(
        config.policy_network,
        channels=1,
        grid=config.grid,
        initial_bias=0.0,
        generator=torch_generator(0, "policy"),
    )
    classifier = build_classifier(
        config.classifier, channels=1, classes=2, size=side, generator=torch_generator(0, "net")
    )
    learner = Learner(
        classifier.to(device, memory_format=torch.channels_last),
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        precision=config.precision,
        second_view_statistics=config.second_view_statistics,
    )
    arm = PolicyArm(
        config,
        policy.to(device, memory_format=torch.channels_last),
        learner,
        pixels=Pixels(mean=torch.zeros(1), std=torch.ones(1)).to(device),
        classes=2,
        generator=torch_generator(0, "arm"),
    )
    images = torch.randn(batch, 1, side, side, generator=torch_generator(0, "images"))
    return arm, images.to(device), (torch.arange(batch) % 2).to(device)


def masks(
    name: str, policy: Policy, images: Tensor, *, clock: Callable[[], float], runs: int = 7
) -> Figure:
    """Both masks of a step, against one image at a time."""
    batch, device, size = len(images), images.device, tuple(images.shape[2:])

    @torch.no_grad()
    def batched() -> Tensor:
        logits = policy(images)
        fill = fill_images(images, "zero", black=torch.zeros(1, device=device), blur_sigma=1.0)
        keeps = torch.stack([aid_keep(-logits), aid_keep(logits)])
        keeps = to_pixels(keeps.flatten(0, 1), size).unflatten(0, (2, batch))
        return erase(images, keeps, fill)

    @torch.no_grad()
    def one_by_one() -> Tensor:
        views = []
        for hide_important in (True, False):
            grown = torch.empty(0, device=device)
            for image in images:
                p = torch.sigmoid(policy(image.unsqueeze(0)))
                p = to_pixels(p, size)[0, 0].cpu().numpy()
                erased = p > 0.5 if hide_important else p < 0.5
                shown = np.where(erased, 0, image.cpu().numpy()[0])
                shown = torch.from_numpy(np.stack((shown,) * images.shape[1])).to(device)
                grown = torch.cat([grown, shown.unsqueeze(0)])
            views.append(grown)
        return torch.stack(views)

    agree = (batched() == one_by_one()).float().mean()
    assert agree > 0.999, agree  # a p within rounding of 0.5 may fall on either side
    what = (
        f"both masks of an APGA step ({name}, {batch} images, {size[0]} px) against one image at a "
        "time"
    )
    return paired(what, batched, one_by_one, limit="≥ 3", clock=clock, runs=runs)


def step(
    name: str,
    arm: PolicyArm,
    images: Tensor,
    labels: Tensor,
    *,
    clock: Callable[[], float],
    runs: int = 25,
) -> Figure:
    """The whole step; `rival` is the forwards and backwards that it cannot do without, alone."""
    config, classifier, on_host = arm.config, arm.learner.classifier, labels.cpu()
    shown = images[labels > 0] if config.reward_images == "positives" else images
    views = shown.repeat(config.samples + 1, 1, 1, 1)

    def whole() -> None:
        rewarded = rewarded_rows(config, on_host)
        if rewarded is not None:
            rewarded = to_device(rewarded, images.device)
        arm.second_step(images, labels, arm.learner.update(images, labels), rewarded)

    def bare() -> None:
        with autocast(images.device, config.precision):
            classifier.train()
            for _ in range(2):
                torch.autograd.grad(classifier(images).sum(), list(classifier.parameters()))
            torch.autograd.grad(arm.policy(shown).sum(), list(arm.policy.parameters()))
            classifier.eval()
            with torch.no_grad():
                classifier(views)
                arm.policy(images)

    what = (
        f"bare forwards and backwards against the whole APGA step ({name}, {len(images)} images, "
        f"{images.shape[-1]} px)"
    )
    return paired(what, whole, bare, limit="≥ 0.91 (step ≤ 1.10 × bare)", runs=runs, clock=clock)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuda", action="store_true", help="the steps on a GPU, wall time")
    parser.add_argument("--cpu", action="store_true", help="the steps on one thread")
    asked = parser.parse_args()
    if asked.cuda and not torch.cuda.is_available():
        sys.exit("error: --cuda needs a GPU, and torch sees none")
    if asked.cuda or asked.cpu:
        device = "cuda" if asked.cuda else "cpu"
        print(f"{torch.cuda.get_device_name() if asked.cuda else 'one thread'}, {machine()}")
        for figure in steps(device, gpu_clock if asked.cuda else time.process_time):
            print(f"{figure.what}: {figure.ours_s * 1e3:.3g} ms, {1 / figure.ratio:.2f} × bare")
    else:
        for figure in figures():
            print(figure)
