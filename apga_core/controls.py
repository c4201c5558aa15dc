"""What a map must beat before it is said to find the lesion, measured on the same test images.

Occlusion reads the labels and Grad-CAM the classifier; the others know nothing of either.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apga_core.localisation import lesion_auroc, lesion_iou, over_pixels
from apga_core.masking import fill_images, gaussian_blur
from apga_core.networks import build_policy
from apga_core.saliency import grad_cam, occlusion
from imaging_core.classifiers import Classifier
from imaging_core.datasets.base import ImageDataset
from imaging_core.fitting import evaluation_batch
from imaging_core.precision import autocast
from imaging_core.pretrained import weights_file
from imaging_core.seeding import torch_generator
from imaging_core.standardised import Images

BLUR = 3.0  # pixels: of image − blur
OCCLUSION_CELLS = (8, 16)  # per side

MEASURES = ("auroc", "iou", "auroc_on_bone", "iou_on_bone")
"""The columns of every row below; the last two are absent where no bone is known."""


IMAGES = 150  # with a lesion, the first of the test part: occlusion costs 320 passes an image


def lesion_rows(data: ImageDataset) -> np.ndarray:
    """Rows of the test images that localisation is measured on; empty where no lesion is known."""
    if data.test.masks is None:
        return np.zeros(0, dtype=np.int64)
    return np.flatnonzero(data.test.masks.any(axis=(1, 2)))[:IMAGES]


def measure(scores: np.ndarray, truth: np.ndarray, bone: np.ndarray | None) -> np.ndarray:
    """`MEASURES` of one map (N, H, W)."""
    values = [lesion_auroc(scores, truth), lesion_iou(scores, truth)]
    if bone is not None:
        values += [lesion_auroc(scores, truth, bone), lesion_iou(scores, truth, bone)]
    return np.asarray(values)


def control_maps(
    inputs: Mapping[str, Any],
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    *,
    black: Tensor,
    bone: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """Name → (N, H, W) scores of the images (N, C, H, W), standardised.

    `inputs` holds the fields `erase_value`, `blur_sigma`, `policy_network`, `grid`,
    `initial_bias`, `policy_weights`, `policy_weights_path`, `precision` and the seed.
    """
    size = tuple(images.shape[-2:])
    detail = (images - gaussian_blur(images, BLUR)).mean(dim=1, keepdim=True)
    fill = fill_images(
        images,
        inputs["erase_value"],
        black=black,
        blur_sigma=inputs["blur_sigma"] * min(size),
    )
    untrained = build_policy(
        inputs["policy_network"],
        channels=images.shape[1],
        grid=inputs["grid"],
        initial_bias=inputs["initial_bias"],
        weights=weights_file(
            inputs["policy_network"], inputs["policy_weights"], inputs["policy_weights_path"]
        ),
        generator=torch_generator(inputs["seed"], "apga/policy"),
    ).to(images.device)
    precision = inputs["precision"]
    with torch.no_grad():
        with autocast(images.device, precision):
            logits = untrained(images)
        maps = {
            "intensity": images.mean(dim=1, keepdim=True),
            "image − blur": detail,
            "|image − blur|": detail.abs(),
            "untrained policy": torch.sigmoid(logits.float()),
        }
    maps["Grad-CAM"] = grad_cam(classifier, images, precision)
    for cells in OCCLUSION_CELLS:
        maps[f"occlusion {cells}×{cells}"] = occlusion(
            classifier, images, labels, fill, cells, precision
        )
    scores = {name: over_pixels(value, size) for name, value in maps.items()}
    if bone is not None:
        scores["bone"] = bone.astype(np.float32)
    return scores


def measure_controls(
    inputs: Mapping[str, Any],
    classifier: Classifier,
    data: ImageDataset,
    images: Images,
    labels: Tensor,
    black: Tensor,
) -> dict[str, np.ndarray]:
    """Name → `MEASURES` on the test images with a lesion; empty where the data has no masks."""
    rows = lesion_rows(data)
    if not len(rows):
        return {}
    bone = data.test.anatomy
    bone = None if bone is None else bone[rows]
    parts: list[dict[str, np.ndarray]] = []
    at_once = evaluation_batch(images)
    for start in range(0, len(rows), at_once):
        part = slice(start, start + at_once)
        index = torch.from_numpy(rows[part]).to(images.device)
        parts.append(
            control_maps(
                inputs,
                classifier,
                images[index],
                labels[index],
                black=black,
                bone=None if bone is None else bone[part],
            )
        )
    truth = data.test.masks[rows]
    return {
        name: measure(np.concatenate([maps[name] for maps in parts]), truth, bone)
        for name in parts[0]
    }
