"""One cell: choose candidates by the method, train the final classifier on them, and test it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from imaging_core.cell import new_classifier, predictions_of
from imaging_core.checkpoint import NO_CHECKPOINT, Checkpoint, prefixed, under
from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.fields import as_dict, build
from imaging_core.fitting import fit, predict
from imaging_core.keeping import offer, offered, put_back
from imaging_core.metrics import metrics_of
from imaging_core.seeding import torch_generator
from imaging_core.splits import k_shot
from imaging_core.standardised import Standardised
from imaging_core.state_arrays import arrays_of
from imaging_core.task import Arrays, Outcome, Progress, no_progress
from selection_core.applying import offer_pool
from selection_core.config import OWN_CONTROLLER, PLANTED, SelectionConfig
from selection_core.environment import with_kept
from selection_core.methods import Selection, choose, read_selection, selection_arrays
from selection_core.pool import text_array
from selection_core.stages import candidates, final_fit, labelled
from selection_core.streams import chosen_stream

THUMBNAILS = 8  # per class and kind
BY_VALIDATION = ("val_best", "test_at_best_val")
TESTED = ("accuracy", "auc", "sensitivity", "specificity", "study_accuracy", "kappa")


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinalFit:
    """The final classifier of one selection: metrics, and (N, classes) probabilities."""

    metrics: dict[str, float]
    steps: int
    validation: np.ndarray
    test: np.ndarray


def final_classifier(
    config: SelectionConfig,
    data: ImageDataset,
    seed: int,
    pool: tuple[Standardised, Tensor] | None,
    keep: np.ndarray | None,
    *,
    device: str,
    progress: Progress = no_progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> FinalFit:
    """Train the classifier on the real images and those of `pool` that `keep` (N,) names.

    Initial weights and batch order come from (seed, component) alone, and the number of steps from
    the configuration: the same for every method. The test set is read once.
    `oracle` trains on all training images, `traditional_augmentation` with that augmentation.
    """
    part = k_shot(data.train, config.k_shot, seed)
    real = labelled(data.train if config.method == "oracle" else part, part, device)
    count = len(real[0])
    groups, members, (images, labels) = (count,), np.arange(count), real
    if pool is not None and keep is not None:
        groups, members = (count, len(keep)), np.append(members, count + np.flatnonzero(keep))
        images, labels = with_kept(real, pool, keep)
    if config.method == "traditional_augmentation":
        config = dataclasses.replace(config, classifier_augment="traditional")
    model = new_classifier(config.classifier, data, seed, "classifier/weights", device)
    how = final_fit(as_dict(config))
    fitted = fit(
        model,
        images,
        labels,
        config=how,
        generator=torch_generator(seed, "classifier/fit"),
        stream=chosen_stream(how, config.classifier_steps, groups, members),
        validation=labelled(
            k_shot(data.validation, config.validation_per_class, seed), part, device
        ),
        keep_best=True,
        progress=progress,
        checkpoint=checkpoint,
    )
    offer("classifier", lambda: arrays_of(model))
    of_validation = predict(model, labelled(data.validation, part, device)[0]).numpy()
    of_test = predict(model, labelled(data.test, part, device)[0]).numpy()
    tested = metrics_of(data.test, of_test)
    return FinalFit(
        metrics={
            **{name: tested[name] for name in TESTED if name in tested},
            "val_best": max(fitted.validation_accuracy),
            "test_at_best_val": tested["accuracy"],
        },
        steps=fitted.steps,
        validation=of_validation,
        test=of_test,
    )


def compute_final(
    inputs: Mapping[str, Any],
    data: ImageDataset,
    needs: Mapping[str, Arrays],
    *,
    device: str,
    progress: Progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Arrays:
    """The final classifier of a method without candidates: every pool of a study shares it.

    Returns:
        metric/<name> () float64, steps () int64, validation and test (N, classes) float32.
    """
    values = dict(inputs)
    seed = values.pop("seed")
    config = build(SelectionConfig, values)
    found = final_classifier(
        config, data, seed, None, None, device=device, progress=progress, checkpoint=checkpoint
    )
    return _final_arrays(found)


def _final_arrays(found: FinalFit) -> Arrays:
    return {
        **{f"metric/{name}": np.array(value) for name, value in found.metrics.items()},
        "steps": np.array(found.steps),
        "validation": found.validation,
        "test": found.test,
    }


def _in_own_order(fitted: FinalFit) -> FinalFit:
    """With the metrics in the order of `final_classifier`: storage has one of its own."""
    names = [name for name in (*TESTED, *BY_VALIDATION) if name in fitted.metrics]
    return dataclasses.replace(fitted, metrics={name: fitted.metrics[name] for name in names})


def _read_final(stored: Arrays) -> FinalFit:
    metrics = {
        name.removeprefix("metric/"): stored[name].item()
        for name in sorted(stored)
        if name.startswith("metric/")
    }
    return FinalFit(
        metrics=metrics,
        steps=stored["steps"].item(),
        validation=stored["validation"],
        test=stored["test"],
    )


def train_cell(
    config: SelectionConfig,
    data: ImageDataset,
    seed: int,
    stages: Mapping[str, Arrays],
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Outcome:
    """Select by `config.method`, train the final classifier, read the test set once.

    Rewards and early stopping see validation only. An empty selection trains on real images
    alone. Of a method with several draws the metrics are means over them, and the predictions
    hold every example once per draw.
    """
    part = k_shot(data.train, config.k_shot, seed)
    selection: Selection | None = None
    fits: list[FinalFit] = []

    def state() -> Arrays:
        found = prefixed("selection", selection_arrays(selection)) if selection else {}
        for place, fitted in enumerate(fits):
            found |= prefixed(f"fit/{place}", _final_arrays(fitted))
        return found | prefixed("offered", offered())

    with checkpoint.section("cell", state) as left:
        put_back(under(left or {}, "offered"))
        if chosen := under(left or {}, "selection"):
            selection = read_selection(chosen)
            while arrays := under(left, f"fit/{len(fits)}"):
                fits.append(_in_own_order(_read_final(arrays)))
        else:
            selection = choose(
                config,
                data,
                seed,
                stages,
                device=device,
                progress=lambda done, *more: progress(0.8 * done, *more),
                checkpoint=checkpoint,
            )
        offer("normalisation", lambda: dict(zip(("mean", "std"), part.mean_std, strict=True)))
        if config.method in OWN_CONTROLLER:
            offer_pool(stages, part.labels, len(data.classes))
        if "pool" in stages:
            pool = candidates(stages["pool"], part, device)
            for keep in selection.masks[len(fits) :]:
                fits.append(
                    final_classifier(
                        config,
                        data,
                        seed,
                        pool,
                        keep,
                        device=device,
                        progress=lambda done, *more: progress(0.8 + 0.2 * done, *more),
                        checkpoint=checkpoint,
                    )
                )
    if "final" in stages:
        fits.insert(0, _read_final(stages["final"]))
    metrics = {
        **{name: float(np.mean([f.metrics[name] for f in fits])) for name in fits[0].metrics},
        "selected": float(np.mean([keep.sum() for keep in selection.masks])),
        "classifier_trainings": float(selection.trainings + len(fits)),
        "optimiser_steps": float(selection.steps + sum(f.steps for f in fits)),
        **selection.metrics,
    }
    if len(selection.curves.get("reward", ())) > 1:
        metrics["reward_rise"] = rise(selection.curves["reward"])
    artifacts: Arrays = {}
    if "pool" in stages:
        pool, keep = stages["pool"], selection.masks[0]
        metrics["pool_size"] = float(len(keep))
        if 0 < pool["good"].sum() < len(keep):
            metrics["keep_auc"] = keep_auc(selection.probability, pool["good"])
        artifacts = {
            "keep_probability": selection.probability,
            "kept": keep,
            "pool_labels": pool["labels"],
            "pool_true_labels": pool["true_labels"],
            "pool_good": pool["good"],
            "centroid_distance": stages["features"]["distance"],
            "class_names": text_array(data.classes),
            **pool_files(config, data, pool),
            **thumbnails(part, pool, keep, len(data.classes)),
        }
    if "quality" in stages:
        quality = stages["quality"]
        metrics |= {
            "pool_fid": quality["fid"].item(),
            "pool_kid": quality["kid"].item(),
            "reference_fid": quality["reference_fid"].item(),
            "pool_cas": float(quality["cas"].mean()),
            "pool_cas_worst": float(quality["cas"].min()),
        }
        artifacts["pool_cas_per_class"] = quality["cas"]
    return Outcome(
        metrics=metrics,
        predictions=(
            predictions_of("validation", data.validation, [f.validation for f in fits]),
            predictions_of("test", data.test, [f.test for f in fits]),
        ),
        curves=selection.curves,
        artifacts=artifacts,
    )


def rise(curve: Sequence[float]) -> float:
    """Mean of the last third of a curve minus that of its first third, at least a value each."""
    third = max(1, len(curve) // 3)
    return float(np.mean(curve[-third:]) - np.mean(curve[:third]))


def pool_files(config: SelectionConfig, data: ImageDataset, pool: Arrays) -> Arrays:
    """`pool_files`, what the candidates are called outside: paths in the user's folder, or ids of
    training images; nothing of a generator's, which have their place in the pool and no other name.
    """
    if "files" in pool:
        return {"pool_files": pool["files"]}
    if config.pool in PLANTED:
        return {"pool_files": text_array([str(name) for name in data.train.ids[pool["source"]]])}
    return {}


def keep_auc(probability: np.ndarray, planted: np.ndarray) -> float:
    """P(a candidate planted as good outranks one planted as bad), ties counting half."""
    good, bad = probability[planted], np.sort(probability[~planted])
    below = np.searchsorted(bad, good, "left") + np.searchsorted(bad, good, "right")
    return float(below.mean() / (2 * len(bad)))


def thumbnails(part: Split, pool: Arrays, keep: np.ndarray, classes: int) -> Arrays:
    """The first few images of each class and kind, (n, C, H, W) uint8.

    Kinds: real, generated (the pool before any choice), selected, discarded. Absent ones are left
    out (a selection can be empty).
    """
    found: Arrays = {}
    for label in range(classes):
        of_class = pool["labels"] == label
        kinds = {
            "real": part.images[part.labels == label],
            "generated": pool["images"][of_class],
            "selected": pool["images"][of_class & keep],
            "discarded": pool["images"][of_class & ~keep],
        }
        for kind, images in kinds.items():
            if len(images):
                found[f"{kind}_{label}"] = images[:THUMBNAILS].copy()
    return found
