"""How good a pool is, apart from what it is used for: Fréchet and kernel distances, and CAS.

The distances are taken between *our own* features (pooled, of a classifier trained on all training
images), not Inception's: they compare pools of one study and mean nothing against printed FIDs.
"""

import numpy as np
import torch
from torch import nn


def frechet_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """|μ − μ'|² + tr(Σ + Σ' − 2 (Σ Σ')^½) ≥ 0 of two sets of features (N, F) (Heusel et al. 2017).

    Raises:
        ValueError: fewer than two rows in a set.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # takes seconds to import

    if min(len(real), len(fake)) < 2:
        raise ValueError(
            f"a Fréchet distance needs at least 2 images a set, got {len(real)} and {len(fake)}"
        )
    given = nn.Identity()
    given.num_features = real.shape[1]
    distance = FrechetInceptionDistance(feature=given).set_dtype(torch.float64)
    distance.update(torch.from_numpy(real).double(), real=True)
    distance.update(torch.from_numpy(fake).double(), real=False)
    return max(0.0, float(distance.compute()))


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """Unbiased squared MMD under k(a, b) = (a·b / F + 1)³ (Bińkowski et al. 2018), on all images.

    Over all pairs, for sets of any size: the usual mean over subsets would add luck of the draw.
    Unbiased, so it may be slightly negative.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a.astype(np.float64) @ b.astype(np.float64).T / a.shape[1] + 1) ** 3

    def mean_of_pairs(x: np.ndarray) -> float:
        k = kernel(x, x)
        return float((k.sum() - np.trace(k)) / (len(x) * (len(x) - 1)))

    return mean_of_pairs(real) + mean_of_pairs(fake) - 2 * float(kernel(real, fake).mean())


def recall_per_class(labels: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """(classes,): share of the images of each class that get their class; labels (N,)."""
    right = probability.argmax(1) == labels
    return np.array([right[labels == c].mean() for c in range(probability.shape[1])])
