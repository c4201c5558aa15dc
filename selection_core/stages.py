"""The shared stages: generator → pool, and base classifier per seed → features per seed.

Each function has the contract of `imaging_core.task.Stage.compute`: plain arrays in and out.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imaging_core import cell
from imaging_core.checkpoint import NO_CHECKPOINT, Checkpoint
from imaging_core.classifiers import Classifier
from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.fitting import FitConfig, fit, predict
from imaging_core.seeding import torch_generator
from imaging_core.splits import k_shot
from imaging_core.standardised import Images, Standardised, standardised
from imaging_core.state_arrays import arrays_of, load_arrays
from imaging_core.task import Arrays, Progress
from selection_core import features as feats
from selection_core import pool as pools
from selection_core.config import PLANTED, POOL_KINDS
from selection_core.generator import GanConfig, GanTraining, read_snapshots, snapshot_arrays
from selection_core.quality import frechet_distance, kernel_distance, recall_per_class
from selection_core.streams import chosen_stream


def gan_config(values: Mapping[str, Any]) -> GanConfig:
    """The generator_* fields as the generator's own configuration."""
    return GanConfig(
        steps=values["generator_steps"],
        snapshots=values["generator_snapshots"],
        batch=values["generator_batch"],
        width=values["generator_width"],
        latent=values["generator_latent"],
        generator_learning_rate=values["generator_learning_rate"],
        discriminator_learning_rate=values["discriminator_learning_rate"],
        ema=values["generator_ema"],
    )


def final_fit(values: Mapping[str, Any]) -> FitConfig:
    """How the base and the final classifier are trained."""
    return FitConfig(
        epochs=values["classifier_epochs"],
        batch_size=values["classifier_batch"],
        learning_rate=values["classifier_learning_rate"],
        optimiser=values["classifier_optimiser"],
        schedule=values["classifier_schedule"],
        weight_decay=values["classifier_weight_decay"],
        patience=values["classifier_patience"],
        min_steps=values["classifier_min_steps"],
        augment=values["classifier_augment"],
    )


def labelled(part: Split, reference: Split, device: str) -> tuple[Standardised, Tensor]:
    """Images of `part`, standardised by the original training images, and labels, on `device`."""
    return cell.labelled(part, reference.mean_std, device)


def candidates(pool: Arrays, reference: Split, device: str) -> tuple[Standardised, Tensor]:
    """The pool's images, standardised as the training images are, and its claimed labels."""
    return (
        standardised(pool["images"], *reference.mean_std, device),
        torch.from_numpy(np.array(pool["labels"])).to(device),
    )


def compute_generator(
    inputs: Mapping[str, Any],
    data: ImageDataset,
    needs: Mapping[str, Arrays],
    *,
    device: str,
    progress: Progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Arrays:
    """The generator's training up to step `until`, from the checkpoint that it needs, if any.

    Returns:
        `<snapshot>/<parameter>` → array, snapshots in order of training; before the last step also
        everything that the rest of the training depends on.
    """
    seen = k_shot(data.train, inputs.get("k_shot", 0), inputs.get("seed", 0))
    training = GanTraining(
        seen.images,
        seen.labels,
        len(data.classes),
        config=gan_config(inputs),
        seed=inputs["generator_seed"],
        device=device,
    )
    for earlier in needs.values():
        training.load(earlier)
    with checkpoint.section("generator", training.state) as left:
        if left is not None:
            training.load(left)
        training.run(inputs["until"], progress, checkpoint)
    if inputs["until"] < inputs["generator_steps"]:
        return training.state()
    return snapshot_arrays(training.snapshots)


def compute_pool(
    inputs: Mapping[str, Any],
    data: ImageDataset,
    needs: Mapping[str, Arrays],
    *,
    device: str,
    progress: Progress,
) -> Arrays:
    """images, labels (claimed), true_labels, good, source, checksum: `pool.generated_pool`."""
    common = {"classes": len(data.classes), "per_class": inputs["pool_per_class"]}
    if inputs["pool"] in PLANTED:
        common |= {"k_shot": inputs["k_shot"], "seed": inputs["seed"]}
    if inputs["pool"] == "duplicates":
        return pools.duplicates_pool(data.train, **common)
    if inputs["pool"] == "collapsed":
        distance = _centroid_distances(inputs, data, needs["base"], device)
        return pools.collapsed_pool(data.train, distance, **common)
    if inputs["pool"] not in POOL_KINDS:
        return pools.folder_pool(
            inputs["pool"],
            data.classes,
            per_class=inputs["pool_per_class"],
            channels=data.channels,
            size=data.size,
            seed=inputs["generator_seed"],
        )
    common["label_noise"] = inputs["pool_label_noise"]
    if inputs["pool"] == "real":
        return pools.real_pool(data.train, **common)
    snapshots = read_snapshots(needs["generator"])
    return pools.generated_pool(
        snapshots if inputs["pool"] == "mixed" else snapshots[-1:],
        gan_config(inputs),
        channels=data.channels,
        size=data.size,
        seed=inputs["generator_seed"],
        device=device,
        **common,
    )


def _trained(
    inputs: Mapping[str, Any],
    data: ImageDataset,
    examples: tuple[Images, Tensor],
    device: str,
    progress: Progress,
    checkpoint: Checkpoint,
) -> Classifier:
    """A classifier trained on `examples` for all of its epochs: no image but these is seen."""
    seed, count = inputs["seed"], len(examples[0])
    model = cell.new_classifier(inputs["classifier"], data, seed, "classifier/weights", device)
    how = final_fit({**inputs, "classifier_patience": 0})
    fit(
        model,
        *examples,
        config=how,
        generator=torch_generator(seed, "classifier/fit"),
        stream=chosen_stream(how, inputs["classifier_steps"], (count,), np.arange(count)),
        keep_best=False,
        progress=progress,
        checkpoint=checkpoint,
    )
    return model


def _base_model(
    inputs: Mapping[str, Any], data: ImageDataset, state: Arrays, device: str
) -> Classifier:
    model = cell.new_classifier(
        inputs["classifier"], data, inputs["seed"], "classifier/weights", device
    )
    load_arrays(model, state)
    return model


def _features(model: Classifier, images: np.ndarray, reference: Split, device: str) -> np.ndarray:
    """(N, F): `model`'s view of images standardised by `reference`, the part it was trained on."""
    return feats.pooled_features(model, standardised(images, *reference.mean_std, device))


def _centroid_distances(
    inputs: Mapping[str, Any], data: ImageDataset, base: Arrays, device: str
) -> np.ndarray:
    """(len(train),): every training image to the k-shot centroid of its own class."""
    part = k_shot(data.train, inputs["k_shot"], inputs["seed"])
    model = _base_model(inputs, data, base, device)
    real, every = (_features(model, x.images, part, device) for x in (part, data.train))
    return feats.centroid_distance(every, data.train.labels, real, part.labels, len(data.classes))


def compute_base(
    inputs: Mapping[str, Any],
    data: ImageDataset,
    needs: Mapping[str, Arrays],
    *,
    device: str,
    progress: Progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Arrays:
    """The classifier trained on the original (k-shot) images: its state after the last epoch.

    It never sees validation, or the rivals that read its features would select by it.
    """
    part = k_shot(data.train, inputs["k_shot"], inputs["seed"])
    model = _trained(inputs, data, labelled(part, part, device), device, progress, checkpoint)
    return arrays_of(model)


def agreement_of_all(
    inputs: Mapping[str, Any], data: ImageDataset, extractor: Arrays, pool: Arrays, device: str
) -> np.ndarray:
    """(N, classes): what a classifier that was trained on *all* training images says of the pool.

    Args:
        inputs: `classifier`, and the `seed` of the extractor.
    """
    model = _base_model(inputs, data, extractor, device)
    return predict(model, candidates(pool, data.train, device)[0]).numpy()


def compute_features(
    inputs: Mapping[str, Any],
    data: ImageDataset,
    needs: Mapping[str, Arrays],
    *,
    device: str,
    progress: Progress,
) -> Arrays:
    """The base classifier's view of the pool, the real training images and validation.

    Returns:
        pool (N, F), real (M, F), validation (V, F) float32 pooled features; distance (N,) to the
        claimed class's centroid of real training images; probability (N, classes) of the base
        classifier on the pool.
    """
    part = k_shot(data.train, inputs["k_shot"], inputs["seed"])
    model = _base_model(inputs, data, needs["base"], device)
    pool = needs["pool"]
    seen = {
        name: _features(model, images, part, device)
        for name, images in (
            ("pool", pool["images"]),
            ("real", part.images),
            ("validation", data.validation.images),
        )
    }
    distance = feats.centroid_distance(
        seen["pool"], pool["labels"], seen["real"], part.labels, len(data.classes)
    )
    probability = predict(model, candidates(pool, part, device)[0]).numpy()
    return {**seen, "distance": distance, "probability": probability}


def compute_quality(
    inputs: Mapping[str, Any],
    data: ImageDataset,
    needs: Mapping[str, Arrays],
    *,
    device: str,
    progress: Progress,
    checkpoint: Checkpoint = NO_CHECKPOINT,
) -> Arrays:
    """fid, kid, reference_fid () of the pool against all training images; cas (classes,).

    CAS is the recall, class by class, on validation of a classifier trained on the pool alone. The
    test set is not read.
    """
    model = _base_model(inputs, data, needs["extractor"], device)
    train, validation, made = (
        _features(model, images, data.train, device)
        for images in (data.train.images, data.validation.images, needs["pool"]["images"])
    )
    examples = candidates(needs["pool"], data.train, device)
    judge = _trained(inputs, data, examples, device, progress, checkpoint)
    probability = predict(judge, labelled(data.validation, data.train, device)[0]).numpy()
    return {
        "fid": np.array(frechet_distance(train, made)),
        "kid": np.array(kernel_distance(train, made)),
        "reference_fid": np.array(frechet_distance(train, validation)),
        "cas": recall_per_class(data.validation.labels, probability),
    }
