"""The candidate pool: images with the labels they claim, from a generator or from real images."""

import hashlib

import numpy as np
import torch

from imaging_core.datasets.base import Split
from imaging_core.fields import ConfigError
from imaging_core.seeding import numpy_generator, torch_generator
from imaging_core.splits import k_shot_index
from imaging_core.task import Arrays
from selection_core.generator import GanConfig, build_generator, sample


def checksum(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """SHA-256 over pixels and labels, (32,) uint8: what names a pool."""
    digest = hashlib.sha256(f"{images.shape}".encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels).data)
    return np.frombuffer(digest.digest(), dtype=np.uint8).copy()


def mislabel(
    labels: np.ndarray,  # (N,) int64, the true ones
    classes: int,
    share: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """`labels` with exactly round(share · n) of each class moved to another class at random."""
    wrong = labels.copy()
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        moved = rng.permutation(rows)[: round(share * len(rows))]
        wrong[moved] = (label + rng.integers(1, classes, len(moved))) % classes
    return wrong


def generated_pool(
    snapshots: list[dict[str, torch.Tensor]],
    config: GanConfig,
    *,
    classes: int,
    channels: int,
    size: tuple[int, int],
    per_class: int,
    label_noise: float,
    seed: int,
    device: str = "cpu",
) -> Arrays:
    """`per_class` candidates of each claimed class, the snapshots taking turns.

    Returns:
        images (N, C, H, W) uint8; labels, true_labels (N,) int64: claimed, and asked of the
        generator; source (N,) int64: the snapshot; checksum (32,) uint8.
    """
    claimed = np.repeat(np.arange(classes), per_class)
    true = mislabel(claimed, classes, label_noise, numpy_generator(seed, "pool/noise"))
    source = np.arange(classes * per_class) % len(snapshots)
    latents = torch.randn(
        len(claimed), config.latent, generator=torch_generator(seed, "pool/latents")
    )
    images = np.empty((len(claimed), channels, *size), dtype=np.uint8)
    network = build_generator(config, classes=classes, channels=channels, size=size)
    for index, snapshot in enumerate(snapshots):
        network.load_state_dict(snapshot)
        rows = np.flatnonzero(source == index)
        images[rows] = sample(network, true[rows], latents[rows], classes, device=device)
    return _arrays(images, claimed, true, source)


def real_pool(
    train: Split, *, k_shot: int, classes: int, per_class: int, label_noise: float, seed: int
) -> Arrays:
    """Candidates drawn from the training images outside the k-shot set: a planted truth.

    Same arrays as `generated_pool`; source is the row in `train`.

    Raises:
        ConfigError: a class has too few images left.
    """
    rng = numpy_generator(seed, "pool/real")
    left = np.setdiff1d(np.arange(len(train)), k_shot_index(train, k_shot, seed))
    claimed = np.repeat(np.arange(classes), per_class)
    true = mislabel(claimed, classes, label_noise, numpy_generator(seed, "pool/noise"))
    rows = np.empty(len(claimed), dtype=np.int64)
    for label in range(classes):
        of_class = left[train.labels[left] == label]
        wanted = np.flatnonzero(true == label)
        if len(of_class) < len(wanted):
            raise ConfigError(
                f"pool=real needs {len(wanted)} training images of class {label} outside the "
                f"k-shot set, got {len(of_class)}; lower pool_per_class"
            )
        rows[wanted] = rng.permutation(of_class)[: len(wanted)]
    return _arrays(train.images[rows], claimed, true, rows)


def _arrays(
    images: np.ndarray, claimed: np.ndarray, true: np.ndarray, source: np.ndarray
) -> Arrays:
    return {
        "images": images,
        "labels": claimed.astype(np.int64),
        "true_labels": true.astype(np.int64),
        "source": source.astype(np.int64),
        "checksum": checksum(images, claimed.astype(np.int64)),
    }
