"""The controller's selection: its environment, its training on the pool, and both as a stage.

A stage, because the k-matched controls need what the controller chose and must not pay for it
again; any study that asks for the same controller and seed shares it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from imaging_core.cell import new_classifier
from imaging_core.checkpoint import NO_CHECKPOINT, Checkpoint
from imaging_core.classifiers import parameter_count
from imaging_core.datasets.base import ImageDataset
from imaging_core.fields import build
from imaging_core.fitting import FitConfig
from imaging_core.keeping import offer, wanted
from imaging_core.seeding import numpy_generator, torch_generator
from imaging_core.splits import k_shot, k_shot_index
from imaging_core.state_arrays import arrays_of
from imaging_core.task import Arrays, Progress
from selection_core import environment as env
from selection_core import features as feats
from selection_core import objectives
from selection_core.config import SelectionConfig
from selection_core.controllers import build_controller, candidate_inputs
from selection_core.policy_training import train_controller
from selection_core.rivals import counts_of_mask
from selection_core.stages import candidates, labelled


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
        augment=config.classifier_augment if config.reward_augment == "same" else "none",
    )


def build_environment(
    config: SelectionConfig,
    data: ImageDataset,
    seed: int,
    stages: Mapping[str, Arrays],
    *,
    device: str,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> env.Remembered:
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
        initial = tuple(
            new_classifier(
                config.classifier if name == "same" else name,
                data,
                seed,
                env.component("reward/weights", repeat),
                device,
            )
            for repeat in range(config.reward_repeats)
        )
        for layer in (layer for model in initial for layer in model.modules()):
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = config.reward_norm_momentum
        inner = env.ClassifierReward(
            initial,
            real=labelled(part, part, device),
            pool=candidates(pool, part, device),
            validation=labelled(watched, part, device),
            fit_config=reward_fit(config),
            updates=config.reward_steps,
            statistic=config.reward_statistic,
            metric=config.reward_metric,
            seed=seed,
            warm=config.classifier_reset == "warm",
            checkpoint=checkpoint,
        )
    if config.reward_sign != "normal":
        inner = env.SignedReward(inner, config.reward_sign, seed)
    return env.Remembered(inner, checkpoint)


def select(
    config: SelectionConfig,
    data: ImageDataset,
    seed: int,
    stages: Mapping[str, Arrays],
    environment: env.Environment,
    *,
    device: str,
    progress: Progress,
) -> tuple[Arrays, dict[str, tuple[float, ...]], int]:
    """Train the controller: its readings, curves, parameter count.

    The readings are (N,) float32 keep probabilities over the pool, named as in
    `policy_reading.READOUTS`.
    """
    pool, seen = stages["pool"], stages["features"]
    shuffle = numpy_generator(seed, "candidates/order")
    order = feats.batch_order(
        pool["labels"],
        seen["distance"],
        config.batches,
        shuffle=shuffle if config.candidate_order == "shuffled" else None,
    )
    places = feats.first_places(order, len(pool["labels"]))
    inputs = candidate_inputs(
        torch.from_numpy(feats.standardised(seen["pool"], seen["pool"])),
        torch.from_numpy(pool["labels"]),
        len(data.classes),
        config.candidate_label,
    )
    controller = build_controller(
        config, inputs=inputs.shape[1], generator=torch_generator(seed, "controller/weights")
    ).to(device)

    drawn: list[np.ndarray] = []  # (classes,) kept, of every rewarded selection

    def reward(selection: np.ndarray) -> float:
        keep = selection.reshape(-1)[places]
        drawn.append(counts_of_mask(keep, pool["labels"], len(data.classes)))
        return environment.reward(keep)

    best_weights: Arrays = {}

    def keep_best(rewards: list[float]) -> None:
        if objectives.best_smoothed(rewards, config.ema_alpha) == len(rewards) - 1:
            best_weights.update(arrays_of(controller))

    result = train_controller(
        controller,
        inputs[torch.from_numpy(order)].to(device),
        reward,
        config=config,
        seed=seed,
        progress=progress,
        before_update=keep_best if wanted() else None,
    )
    offer("controller_last", lambda: arrays_of(controller))
    offer("controller_best", lambda: best_weights)
    best = objectives.best_smoothed(result.reward, config.ema_alpha)
    readings = {
        "probability": result.keep_probability.reshape(-1)[places].astype(np.float32),
        "probability_best": result.policies[best].reshape(-1)[places].astype(np.float32),
    }
    # With one reward per batch the last of an episode's is that of the whole pass.
    per_pass = config.batches if config.episode == "batch" else 1
    kept = np.reshape(drawn, (config.iterations, config.episodes, per_pass, -1))[:, :, -1].mean(1)
    curves = {
        "reward": result.reward,
        "entropy": result.entropy,
        "kept_fraction": result.kept_fraction,
        **{f"kept/class {c}": tuple(column.tolist()) for c, column in enumerate(kept.T)},
    }
    return readings, curves, parameter_count(controller)


def compute_selection(
    inputs: Mapping[str, Any],
    data: ImageDataset,
    needs: Mapping[str, Arrays],
    *,
    device: str,
    progress: Progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Arrays:
    """A controller trained on the pool.

    Returns:
        probability (N,) float32 of keeping each candidate, by the last policy; probability_best,
        the same by the policy of the best smoothed reward; curve/reward, curve/entropy,
        curve/kept_fraction and curve/kept/class <class> (candidates drawn), one value per
        iteration; spent (3,) int64: classifier trainings,
        optimiser steps, controller parameters.
    """
    values = dict(inputs)
    seed = values.pop("seed")
    config = build(SelectionConfig, values)
    environment = build_environment(config, data, seed, needs, device=device, checkpoint=checkpoint)
    with environment.remembering():
        readings, curves, parameters = select(
            config, data, seed, needs, environment, device=device, progress=progress
        )
    return {
        **readings,
        "spent": np.array([environment.trainings, environment.steps, parameters]),
        **{f"curve/{name}": np.array(values) for name, values in curves.items()},
    }
