"""Does a map find the lesion? AUROC and IoU per image, and rewards of erasing what it ranks first.

Everything here takes maps over pixels: scores (N, H, W), truth (N, H, W) bool; images without a
lesion are left out.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import rankdata
from torch import Tensor

from apga_core.masking import erase, shift_masks


def over_pixels(maps: Tensor, size: tuple[int, int]) -> np.ndarray:
    """(N, 1, h, w) → (N, *size) on the CPU, bilinear: what is scored against a mask."""
    fine = F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False)
    return fine[:, 0].cpu().numpy()


def lesion_auroc(scores: np.ndarray, truth: np.ndarray, within: np.ndarray | None = None) -> float:
    """Mean over images of P(a lesion pixel outranks another), ties one half.

    `within` (N, H, W) bool restricts the other pixels, to the bone for instance.

    Raises:
        ValueError: no image has a lesion.
    """
    values = []
    for score, lesion, inside in _with_lesion(scores, truth, within):
        ranks = rankdata(score[inside])
        hit = lesion[inside]
        positive, negative = hit.sum(), (~hit).sum()
        area = ranks[hit].sum() - positive * (positive + 1) / 2
        values.append(area / (positive * negative))
    return float(np.mean(values))


def lesion_iou(scores: np.ndarray, truth: np.ndarray, within: np.ndarray | None = None) -> float:
    """Mean IoU of the lesion with as many of the top-ranked pixels: no threshold to tune.

    Raises:
        ValueError: no image has a lesion.
    """
    values = []
    for score, lesion, inside in _with_lesion(scores, truth, within):
        hit = lesion[inside]
        count = hit.sum()
        # Ranks, so that ties at the threshold do not depend on where a pixel lies.
        ranks = rankdata(score[inside])
        above = ranks > np.partition(ranks, -count)[-count]
        tied = ranks == np.partition(ranks, -count)[-count]
        share = (count - above.sum()) / tied.sum()
        overlap = (above & hit).sum() + share * (tied & hit).sum()
        values.append(overlap / (2 * count - overlap))
    return float(np.mean(values))


def _with_lesion(scores: np.ndarray, truth: np.ndarray, within: np.ndarray | None):
    rows = np.flatnonzero(truth.any(axis=(1, 2)))
    if not len(rows):
        raise ValueError("no image has a lesion: localisation needs masks (phantom-xray has them)")
    for row in rows:
        everywhere = np.ones_like(truth[row])
        inside = everywhere if within is None else within[row] | truth[row]
        yield scores[row], truth[row], inside


def reward_of_erasing(
    losses: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    erased: Tensor,
    fill: Tensor,
) -> Tensor:
    """Eq. (6) per image for the 0/1 masks `erased` (N, 1, H, W); `losses(images, labels)` (N,)."""
    return losses(erase(images, 1.0 - erased, fill), labels) - losses(images, labels)


def patches_like(truth: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """(count, 1, H, W): masks drawn from `truth` (M, H, W), each moved to a random place."""
    rows = torch.randint(len(truth), (count,), generator=generator)
    return shift_masks(truth[rows.to(truth.device)].unsqueeze(1).float(), generator)
