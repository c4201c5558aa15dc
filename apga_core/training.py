"""One cell of APGA: from the converged classifier through the arm's second phase to its outcome."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from apga_core.arms import PolicyArm, build_arm
from apga_core.config import POLICY_METHODS, APGAConfig
from apga_core.controls import lesion_rows, measure
from apga_core.initial_weights import weights_notes
from apga_core.learner import Learner, State, load_state, state_of
from apga_core.localisation import over_pixels
from apga_core.networks import Policy, build_policy
from apga_core.reporting import gallery, pretraining_rewards, two_view_accuracy
from apga_core.second_phase import second_phase
from apga_core.stages import class_weights, converged, normalisation, pixels_of
from imaging_core.cell import labelled, predictions_of
from imaging_core.checkpoint import NO_CHECKPOINT, Checkpoint
from imaging_core.datasets.base import ImageDataset
from imaging_core.keeping import offer
from imaging_core.metrics import metrics_of
from imaging_core.pretrained import weights_file
from imaging_core.seeding import torch_generator
from imaging_core.splits import k_shot
from imaging_core.standardised import Images
from imaging_core.state_arrays import arrays_of
from imaging_core.task import Arrays, Outcome, Progress, no_progress


def train_cell(
    config: APGAConfig,
    data: ImageDataset,
    seed: int,
    stages: Mapping[str, Arrays],
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Outcome:
    """The second phase of one arm (Alg. 1, lines 3-18), selected on validation, tested once.

    The arm is scored on validation after every epoch, and the best of these is tested; the
    converged classifier itself is not among them, so that an arm is what its second phase made of
    it. `baseline` has no second phase.
    """
    train = k_shot(data.train, config.k_shot, seed)
    by = normalisation(config.weights, config.weights_path, train)
    images, labels = labelled(train, by, device)
    validation = labelled(data.validation, by, device)
    test = labelled(data.test, by, device)
    pixels = pixels_of(by).to(device)
    base = converged(config.classifier, data, stages["base"], seed, device).eval()
    policy = _new_policy(config, data, seed, device)
    classifier = converged(config.classifier, data, stages["base"], seed, device)
    learner = Learner(
        classifier,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        precision=config.precision,
        second_view_statistics=config.second_view_statistics,
        class_weights=class_weights(config.class_weights, train),
    )
    generator = torch_generator(seed, "apga/arm")
    arm = build_arm(
        config,
        learner,
        base=base,
        policy=policy,
        pixels=pixels,
        classes=len(data.classes),
        generator=generator,
    )
    metrics: dict[str, float] = {}
    if policy is not None and data.test.masks is not None:
        metrics |= pretraining_rewards(config, learner, pixels, *test, data.test.masks, seed)

    looks = list(stages["base"]["validation_accuracy"])  # that chose the weights so far
    curves: dict[str, tuple[float, ...]] = {}
    best_of, best_policy = [max(looks)], ()
    if config.method != "baseline":
        curves, best_policy = second_phase(
            config, arm, images, labels, validation, seed, generator, progress, checkpoint
        )
        best_of = list(curves["validation_accuracy"])
        looks += best_of

    offer("classifier", lambda: arrays_of(learner.classifier))
    offer("normalisation", lambda: dict(zip(("mean", "std"), map(np.asarray, by), strict=True)))
    if isinstance(arm, PolicyArm):
        offer("policy", lambda: arrays_of(arm.policy))
    of_validation = learner.predict(validation[0]).numpy()
    of_test = learner.predict(test[0]).numpy()
    metrics |= metrics_of(data.test, of_test)
    metrics |= {
        "val_best": float(max(best_of)),
        "test_at_best_val": metrics["accuracy"],
        "evaluations": float(len(looks)),
        "images_seen": float(learner.images_seen),
        "classifier_steps": float(learner.steps),
        "optimiser_steps": float(learner.steps + arm.policy_steps),
    }
    artifacts: dict[str, np.ndarray] = {}
    if notes := weights_notes(config, data):
        artifacts["weights_loaded"] = np.array(notes)
    if isinstance(arm, PolicyArm):
        found, artifacts = _policy_metrics(arm, data, validation, test, stages["controls"])
        metrics |= found
        if config.tta:
            metrics["tta_accuracy"] = _two_views(arm, best_policy, validation, test)
        artifacts |= gallery(arm.policy, base, data.test, test[0])
    return Outcome(
        metrics=metrics,
        predictions=(
            predictions_of("validation", data.validation, [of_validation]),
            predictions_of("test", data.test, [of_test]),
        ),
        curves=curves,
        artifacts=artifacts,
    )


def _two_views(
    arm: PolicyArm,
    best_policy: State,
    validation: tuple[Images, Tensor],
    test: tuple[Images, Tensor],
) -> float:
    """`two_view_accuracy` of the best epoch's classifier with the policy of the same epoch."""
    last = state_of([arm.policy])
    load_state([arm.policy], best_policy)
    found = two_view_accuracy(arm, validation, test)
    load_state([arm.policy], last)
    return found


def _new_policy(config: APGAConfig, data: ImageDataset, seed: int, device: str) -> Policy | None:
    if config.method not in POLICY_METHODS:
        return None
    policy = build_policy(
        config.policy_network,
        channels=data.channels,
        grid=config.grid,
        initial_bias=config.initial_bias,
        weights=weights_file(
            config.policy_network, config.policy_weights, config.policy_weights_path
        ),
        generator=torch_generator(seed, "apga/policy"),
    )
    return policy.to(device, memory_format=torch.channels_last)


def _policy_metrics(
    arm: PolicyArm,
    data: ImageDataset,
    validation: tuple[Images, Tensor],
    test: tuple[Images, Tensor],
    controls: Arrays,
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    metrics = {"mask_area": arm.mask_area(validation[0])}
    if arm.aided:
        metrics["empty_masks"] = arm.empty / arm.aided
    if not controls["masked"][0]:
        return metrics, {}
    shown = lesion_rows(data)
    bone = data.test.anatomy
    scores = over_pixels(
        arm.importance(test[0][torch.from_numpy(shown).to(test[0].device)]), data.size
    )
    found = measure(scores, data.test.masks[shown], None if bone is None else bone[shown])
    # Sorted: what a stage's store gives back has no order of its own.
    rows = {name: controls[name] for name in sorted(controls) if name != "masked"}
    best = np.max(np.stack(list(rows.values())), axis=0)
    metrics |= {
        "lesion_auroc": float(found[0]),
        "lesion_iou": float(found[1]),
        "lesion_margin": float(found[0] - best[0]),
        "lesion_iou_margin": float(found[1] - best[1]),
    }
    table = {"policy": found, **rows}
    return metrics, {
        "localisation_maps": np.array(list(table)),
        "localisation": np.stack(list(table.values())).astype(np.float32),
    }
