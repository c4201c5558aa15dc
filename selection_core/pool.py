"""The candidate pool: images with the labels they claim, from a generator or from real images."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch

from imaging_core.datasets.base import Split
from imaging_core.fields import ConfigError
from imaging_core.seeding import numpy_generator, torch_generator
from imaging_core.splits import k_shot_index
from imaging_core.task import Arrays
from selection_core.generator import GanConfig, build_generator, sample
from selection_core.pool_folder import read_pool


def checksum(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """SHA-256 over pixels and labels, (32,) uint8: what names a pool."""
    digest = hashlib.sha256(f"{images.shape}".encode())
    digest.update(np.ascontiguousarray(images).data)
    digest.update(np.ascontiguousarray(labels).data)
    return np.frombuffer(digest.digest(), dtype=np.uint8).copy()


def text_array(lines: Sequence[str]) -> np.ndarray:
    """Lines as UTF-8 bytes with a newline after each, (L,) uint8: arrays are all that is stored."""
    text = "".join(f"{line}\n" for line in lines)
    return np.frombuffer(text.encode(), dtype=np.uint8).copy()


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
        generator; good (N,) bool: planted as worth keeping (here: the two are equal); source (N,)
        int64: the snapshot; checksum (32,) uint8.
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


def folder_pool(
    path: str,
    classes: tuple[str, ...],
    *,
    per_class: int,
    channels: int,
    size: tuple[int, int],
    seed: int,
) -> Arrays:
    """A user's images, `per_class` of each class at random (0: all); labels at their word.

    Arrays as in `generated_pool`, and `files`: their paths inside the folder, as `text_array`.
    """
    rng = numpy_generator(seed, "pool/folder")
    images, labels, names = read_pool(
        path, classes, per_class=per_class, channels=channels, size=size, rng=rng
    )
    return {
        **_arrays(images, labels, labels, np.arange(len(labels))),
        "files": text_array(names),
    }


def real_pool(
    train: Split, *, k_shot: int, classes: int, per_class: int, label_noise: float, seed: int
) -> Arrays:
    """Candidates drawn from the training images outside the k-shot set: a planted truth.

    Same arrays as `generated_pool`; source is the row in `train`.

    Raises:
        ConfigError: a class has too few images left.
    """
    claimed = np.repeat(np.arange(classes), per_class)
    true = mislabel(claimed, classes, label_noise, numpy_generator(seed, "pool/noise"))
    rows = np.empty(len(claimed), dtype=np.int64)
    rng = numpy_generator(seed, "pool/real")
    left = outside(train, k_shot, seed)
    for label in range(classes):
        wanted = np.flatnonzero(true == label)
        rows[wanted] = rng.permutation(_of_class(train, left, label, len(wanted)))[: len(wanted)]
    return _arrays(train.images[rows], claimed, true, rows)


def duplicates_pool(
    train: Split, *, k_shot: int, classes: int, per_class: int, seed: int
) -> Arrays:
    """Half of each class fresh training images, half copies of the k-shot images themselves.

    Every label is right and the copies are closest to the centroids, but they tell the classifier
    nothing new: `good` is true for the fresh ones. Other arrays as in `real_pool`.
    """
    rng = numpy_generator(seed, "pool/real")
    left, known = outside(train, k_shot, seed), k_shot_index(train, k_shot, seed)
    half = per_class // 2
    rows, good = [], []
    for label in range(classes):
        fresh = rng.permutation(_of_class(train, left, label, per_class - half))
        copies = np.resize(rng.permutation(known[train.labels[known] == label]), half)
        rows += [fresh[: per_class - half], copies]
        good += [np.ones(per_class - half, dtype=bool), np.zeros(half, dtype=bool)]
    taken = np.concatenate(rows)
    labels = train.labels[taken]
    return _arrays(train.images[taken], labels, labels, taken, np.concatenate(good))


def collapsed_pool(
    train: Split,
    distance: np.ndarray,  # (len(train),) of every training image to its own class's centroid
    *,
    k_shot: int,
    classes: int,
    per_class: int,
    seed: int,
) -> Arrays:
    """Half of each class fresh training images, half one image over and over: a collapsed mode.

    The repeated image is the one nearest to the centroid, the fresh ones are drawn from the farther
    three quarters, so who ranks by centroid distance keeps exactly the copies; `good` is true for
    the fresh ones. All labels are right. Arrays as in `real_pool`.
    """
    rng = numpy_generator(seed, "pool/real")
    left = outside(train, k_shot, seed)
    half = per_class // 2
    rows = []
    for label in range(classes):
        own = _of_class(train, left, label, 2 * per_class)
        own = own[np.argsort(distance[own], kind="stable")]
        rows += [
            rng.permutation(own[len(own) // 4 :])[: per_class - half],
            np.repeat(own[:1], half),
        ]
    taken = np.concatenate(rows)
    good = np.tile(np.arange(per_class) < per_class - half, classes)
    labels = train.labels[taken]
    return _arrays(train.images[taken], labels, labels, taken, good)


def outside(train: Split, k_shot: int, seed: int) -> np.ndarray:
    """Rows of `train` that are not in the seed's k-shot set."""
    return np.setdiff1d(np.arange(len(train)), k_shot_index(train, k_shot, seed))


def _of_class(train: Split, left: np.ndarray, label: int, needed: int) -> np.ndarray:
    rows = left[train.labels[left] == label]
    if len(rows) < needed:
        raise ConfigError(
            f"this pool needs {needed} training images of class {label} outside the k-shot set, "
            f"got {len(rows)}; lower pool_per_class"
        )
    return rows


def _arrays(
    images: np.ndarray,
    claimed: np.ndarray,
    true: np.ndarray,
    source: np.ndarray,
    good: np.ndarray | None = None,
) -> Arrays:
    return {
        "images": images,
        "labels": claimed.astype(np.int64),
        "true_labels": true.astype(np.int64),
        "good": claimed == true if good is None else good,
        "source": source.astype(np.int64),
        "checksum": checksum(images, claimed.astype(np.int64)),
    }
