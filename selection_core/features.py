"""What the controller and the handcrafted rivals see: features, centroids, order, batches."""

import numpy as np
import torch

from imaging_core.classifiers import Classifier
from imaging_core.fitting import EVALUATION_PIXELS
from imaging_core.standardised import Images

AT_ONCE = 512  # images up to 64 px; of larger ones fewer, or a wide network would need many GiB


@torch.inference_mode()
def pooled_features(model: Classifier, images: Images) -> np.ndarray:
    """(N, F) float32: `model.features` of standardised images, in eval mode."""
    model.eval()
    height, width = images.shape[2:]
    batch = min(AT_ONCE, max(1, EVALUATION_PIXELS // (height * width)))
    chunks = [model.features(x) for x in images.split(batch)]
    return torch.cat(chunks).float().cpu().numpy()


def centroids(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(classes, F): the mean feature of each class."""
    return np.stack([features[labels == c].mean(0) for c in range(classes)])


def cosine_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """1 − cos(a_i, b_i) row by row, (N, F) twice → (N,) in [0, 2]; 1 where a row is zero."""
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return 1 - (a * b).sum(1) / np.where(norm > 0, norm, np.inf)


def centroid_distance(
    candidates: np.ndarray,  # (N, F)
    labels: np.ndarray,  # (N,) claimed
    real: np.ndarray,  # (M, F) features of real training images
    real_labels: np.ndarray,  # (M,)
    classes: int,
) -> np.ndarray:
    """(N,) float32: cosine distance of each candidate to the real centroid of its claimed class."""
    centre = centroids(real, real_labels, classes)
    return cosine_distance(candidates, centre[labels]).astype(np.float32)


def batch_order(
    labels: np.ndarray,  # (N,) claimed
    distance: np.ndarray,  # (N,)
    batches: int,
    *,
    shuffle: np.random.Generator | None = None,
) -> np.ndarray:
    """(batches, L) row numbers: sorted by distance, each class in equal parts.

    Section 3.1: the closest of each class go to the first batch. Inside a batch the classes take
    turns in order of distance. With `shuffle` each class is put in random order instead.

    Where classes differ in number or are no multiple of `batches`, parts differ by one, and a
    shorter batch is filled up with rows of its own again: `first_places` says which places count.
    No batch may be empty.
    """
    classes = int(labels.max()) + 1
    ranked = []
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        order = np.argsort(distance[rows], kind="stable")
        ranked.append(rows[order if shuffle is None else shuffle.permutation(len(rows))])
    # Classes hand their larger parts to different batches, or the first ones would get them all.
    parts, given = [], 0
    for own in ranked:
        size, more = divmod(len(own), batches)
        longer = (np.arange(batches) - given) % batches < more
        parts.append(np.split(own, np.cumsum(size + longer)[:-1]))
        given += more
    per_batch = [_in_turns(part) for part in zip(*parts, strict=True)]
    return np.stack([np.resize(rows, max(map(len, per_batch))) for rows in per_batch])


def _in_turns(classes: tuple[np.ndarray, ...]) -> np.ndarray:
    """The first of each class, then the second of each, and so on while there are any."""
    turn = np.concatenate([np.arange(len(rows)) for rows in classes])
    return np.concatenate(classes)[np.argsort(turn, kind="stable")]


def first_places(order: np.ndarray, count: int) -> np.ndarray:
    """(count,): the first place of every row in the flattened `order` of `batch_order`.

    A decision at a later place of the same row is not read, so it neither counts nor biases the
    policy gradient.
    """
    rows, places = np.unique(order, return_index=True)
    if not np.array_equal(rows, np.arange(count)):
        raise ValueError(f"an order must hold each of the {count} rows, it holds {len(rows)}")
    return places


def standardised(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`features` with the reference's mean 0 and deviation 1 per column (constant columns: 0)."""
    return standardised_by(features, reference.mean(0), reference.std(0))


def standardised_by(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """`standardised`, where the reference's mean and deviation per column, (F,), are known."""
    return ((features - mean) / np.where(std > 1e-6, std, np.inf)).astype(np.float32)
