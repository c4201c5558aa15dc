"""Every method by name: what it is given, and which candidates it keeps."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from imaging_core.cell import new_classifier
from imaging_core.checkpoint import NO_CHECKPOINT, Checkpoint, numbers, prefixed, under
from imaging_core.datasets.base import ImageDataset
from imaging_core.fields import as_dict
from imaging_core.seeding import numpy_generator, torch_generator
from imaging_core.splits import k_shot
from imaging_core.task import Arrays, Progress, no_progress
from selection_core import features as feats
from selection_core import rivals
from selection_core.config import OWN_CONTROLLER, SelectionConfig, planted_truth
from selection_core.controller_selection import build_environment
from selection_core.environment import Environment
from selection_core.policy_reading import READOUTS, final_mask
from selection_core.stages import (
    agreement_of_all,
    candidates,
    final_fit,
    labelled,
)
from selection_core.streams import chosen_stream
from selection_core.triplet import fit_embedding


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What a method keeps, and what choosing cost.

    Attributes:
        masks: one (N,) bool keep mask per draw, of length 0 where the method has no pool.
        probability: (N,) float32 of keeping each candidate; the mean mask where none is known.
        trainings, steps: classifier trainings and optimiser steps spent on choosing.
    """

    masks: tuple[np.ndarray, ...]
    probability: np.ndarray
    trainings: int = 0
    steps: int = 0
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def selection_arrays(selection: Selection) -> Arrays:
    """A selection as arrays, for a checkpoint."""
    return {
        "masks": np.stack(selection.masks),
        "probability": selection.probability,
        "cost": np.array([selection.trainings, selection.steps]),
        **prefixed("curves", {k: numbers(v) for k, v in selection.curves.items()}),
        **prefixed("metrics", {k: np.array([v]) for k, v in selection.metrics.items()}),
    }


def read_selection(arrays: Arrays) -> Selection:
    """The inverse of `selection_arrays`; curves and metrics come in the order of their names."""
    trainings, steps = arrays["cost"].tolist()
    return Selection(
        masks=tuple(arrays["masks"]),
        probability=arrays["probability"],
        trainings=trainings,
        steps=steps,
        curves={k: tuple(v.tolist()) for k, v in sorted(under(arrays, "curves").items())},
        metrics={k: v.item() for k, v in sorted(under(arrays, "metrics").items())},
    )


def _one(keep: np.ndarray, **more) -> Selection:
    return Selection(masks=(keep,), probability=keep.astype(np.float32), **more)


def choose(
    config: SelectionConfig,
    data: ImageDataset,
    seed: int,
    stages: Mapping[str, Arrays],
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Selection:
    """The candidates that `config.method` keeps, from its stages (`task.stages`).

    Validation is read by the methods with a reward only: the controllers, whose choice is a stage,
    and `random_subset_search`.

    Raises:
        KeyError: a method without a rule; none stands for another.
    """
    method = config.method
    if "pool" not in stages:
        return _one(np.zeros(0, dtype=bool))
    pool, seen = stages["pool"], stages["features"]
    labels, classes = pool["labels"], len(data.classes)
    if config.keep_share_of == "real":
        real = k_shot(data.train, config.k_shot, seed).labels
        share = rivals.counts_of_real(real, classes, config.keep_share)
    else:
        share = rivals.counts_of_share(labels, classes, config.keep_share)
    if method in OWN_CONTROLLER:
        return _of_controller(config, seed, stages)
    if method in ("k_matched_random", "k_matched_centroid"):
        return _matched(config, seed, stages, classes)
    if method == "random_subset_search":
        environment = build_environment(
            config, data, seed, stages, device=device, checkpoint=checkpoint
        )
        with environment.remembering():
            return _searched(config, seed, stages, environment, progress)
    if method == "metric_learning":
        return _by_triplets(
            config, data, seed, stages, share,
            device=device, progress=progress, checkpoint=checkpoint,
        )  # fmt: skip
    if method == "true_half":
        if planted_truth(config):
            return _one(pool["good"].astype(bool))
        of_all = {"classifier": config.classifier, "seed": config.generator_seed}
        said = agreement_of_all(of_all, data, stages["extractor"], pool, device)
        return _one(rivals.agreement(said, labels, share))
    if method == "use_all":
        return _one(np.ones(len(labels), dtype=bool))
    if method == "gan_augmentation":
        return _one(
            rivals.random_subset(labels, share, numpy_generator(seed, "rivals/random_half"))
        )
    if method == "centroid_distance":
        return _one(rivals.lowest(seen["distance"], labels, share))
    if method == "confidence_centroid":
        return _one(
            rivals.confident_then_closest(seen["probability"], seen["distance"], labels, share)
        )
    if method == "agreement":
        return _one(rivals.agreement(seen["probability"], labels, share))
    raise KeyError(f"no rule chooses for method={method}")


def _of_controller(config: SelectionConfig, seed: int, stages: Mapping[str, Arrays]) -> Selection:
    selected = stages["selection"]
    probability = selected[READOUTS[config.policy_readout]]
    trainings, steps, parameters = (int(x) for x in selected["spent"])
    return Selection(
        masks=(
            final_mask(
                probability,
                stages["pool"]["labels"],
                config.final_selection,
                numpy_generator(seed, "policy/final"),
            ),
        ),
        probability=probability,
        trainings=trainings,
        steps=steps,
        curves={
            name.removeprefix("curve/"): tuple(values.tolist())
            for name, values in sorted(selected.items())  # a stored stage has no order of its own
            if name.startswith("curve/")
        },
        metrics={"controller_parameters": float(parameters)},
    )


def _matched(
    config: SelectionConfig, seed: int, stages: Mapping[str, Arrays], classes: int
) -> Selection:
    """As many of each class as the controller kept; its trainings count, as k is known by them."""
    of_controller = _of_controller(config, seed, stages)
    labels = stages["pool"]["labels"]
    counts = rivals.counts_of_mask(of_controller.masks[0], labels, classes)
    if config.method == "k_matched_centroid":
        masks = (rivals.lowest(stages["features"]["distance"], labels, counts),)
    else:
        rng = numpy_generator(seed, "rivals/k_matched")
        masks = tuple(
            rivals.random_subset(labels, counts, rng) for _ in range(config.matched_draws)
        )
    return Selection(
        masks=masks,
        probability=np.mean(masks, axis=0, dtype=np.float32),
        trainings=of_controller.trainings,
        steps=of_controller.steps,
    )


def rewards_of_controller(config: SelectionConfig) -> int:
    """How many rewards a controller's training asks for, each of `reward_repeats` classifiers."""
    per_episode = config.batches if config.episode == "batch" else 1
    return config.iterations * config.episodes * per_episode


def _searched(
    config: SelectionConfig,
    seed: int,
    stages: Mapping[str, Arrays],
    environment: Environment,
    progress: Progress,
) -> Selection:
    draws = rewards_of_controller(config)

    def reward(keep: np.ndarray) -> float:
        value = environment.reward(keep)
        done = environment.trainings / (draws * config.reward_repeats)
        progress(min(done, 1.0), f"random subset of {draws}")
        return value

    rng = numpy_generator(seed, "rivals/search")
    keep, rewards = rivals.random_search(reward, len(stages["pool"]["labels"]), draws, rng)
    return _one(
        keep,
        trainings=environment.trainings,
        steps=environment.steps,
        curves={"reward": tuple(rewards)},
    )


def _by_triplets(
    config: SelectionConfig,
    data: ImageDataset,
    seed: int,
    stages: Mapping[str, Arrays],
    counts: np.ndarray,
    *,
    device: str,
    progress: Progress,
    checkpoint: Checkpoint,
) -> Selection:
    """Closest to the class centroid, in an embedding trained by the triplet loss."""
    part = k_shot(data.train, config.k_shot, seed)
    model = new_classifier(config.classifier, data, seed, "classifier/weights", device)
    images, real_labels = labelled(part, part, device)
    how = final_fit({**as_dict(config), "classifier_patience": 0})
    steps = fit_embedding(
        model,
        images,
        real_labels,
        config=how,
        stream=chosen_stream(how, config.classifier_steps, (len(images),), np.arange(len(images))),
        margin=config.triplet_margin,
        generator=torch_generator(seed, "classifier/fit"),
        progress=progress,
        checkpoint=checkpoint,
    )
    pool = stages["pool"]
    embedded = [
        _unit(feats.pooled_features(model, x)) for x in (candidates(pool, part, device)[0], images)
    ]
    distance = feats.centroid_distance(
        embedded[0], pool["labels"], embedded[1], part.labels, len(data.classes)
    )
    return _one(rivals.lowest(distance, pool["labels"], counts), trainings=1, steps=steps)


def _unit(features: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(norm > 0, norm, math.inf)
