"""A kept classifier and policy, on images that the cell never saw."""

import numpy as np
import torch

from apga_core import masking
from apga_core.arms import EMPTY_AIDS, Pixels
from apga_core.config import POLICY_METHODS, APGAConfig
from apga_core.localisation import over_pixels
from apga_core.networks import Policy, build_policy, policy_shapes
from imaging_core.cell import kept_classifier
from imaging_core.classifiers import classifier_shapes
from imaging_core.fitting import evaluation_batch, predict
from imaging_core.keeping import Applied, Kept, group_of
from imaging_core.precision import autocast
from imaging_core.standardised import standardise
from imaging_core.state_arrays import load_arrays


def bytes_of(config: APGAConfig, *, channels: int, size: tuple[int, int], classes: int) -> int:
    """What the networks that a cell of `config` offers take, without their file's head."""
    shapes = [
        *classifier_shapes(
            config.classifier, channels=channels, classes=classes, size=size
        ).values(),
        *(
            policy_shapes(config.policy_network, channels).values()
            if config.method in POLICY_METHODS
            else ()
        ),
    ]
    return sum(x.numel() * x.element_size() for x in shapes)


def apply(
    kept: Kept,
    images: np.ndarray,  # (N, C, H, W) uint8
    labels: np.ndarray | None = None,
    *,
    device: str = "cpu",
) -> Applied:
    """Probabilities of the final classifier, and p of the policy where the method has one.

    The images are standardised as the cell's were. `labels` are not looked at.
    """
    config: APGAConfig = kept.config
    by = group_of(kept.arrays, "normalisation")
    x = standardise(images, by["mean"], by["std"], device)
    classifier = kept_classifier(kept, "classifier", device)
    classifier.to(memory_format=torch.channels_last)
    probabilities = predict(classifier, x, precision=config.precision).numpy()
    state = group_of(kept.arrays, "policy")
    if not state:
        return Applied(probabilities=probabilities)
    policy = build_policy(
        config.policy_network,
        channels=kept.channels,
        grid=config.grid,
        initial_bias=config.initial_bias,
        generator=torch.Generator(),
    )
    load_arrays(policy, state)
    policy.to(device, memory_format=torch.channels_last)
    pixels = Pixels(mean=torch.tensor(by["mean"]).float(), std=torch.tensor(by["std"]).float()).to(
        device
    )
    importance, masked = [], []
    for chunk in x.split(evaluation_batch(x)):
        p = _importance(policy, chunk, config)
        keep = EMPTY_AIDS[config.empty_aid]((p >= 0.5).to(chunk.dtype))
        keep = masking.to_pixels(keep, kept.size)
        erased = masking.erase(chunk, keep, pixels.fill(config, chunk))
        importance.append(over_pixels(p, kept.size))
        masked.append(_as_stored(erased, pixels))
    return Applied(
        probabilities=probabilities,
        importance=np.concatenate(importance),
        masked=np.concatenate(masked),
    )


@torch.no_grad()
def _importance(policy: Policy, images: torch.Tensor, config: APGAConfig) -> torch.Tensor:
    with autocast(images.device, config.precision):
        logits = policy(images.contiguous(memory_format=torch.channels_last)).float()
    return torch.sigmoid(logits)


def _as_stored(images: torch.Tensor, pixels: Pixels) -> np.ndarray:
    """(N, C, H, W) uint8 of standardised images."""
    shape = (1, -1, 1, 1)
    raw = (images * pixels.std.view(shape) + pixels.mean.view(shape)) * 255
    return raw.round().clamp(0, 255).to(torch.uint8).cpu().numpy()
