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
from imaging_core.cell import labelled, new_classifier
from imaging_core.checkpoint import NO_CHECKPOINT, Checkpoint
from imaging_core.classifiers import Classifier
from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.fitting import FitConfig, fit
from imaging_core.keeping import group_of
from imaging_core.pretrained import imagenet_normalisation, load_pretrained, weights_file
from imaging_core.seeding import torch_generator
from imaging_core.splits import k_shot
from imaging_core.state_arrays import load_arrays
from imaging_core.task import Arrays, Progress, no_progress

Normalisation = tuple[np.ndarray, np.ndarray]
WEIGHT = "weight/"  # prefix of the classifier's state in the stage's arrays


def normalisation(weights: str, weights_path: str, train: Split) -> Normalisation:
    """(mean, std) per channel of images in [0, 1]: ImageNet's where the classifier starts from its
    weights, else the training part's."""
    if weights == "imagenet" and not weights_path:
        mean, std = imagenet_normalisation(train.images.shape[1])
        return np.array(mean), np.array(std)
    return train.mean_std


def class_weights(how: str, train: Split) -> Tensor | None:
    """(classes,) weights of the loss: N / (classes · images of the class) with "balanced"."""
    if how == "none":
        return None
    sizes = torch.tensor(list(train.class_sizes.values())).float()
    return sizes.sum() / (len(sizes) * sizes)


def train_base(
    inputs: Mapping[str, Any],
    data: ImageDataset,
    needs: Mapping[str, Arrays],
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Arrays:
    """Alg. 1, line 2: the classifier at its best validation epoch.

    Returns the state of the network under `weight/…`, `validation_accuracy` and `training_loss`
    per epoch, and `steps`.
    """
    seed = inputs["seed"]
    train = k_shot(data.train, inputs["k_shot"], seed)
    model = new_classifier(inputs["classifier"], data, seed, "apga/classifier")
    weights = (inputs["weights"], inputs["weights_path"])
    if file := weights_file(inputs["classifier"], *weights):
        load_pretrained(model, inputs["classifier"], file)
    model.to(device)
    by = normalisation(*weights, train)
    images, labels = labelled(train, by, device)
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
        validation=labelled(data.validation, by, device),
        keep_best=True,
        precision=inputs["precision"],
        class_weights=class_weights(inputs["class_weights"], train),
        progress=progress,
        checkpoint=checkpoint,
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
    by = normalisation(inputs["weights"], inputs["weights_path"], train)
    images, labels = labelled(data.test, by, device)
    rows = measure_controls(inputs, base, data, images, labels, pixels_of(by).black)
    return {"masked": np.asarray([float(bool(rows))]), **rows}


def pixels_of(by: Normalisation) -> Pixels:
    mean, std = by
    return Pixels(mean=torch.tensor(mean).float(), std=torch.tensor(std).float())


def converged(name: str, data: ImageDataset, stage: Arrays, seed: int, device: str) -> Classifier:
    model = new_classifier(name, data, seed, "apga/classifier")
    load_arrays(model, group_of(stage, "weight"))
    return model.to(device, memory_format=torch.channels_last)
