"""What cells of both methods begin and end with: tensors, classifiers, predictions."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from imaging_core.classifiers import Classifier, build_classifier
from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.keeping import Kept, group_of
from imaging_core.seeding import torch_generator
from imaging_core.standardised import Standardised, standardised
from imaging_core.state_arrays import load_arrays
from imaging_core.task import Predictions


def labelled(
    part: Split, by: tuple[np.ndarray, np.ndarray], device: str
) -> tuple[Standardised, Tensor]:
    """Images (N, C, H, W), standardised by (mean, std) per channel, and labels (N,)."""
    return standardised(part.images, *by, device), torch.from_numpy(part.labels).to(device)


def new_classifier(
    name: str, data: ImageDataset, seed: int, component: str, device: str = "cpu"
) -> Classifier:
    """An untrained classifier for `data`, its weights drawn from (seed, component).

    Raises:
        ConfigError: see `build_classifier`.
    """
    model = build_classifier(
        name,
        channels=data.channels,
        classes=len(data.classes),
        size=data.size,
        generator=torch_generator(seed, component),
    )
    return model.to(device)


def kept_classifier(kept: Kept, group: str, device: str) -> Classifier:
    """The network of the cell's `classifier` that it offered as `group`."""
    model = build_classifier(
        kept.config.classifier,
        channels=kept.channels,
        classes=len(kept.classes),
        size=kept.size,
        generator=torch.Generator(),
    )
    load_arrays(model, group_of(kept.arrays, group))
    return model.to(device)


def predictions_of(split: str, part: Split, draws: Sequence[np.ndarray]) -> Predictions:
    """What a cell says of `part`: one draw after another, each (N, classes)."""
    return Predictions(
        split=split,
        ids=np.tile(part.ids, len(draws)),
        groups=np.tile(part.groups, len(draws)),
        labels=np.tile(part.labels, len(draws)),
        probabilities=np.concatenate(draws).astype(np.float32),
    )
