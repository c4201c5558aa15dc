"""A kept classifier and controller, on images and pools that the cell never saw."""

from collections.abc import Mapping

import numpy as np
import torch

from imaging_core.cell import kept_classifier
from imaging_core.classifiers import classifier_shapes
from imaging_core.fitting import predict
from imaging_core.keeping import Applied, Kept, group_of, offer
from imaging_core.seeding import numpy_generator
from imaging_core.standardised import standardised
from imaging_core.state_arrays import load_arrays
from imaging_core.task import Arrays
from selection_core import features as feats
from selection_core import objectives
from selection_core.config import OWN_CONTROLLER, SelectionConfig, trained_controller
from selection_core.controllers import CONTROLLERS, candidate_inputs
from selection_core.policy_reading import final_mask

CONTROLLER_OF = {"last": "controller_last", "best_smoothed_reward": "controller_best"}
"""`policy_readout` → the group of the controller that is read."""


def bytes_of(config: SelectionConfig, *, channels: int, size: tuple[int, int], classes: int) -> int:
    """What the networks that a cell of `config` offers take, without their file's head."""
    shape = {"channels": channels, "classes": classes, "size": size}
    classifier = list(classifier_shapes(config.classifier, **shape).values())
    total = sum(x.numel() * x.element_size() for x in classifier)
    if config.method not in OWN_CONTROLLER:
        return total
    features = _width_of_features(config, shape)
    width = _inputs(features, classes, config.candidate_label)
    with torch.device("meta"):
        controller = CONTROLLERS[trained_controller(config)](config, width)
    own = sum(x.numel() * x.element_size() for x in controller.state_dict().values())
    return 2 * total + 2 * own + 4 * features * (2 + classes)


def _width_of_features(config: SelectionConfig, shape: Mapping) -> int:
    """Of the classifier's pooled features: what its last layer takes."""
    weights = classifier_shapes(config.classifier, **shape)
    return [x for x in weights.values() if x.ndim == 2][-1].shape[1]


def _inputs(features: int, classes: int, mode: str) -> int:
    """The width of `candidate_inputs`."""
    probe = candidate_inputs(
        torch.zeros(1, features), torch.zeros(1, dtype=torch.int64), classes, mode
    )
    return probe.shape[1]


def offer_pool(stages: Mapping[str, Arrays], real_labels: np.ndarray, classes: int) -> None:
    """What a controller needs to look at another pool: the extractor, the mean and deviation of its
    own pool's features, and the centroids of the real images."""
    offer("extractor", lambda: dict(stages["base"]))
    seen = stages["features"]
    offer(
        "features",
        lambda: {
            "mean": seen["pool"].mean(0),
            "std": seen["pool"].std(0),
            "centroids": feats.centroids(seen["real"], real_labels, classes),
            "candidates": np.array(len(seen["pool"])),
        },
    )


def apply(
    kept: Kept,
    images: np.ndarray,  # (N, C, H, W) uint8
    labels: np.ndarray | None = None,  # (N,) claimed, of a pool
    *,
    device: str = "cpu",
) -> Applied:
    """Probabilities of the final classifier and, where the cell has a controller and the images
    come with labels, which of them it would keep as a pool.

    Another pool is standardised by the controller's own training pool, and cut into batches of
    about the length that it was trained with.
    """
    by = group_of(kept.arrays, "normalisation")
    x = standardised(images, by["mean"], by["std"], device)
    classifier = kept_classifier(kept, "classifier", device).to(memory_format=torch.channels_last)
    probabilities = predict(classifier, x).numpy()  # as the fit left it
    if labels is None or not group_of(kept.arrays, "extractor"):
        return Applied(probabilities=probabilities)
    probability = keep_probability(kept, x, labels, device)
    config: SelectionConfig = kept.config
    rng = numpy_generator(kept.seed, "policy/final")
    return Applied(
        probabilities=probabilities,
        keep_probability=probability,
        keep=final_mask(probability, labels, config.final_selection, rng),
    )


@torch.no_grad()
def keep_probability(
    kept: Kept,
    images: torch.Tensor,  # (N, C, H, W), standardised
    labels: np.ndarray,  # (N,)
    device: str,
) -> np.ndarray:
    """(N,) float32: of keeping each candidate, by the policy that `policy_readout` names."""
    config: SelectionConfig = kept.config
    classes = len(kept.classes)
    seen = group_of(kept.arrays, "features")
    pooled = feats.pooled_features(kept_classifier(kept, "extractor", device), images)
    distance = feats.cosine_distance(pooled, seen["centroids"][labels]).astype(np.float32)
    length = int(seen["candidates"]) / config.batches
    batches = min(max(1, round(len(labels) / length)), len(labels))
    shuffle = numpy_generator(kept.seed, "candidates/order")
    order = feats.batch_order(
        labels, distance, batches, shuffle=shuffle if config.candidate_order == "shuffled" else None
    )
    inputs = candidate_inputs(
        torch.from_numpy(feats.standardised_by(pooled, seen["mean"], seen["std"])),
        torch.from_numpy(np.asarray(labels, dtype=np.int64)),
        classes,
        config.candidate_label,
    )
    controller = CONTROLLERS[trained_controller(config)](config, inputs.shape[1])
    load_arrays(controller, group_of(kept.arrays, CONTROLLER_OF[config.policy_readout]))
    controller.to(device).train()  # as in training; there is no dropout
    logits, _ = controller(inputs[torch.from_numpy(order)].to(device))
    probability = objectives.keep_probability(logits).cpu().numpy().reshape(-1)
    return probability[feats.first_places(order, len(labels))].astype(np.float32)
