"""Maps that the policy is compared with: Grad-CAM and occlusion, batched, classifier in eval mode.

Selvaraju et al., ICCV 2017 (Grad-CAM); Zeiler and Fergus, ECCV 2014 (occlusion).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from apga_core.masking import erase, to_pixels
from imaging_core.classifiers import Classifier
from imaging_core.precision import Precision, autocast


def grad_cam(classifier: Classifier, images: Tensor, precision: Precision = "float32") -> Tensor:
    """ReLU(Σ_k α_k A_k) of the most probable class, α_k its mean gradient: (B, 1, h, w), ≥ 0."""
    classifier.eval()
    with torch.no_grad(), autocast(images.device, precision):
        maps = classifier.feature_map(images)
    maps = maps.detach().float().requires_grad_()
    logits = classifier.head(maps.mean(dim=(2, 3)))
    (gradient,) = torch.autograd.grad(logits.max(dim=1).values.sum(), maps)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return F.relu((weights * maps.detach()).sum(dim=1, keepdim=True))


def discretise(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Keep where the map, stretched to 0 … 1 per image, exceeds 0.5: (B, 1, *size), 0/1.

    A flat map ranks nothing; it keeps the whole image (the released code divides by 0 there and
    trains on a black one).
    """
    maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    low = maps.amin(dim=(1, 2, 3), keepdim=True)
    span = maps.amax(dim=(1, 2, 3), keepdim=True) - low
    flat = span <= 1e-12
    keep = (maps - low) > 0.5 * span
    return torch.where(flat, torch.ones_like(maps), keep.to(maps.dtype))


@torch.no_grad()
def occlusion(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    fill: Tensor,
    cells: int,
    precision: Precision = "float32",
) -> Tensor:
    """The reward, Eq. (6), of erasing each cell of a `cells` × `cells` grid alone.

    Returns (B, 1, cells, cells). It reads `labels`; the policy, once trained, does not.
    """
    classifier.eval()
    size = images.shape[-2:]

    def losses(shown: Tensor) -> Tensor:
        with autocast(images.device, precision):
            logits = classifier(shown)
        return F.cross_entropy(logits.float(), labels, reduction="none")

    original = losses(images)
    out = torch.empty(len(images), 1, cells, cells, device=images.device)
    for cell in range(cells * cells):
        keep = torch.ones(cells * cells, device=images.device)
        keep[cell] = 0
        hidden = erase(images, to_pixels(keep.view(1, 1, cells, cells), size), fill)
        out[:, 0, cell // cells, cell % cells] = losses(hidden) - original
    return out
