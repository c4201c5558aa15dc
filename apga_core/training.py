"""One cell of APGA: from the converged classifier through the arm's second phase to its outcome."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Generator, Tensor

from apga_core.arms import Arm, PolicyArm, build_arm, rewarded_rows
from apga_core.config import POLICY_METHODS, APGAConfig
from apga_core.controls import bone_of_test, lesion_rows, measure
from apga_core.initial_weights import weights_notes
from apga_core.learner import Learner, State, load_state, state_of, to_device
from apga_core.localisation import over_pixels
from apga_core.networks import Policy, build_policy
from apga_core.reporting import gallery, pretraining_rewards, two_view_accuracy
from apga_core.stages import class_weights, converged, normalisation, pixels_of, tensors
from imaging_core.augment import AUGMENTATIONS
from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.fitting import Images, accuracy
from imaging_core.keeping import offer
from imaging_core.metrics import metrics_of
from imaging_core.pretrained import weights_file
from imaging_core.seeding import torch_generator
from imaging_core.splits import k_shot
from imaging_core.state_arrays import arrays_of
from imaging_core.task import Arrays, Outcome, Predictions, Progress, no_progress


def train_cell(
    config: APGAConfig,
    data: ImageDataset,
    seed: int,
    stages: Mapping[str, Arrays],
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> Outcome:
    """The second phase of one arm (Alg. 1, lines 3-18), selected on validation, tested once.

    The arm is scored on validation after every epoch, and the best of these is tested; the
    converged classifier itself is not among them, so that an arm is what its second phase made of
    it. `baseline` has no second phase.
    """
    train = k_shot(data.train, config.k_shot, seed)
    by = normalisation(config.weights, config.weights_path, train)
    images, labels = tensors(train, by, device)
    validation = tensors(data.validation, by, device)
    test = tensors(data.test, by, device)
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
    arm = build_arm(
        config,
        learner,
        base=base,
        policy=policy,
        pixels=pixels,
        classes=len(data.classes),
        generator=torch_generator(seed, "apga/arm"),
    )
    metrics: dict[str, float] = {}
    if policy is not None and data.test.masks is not None:
        metrics |= pretraining_rewards(config, learner, pixels, *test, data.test.masks, seed)

    looks = list(stages["base"]["validation_accuracy"])  # that chose the weights so far
    curves: dict[str, tuple[float, ...]] = {}
    best_of, best_policy = [max(looks)], ()
    if config.method != "baseline":
        curves, best_policy = _second_phase(config, arm, images, labels, validation, seed, progress)
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
            _predictions("validation", data.validation, of_validation),
            _predictions("test", data.test, of_test),
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


def _second_phase(
    config: APGAConfig,
    arm: Arm,
    images: Images,
    labels: Tensor,
    validation: tuple[Images, Tensor],
    seed: int,
    progress: Progress,
) -> tuple[dict[str, tuple[float, ...]], State]:
    """Train in place; the classifier is left at its best epoch, the policy at its last.

    The order of the batches depends on the seed alone, so that arms see the same ones.

    Returns:
        curves: per epoch.
        policy: the policy's state at the classifier's best epoch; empty without a policy.
    """
    order = torch_generator(seed, "apga/order")
    of_statistics = torch_generator(seed, "apga/statistics")
    draw = _batches(config, images, labels)
    batches = math.ceil(len(labels) / config.batch_size)
    epochs = max(config.epochs, math.ceil(config.min_steps / batches))
    learner = arm.learner
    policies = [arm.policy] if isinstance(arm, PolicyArm) else []
    _warm_up(config, arm, draw, len(labels), seed)

    curves: dict[str, list[float]] = {"validation_accuracy": [], "loss": []}
    best_epoch, best_state, best_policy = 0, (), ()
    for epoch in range(epochs):
        losses = []
        for rows in torch.randperm(len(labels), generator=order).split(config.batch_size):
            batch, of_batch, rewarded = draw(rows, order)
            original = learner.update(batch, of_batch)
            arm.second_step(batch, of_batch, original, rewarded)
            losses.append(original.mean())
        loss = float(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss must be finite, got {loss} in epoch {epoch + 1} of the second phase; "
                "lower learning_rate"
            )
        curves["loss"].append(loss)
        learner.before_scoring(images, config.batch_size, of_statistics)
        score = accuracy(learner.classifier, *validation, precision=config.precision)
        curves["validation_accuracy"].append(score)
        if isinstance(arm, PolicyArm):
            for name, value in arm.trace.mean().items():
                curves.setdefault(name, []).append(value)
        if not epoch or score > curves["validation_accuracy"][best_epoch]:
            best_epoch = epoch
            best_state, best_policy = state_of(learner.networks), state_of(policies)
        progress((epoch + 1) / epochs, f"epoch {epoch + 1} of {epochs}")
        if config.patience and epoch - best_epoch >= config.patience:
            break
    load_state(learner.networks, best_state)
    return {name: tuple(values) for name, values in curves.items()}, best_policy


def _batches(
    config: APGAConfig, images: Images, labels: Tensor
) -> Callable[[Tensor, Generator], tuple[Tensor, Tensor, Tensor | None]]:
    """Rows on the host → their images, labels and `rewarded_rows` on the device, no waiting."""
    augment, on_host = AUGMENTATIONS[config.augment], labels.cpu()

    def draw(rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        rewarded = rewarded_rows(config, on_host[rows])
        if rewarded is not None:
            rewarded = to_device(rewarded, images.device)
        rows = to_device(rows, images.device)
        return augment(images[rows], generator), labels[rows], rewarded

    return draw


def _warm_up(
    config: APGAConfig,
    arm: Arm,
    draw: Callable[[Tensor, Generator], tuple[Tensor, Tensor, Tensor | None]],
    count: int,
    seed: int,
) -> None:
    """`policy_warmup_steps` batches on which the policy learns against the frozen classifier."""
    if not isinstance(arm, PolicyArm):
        return
    generator = torch_generator(seed, "apga/warm-up")
    for _ in range(config.policy_warmup_steps):
        rows = torch.randperm(count, generator=generator)[: config.batch_size]
        batch, of_batch, rewarded = draw(rows, generator)
        arm.learn(batch, of_batch, rewarded=rewarded)
    arm.trace.mean()


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
    bone = bone_of_test(data)
    scores = over_pixels(
        arm.importance(test[0][torch.from_numpy(shown).to(test[0].device)]), data.size
    )
    found = measure(scores, data.test.masks[shown], None if bone is None else bone[shown])
    rows = {name: values for name, values in controls.items() if name != "masked"}
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


def _predictions(name: str, part: Split, probabilities: np.ndarray) -> Predictions:
    return Predictions(
        split=name,
        ids=part.ids,
        groups=part.groups,
        labels=part.labels,
        probabilities=probabilities.astype(np.float32),
    )
