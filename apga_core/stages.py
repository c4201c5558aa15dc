"""What the cells of a seed share: the converged classifier, and the scores of the rival maps.

Each function has the contract of `imaging_core.task.Stage.compute`: plain arrays in and out.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apga_core.arms import Pixels
from apga_core.controls import measure_controls
from imaging_core.classifiers import Classifier, build_classifier, load_weights
from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.fitting import FitConfig, fit, standardise
from imaging_core.seeding import torch_generator
from imaging_core.splits import k_shot
from imaging_core.task import Arrays, Progress, no_progress

WEIGHT = "weight/"  # prefix of the classifier's state in the stage's arrays


def tensors(part: Split, train: Split, device: str) -> tuple[Tensor, Tensor]:
    """Standardised images and labels of one part, by the training part's statistics."""
    images = standardise(part.images, *train.mean_std, device)
    return images, torch.from_numpy(part.labels).to(device)


def _new_classifier(name: str, data: ImageDataset, seed: int) -> Classifier:
    return build_classifier(
        name,
        channels=data.channels,
        classes=len(data.classes),
        size=data.size,
        generator=torch_generator(seed, "apga/classifier"),
    )


def train_base(
    inputs: Mapping[str, Any],
    data: ImageDataset,
    needs: Mapping[str, Arrays],
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> Arrays:
    """Alg. 1, line 2: the classifier at its best validation epoch.

    Returns the state of the network under `weight/…`, `validation_accuracy` and `training_loss`
    per epoch, and `steps`.
    """
    seed = inputs["seed"]
    train = k_shot(data.train, inputs["k_shot"], seed)
    model = _new_classifier(inputs["classifier"], data, seed)
    if inputs["weights_path"]:
        load_weights(model, inputs["weights_path"])
    model.to(device)
    images, labels = tensors(train, train, device)
    result = fit(
        model,
        images,
        labels,
        config=FitConfig(
            epochs=inputs["base_epochs"],
            batch_size=inputs["batch_size"],
            learning_rate=inputs["base_learning_rate"],
            optimiser="adam",
            schedule=inputs["base_schedule"],
            weight_decay=inputs["weight_decay"],
            patience=inputs["base_patience"],
            min_steps=inputs["base_min_steps"],
            augment=inputs["augment"],
        ),
        generator=torch_generator(seed, "apga/base-fit"),
        validation=tensors(data.validation, train, device),
        keep_best=True,
        precision=inputs["precision"],
        progress=progress,
    )
    state = {
        WEIGHT + name: np.ascontiguousarray(value.cpu().numpy())
        for name, value in model.state_dict().items()
    }
    return {
        **state,
        "validation_accuracy": np.asarray(result.validation_accuracy),
        "training_loss": np.asarray(result.training_loss),
        "steps": np.asarray([result.steps]),
    }


def score_controls(
    inputs: Mapping[str, Any],
    data: ImageDataset,
    needs: Mapping[str, Arrays],
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> Arrays:
    """Name → what each map that the policy must beat scores (`apga_core.controls.MEASURES`).

    `masked` is 0 where the data knows no lesion, and then there is nothing else.
    """
    train = k_shot(data.train, inputs["k_shot"], inputs["seed"])
    base = converged(inputs["classifier"], data, needs["base"], inputs["seed"], device)
    images, labels = tensors(data.test, train, device)
    rows = measure_controls(inputs, base, data, images, labels, pixels_of(train).black)
    return {"masked": np.asarray([float(bool(rows))]), **rows}


def pixels_of(train: Split) -> Pixels:
    mean, std = train.mean_std
    return Pixels(mean=torch.tensor(mean).float(), std=torch.tensor(std).float())


def converged(name: str, data: ImageDataset, stage: Arrays, seed: int, device: str) -> Classifier:
    model = _new_classifier(name, data, seed)
    state = {
        key.removeprefix(WEIGHT): torch.from_numpy(np.array(value))
        for key, value in stage.items()
        if key.startswith(WEIGHT)
    }
    model.load_state_dict(state)
    return model.to(device, memory_format=torch.channels_last)
