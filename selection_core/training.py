"""One cell: train a controller on the pool, keep what it keeps, train and test the classifier."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.fields import as_dict
from imaging_core.fitting import FitConfig, fit, predict, standardise
from imaging_core.metrics import classification_metrics
from imaging_core.seeding import numpy_generator, torch_generator
from imaging_core.splits import k_shot, k_shot_index
from imaging_core.task import Arrays, Outcome, Predictions, Progress, no_progress
from selection_core import environment as env
from selection_core import features as feats
from selection_core.config import SelectionConfig
from selection_core.controllers import build_controller, candidate_inputs, parameter_count
from selection_core.policy_training import train_controller
from selection_core.stages import final_fit, labelled, new_classifier

THUMBNAILS = 8  # per class and kind


def reward_fit(config: SelectionConfig) -> FitConfig:
    """How the classifier of one reward is trained."""
    return FitConfig(
        epochs=config.reward_epochs,
        batch_size=config.classifier_batch,
        learning_rate=config.reward_learning_rate,
        optimiser=config.classifier_optimiser,
        schedule=config.classifier_schedule,
        weight_decay=config.classifier_weight_decay,
        patience=0,
        min_steps=config.reward_min_steps,
        augment="none",
    )


def build_environment(
    config: SelectionConfig,
    data: ImageDataset,
    seed: int,
    stages: Mapping[str, Arrays],
    *,
    device: str,
) -> env.Environment:
    """The reward that `config` names; validation is all of it that an environment holds."""
    part = k_shot(data.train, config.k_shot, seed)
    rows = np.arange(len(data.validation))
    if config.validation_per_class:
        rows = k_shot_index(data.validation, config.validation_per_class, seed)
    watched = data.validation.take(rows)
    pool, seen = stages["pool"], stages["features"]
    if config.reward_model == "linear_probe":
        inner: env.Environment = env.LinearProbeReward(
            real=(feats.standardised(seen["real"], seen["real"]), part.labels),
            pool=(feats.standardised(seen["pool"], seen["real"]), pool["labels"]),
            validation=(feats.standardised(seen["validation"][rows], seen["real"]), watched.labels),
            classes=len(data.classes),
            ridge=config.probe_ridge,
            metric=config.reward_metric,
        )
    else:
        name = config.reward_classifier
        initial = new_classifier(
            config.classifier if name == "same" else name, data, seed, "reward/weights", device
        )
        for layer in initial.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = config.reward_norm_momentum
        inner = env.ClassifierReward(
            initial,
            real=labelled(part, part, device),
            pool=candidates(pool, part, device),
            validation=labelled(watched, part, device),
            fit_config=reward_fit(config),
            statistic=config.reward_statistic,
            metric=config.reward_metric,
            seed=seed,
            warm=config.classifier_reset == "warm",
        )
    return (
        inner
        if config.reward_sign == "normal"
        else env.SignedReward(inner, config.reward_sign, seed)
    )


def select(
    config: SelectionConfig,
    data: ImageDataset,
    seed: int,
    stages: Mapping[str, Arrays],
    environment: env.Environment,
    *,
    device: str,
    progress: Progress,
) -> tuple[np.ndarray, dict[str, tuple[float, ...]], int]:
    """Train the controller: (N,) keep probabilities over the pool, curves, parameter count."""
    pool, seen = stages["pool"], stages["features"]
    shuffle = numpy_generator(seed, "candidates/order")
    order = feats.batch_order(
        pool["labels"],
        seen["distance"],
        config.batches,
        shuffle=shuffle if config.candidate_order == "shuffled" else None,
    )
    inputs = candidate_inputs(
        torch.from_numpy(feats.standardised(seen["pool"], seen["pool"])),
        torch.from_numpy(pool["labels"]),
        len(data.classes),
        config.candidate_label,
    )
    controller = build_controller(
        config, inputs=inputs.shape[1], generator=torch_generator(seed, "controller/weights")
    ).to(device)

    def reward(selection: np.ndarray) -> float:
        keep = np.zeros(order.size, dtype=bool)
        keep[order] = selection
        return environment.reward(keep)

    result = train_controller(
        controller,
        inputs[torch.from_numpy(order)].to(device),
        reward,
        config=config,
        seed=seed,
        progress=progress,
    )
    probability = np.empty(order.size, dtype=np.float32)
    probability[order] = result.keep_probability
    curves = {
        "reward": result.reward,
        "entropy": result.entropy,
        "kept_fraction": result.kept_fraction,
    }
    return probability, curves, parameter_count(controller)


def train_cell(
    config: SelectionConfig,
    data: ImageDataset,
    seed: int,
    stages: Mapping[str, Arrays],
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> Outcome:
    """Select with the controller (p > 0.5), train the final classifier, read the test set once.

    Rewards and early stopping see validation only. An empty selection trains on real images
    alone.
    """
    pool = stages["pool"]
    environment = build_environment(config, data, seed, stages, device=device)
    probability, curves, parameters = select(
        config,
        data,
        seed,
        stages,
        environment,
        device=device,
        progress=lambda done, note="": progress(0.8 * done, note),
    )
    keep = probability > 0.5

    part = k_shot(data.train, config.k_shot, seed)
    images, labels = env.joined(
        labelled(part, part, device),
        candidates(pool, part, device),
        keep,
    )
    model = new_classifier(config.classifier, data, seed, "classifier/weights", device)
    fitted = fit(
        model,
        images,
        labels,
        config=final_fit(as_dict(config)),
        generator=torch_generator(seed, "classifier/fit"),
        validation=labelled(
            k_shot(data.validation, config.validation_per_class, seed), part, device
        ),
        keep_best=True,
        progress=lambda done, note="": progress(0.8 + 0.2 * done, note),
    )
    of_validation = predict(model, labelled(data.validation, part, device)[0]).numpy()
    of_test = predict(model, labelled(data.test, part, device)[0]).numpy()
    tested = classification_metrics(data.test.labels, of_test)
    metrics = {
        **{name: tested[name] for name in ("accuracy", "auc", "sensitivity", "specificity")},
        "val_best": max(fitted.validation_accuracy),
        "test_at_best_val": tested["accuracy"],
        "selected": float(keep.sum()),
        "pool_size": float(len(keep)),
        "classifier_trainings": float(environment.trainings + 1),
        "optimiser_steps": float(environment.steps + fitted.steps),
        "controller_parameters": float(parameters),
    }
    right = pool["labels"] == pool["true_labels"]
    if 0 < right.sum() < len(right):
        metrics["keep_auc"] = keep_auc(probability, right)
    return Outcome(
        metrics=metrics,
        predictions=(
            _predictions("validation", data.validation, of_validation),
            _predictions("test", data.test, of_test),
        ),
        curves=curves,
        artifacts={
            "keep_probability": probability,
            "pool_labels": pool["labels"],
            "pool_true_labels": pool["true_labels"],
            "centroid_distance": stages["features"]["distance"],
            **thumbnails(part, pool, keep, len(data.classes)),
        },
    )


def keep_auc(probability: np.ndarray, right: np.ndarray) -> float:
    """P(a rightly labelled candidate outranks a wrongly labelled one), ties counting half."""
    good, bad = probability[right], np.sort(probability[~right])
    below = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return float(below.mean() / (2 * len(bad)))


def thumbnails(part: Split, pool: Arrays, keep: np.ndarray, classes: int) -> Arrays:
    """The first few images of each class and kind, (n, C, H, W) uint8: real, selected, discarded.

    Absent kinds are left out (a selection can be empty).
    """
    found: Arrays = {}
    for label in range(classes):
        of_class = pool["labels"] == label
        kinds = {
            "real": part.images[part.labels == label],
            "selected": pool["images"][of_class & keep],
            "discarded": pool["images"][of_class & ~keep],
        }
        for kind, images in kinds.items():
            if len(images):
                found[f"{kind}_{label}"] = images[:THUMBNAILS].copy()
    return found


def candidates(pool: Arrays, reference: Split, device: str) -> tuple[Tensor, Tensor]:
    """The pool's images, standardised as the training images are, and its claimed labels."""
    return (
        standardise(pool["images"], *reference.mean_std, device),
        torch.from_numpy(np.array(pool["labels"])).to(device),
    )


def _predictions(split: str, part: Split, probabilities: np.ndarray) -> Predictions:
    return Predictions(
        split=split,
        ids=part.ids,
        groups=part.groups,
        labels=part.labels,
        probabilities=probabilities.astype(np.float32),
    )
