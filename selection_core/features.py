"""What the controller and the handcrafted rivals see: features, centroids, order, batches."""

import numpy as np
import torch
from torch import Tensor

from imaging_core.classifiers import Classifier


@torch.inference_mode()
def pooled_features(model: Classifier, images: Tensor, batch: int = 512) -> np.ndarray:
    """(N, F) float32: `model.features` of standardised images, in eval mode."""
    model.eval()
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
    labels: np.ndarray,  # (N,) claimed, the same number of each class
    distance: np.ndarray,  # (N,)
    batches: int,
    *,
    shuffle: np.random.Generator | None = None,
) -> np.ndarray:
    """(batches, N / batches) row numbers: sorted by distance, equal counts of each class.

    Section 3.1: the closest of each class go to the first batch. Inside a batch the classes take
    turns in order of distance. With `shuffle` each class is put in random order instead.
    """
    classes = int(labels.max()) + 1
    ranked = []
    for label in range(classes):
        rows = np.flatnonzero(labels == label)
        order = np.argsort(distance[rows], kind="stable")
        ranked.append(rows[order if shuffle is None else shuffle.permutation(len(rows))])
    per_batch = [
        np.stack(part) for part in zip(*(np.split(r, batches) for r in ranked), strict=True)
    ]
    return np.stack([part.T.reshape(-1) for part in per_batch])


def standardised(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`features` with the reference's mean 0 and deviation 1 per column (constant columns: 0)."""
    std = reference.std(0)
    return ((features - reference.mean(0)) / np.where(std > 1e-6, std, np.inf)).astype(np.float32)
