"""Synthetic sample selection as the engine sees it: recipes only, no torch."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from imaging_core.datasets.base import ImageDataset
from imaging_core.fields import ConfigError, field_names, some_of
from imaging_core.metric_table import METRICS
from imaging_core.splits import check_k_shot, smallest_class
from imaging_core.task import Metric, Stage, Task
from selection_core.config import (
    BY_SHARE,
    OWN_CONTROLLER,
    PLANTED,
    POOL_KINDS,
    PRESETS,
    SelectionConfig,
    planted_truth,
    trained_controller,
)
from selection_core.meanings import MEANINGS
from selection_core.pool_folder import by_class
from selection_core.sizes import halvings

GENERATOR_FIELDS = (
    "generator_seed",
    "generator_steps",
    "generator_snapshots",
    "generator_batch",
    "generator_width",
    "generator_latent",
    "generator_learning_rate",
    "discriminator_learning_rate",
    "generator_ema",
)
CLASSIFIER_FIELDS = (
    "classifier",
    "classifier_steps",
    "classifier_epochs",
    "classifier_min_steps",
    "classifier_batch",
    "classifier_learning_rate",
    "classifier_optimiser",
    "classifier_schedule",
    "classifier_weight_decay",
    "classifier_patience",
    "classifier_augment",
)
WITHOUT_POOL = ("baseline", "traditional_augmentation", "oracle")
WITH_CONTROLLER = (*OWN_CONTROLLER, "k_matched_random", "k_matched_centroid")
METHOD_FIELDS = (
    "method",
    "keep_share",
    "keep_share_of",
    "matched_draws",
    "triplet_margin",
    "final_selection",
    "policy_readout",
)
DECIDING_FIELDS = (
    "method",
    "k_shot",
    "pool",
    "pool_label_noise",
    "pool_quality",
    "generator_images",
    "generator_seed",
    "generator_steps",
    "generator_checkpoints",
    "controller",
)
"""What `stages` does not only hand on, but chooses by, or gives a stage otherwise than it is."""

SELECTION_FIELDS = tuple(n for n in field_names(SelectionConfig) if n not in METHOD_FIELDS)
OWN_METRICS = (
    Metric(
        name="pool_size",
        label="Pool",
        higher_is_better=None,
        low=1,
        high=float("inf"),
        meaning="Candidates offered, over all classes.",
    ),
    Metric(
        name="controller_parameters",
        label="Controller parameters",
        higher_is_better=None,
        low=1,
        high=float("inf"),
        meaning="Trainable scalars of the controller.",
    ),
    Metric(
        name="keep_auc",
        label="AUC of keep probability",
        higher_is_better=True,
        meaning='Area under the ROC curve of the keep probability against what is planted: "the '
        'claimed label is right", or "no copy" for pool=duplicates and pool=collapsed.',
    ),
)
LEARNING_METRICS = (
    Metric(
        name="reward_rise",
        label="Rise of the reward",
        higher_is_better=None,
        low=-float("inf"),
        high=float("inf"),
        meaning="Mean reward of the last third of the iterations minus that of the first third, in "
        "the reward's unit; of a search at random, that learns nothing, it is noise.",
    ),
)
QUALITY_METRICS = (
    Metric(
        name="pool_fid",
        label="FID (own features)",
        higher_is_better=False,
        high=float("inf"),
        meaning="Fréchet distance of the pool to all training images, in the features of a "
        "classifier trained on them; not Inception's, so no printed FID compares.",
    ),
    Metric(
        name="pool_kid",
        label="KID (own features)",
        higher_is_better=False,
        low=-float("inf"),
        high=float("inf"),
        meaning="Squared MMD (cubic kernel, unbiased) of the same two sets of features.",
    ),
    Metric(
        name="reference_fid",
        label="FID of validation images (own features)",
        higher_is_better=None,
        high=float("inf"),
        meaning="What real images of other patients score: the least a generator can hope for.",
    ),
    Metric(
        name="pool_cas",
        label="CAS",
        higher_is_better=True,
        meaning="Validation accuracy, mean over classes, of a classifier trained on the whole pool "
        "alone (artifact pool_cas_per_class holds the classes).",
    ),
    Metric(
        name="pool_cas_worst",
        label="CAS of the worst class",
        higher_is_better=True,
        meaning="The lowest of the classes behind CAS.",
    ),
)
METRIC_NAMES = (
    "accuracy",
    "auc",
    "sensitivity",
    "specificity",
    "study_accuracy",
    "kappa",
    "val_best",
    "test_at_best_val",
    "selected",
    "classifier_trainings",
    "optimiser_steps",
)


def generator_stages(config: SelectionConfig, seed: int) -> dict[str, Stage]:
    """The generator's training, cut into checkpoints, each a stage that needs the one before it.

    A run that is killed goes on from the last stored one. Trained on the seed's k-shot images it
    is the seed's own; trained on all images it is one for all seeds.
    """
    of_seed = {}
    if config.generator_images == "k_shot" and config.k_shot:
        of_seed = {"k_shot": config.k_shot, "seed": seed}
    parts = min(config.generator_checkpoints, config.generator_steps)
    found: dict[str, Stage] = {}
    before: dict[str, Stage] = {}
    for part in range(1, parts + 1):
        name = "generator" if part == parts else f"generator-{part}-of-{parts}"
        found[name] = Stage(
            name=name,
            inputs={
                **some_of(config, GENERATOR_FIELDS),
                **of_seed,
                "until": config.generator_steps * part // parts,
            },
            compute="selection_core.stages:compute_generator",
            needs=before,
        )
        before = {name: found[name]}
    return found


def stages(config: SelectionConfig, seed: int) -> dict[str, Stage]:
    """generator and pool (see `generator_stages`), base classifier and features (one per seed).

    A pool of real images depends on the k-shot draw, so on the seed, and needs no generator. The
    selection of a controller is a stage too, which the k-matched controls share. A method without
    a pool is one stage, the final classifier, which is the same whatever the pool.
    """
    if config.method in WITHOUT_POOL:
        final = Stage(
            name="final",
            inputs={
                **some_of(config, ("method", "k_shot", "validation_per_class", *CLASSIFIER_FIELDS)),
                "seed": seed,
            },
            compute="selection_core.training:compute_final",
            offers=("classifier",),
        )
        return {"final": final}
    base = Stage(
        name="base",
        inputs={**some_of(config, ("k_shot", *CLASSIFIER_FIELDS)), "seed": seed},
        compute="selection_core.stages:compute_base",
    )
    pool_fields = ("pool", "pool_per_class", "pool_label_noise")
    before: dict[str, Stage] = {}
    chain: dict[str, Stage] = {}
    if config.pool in PLANTED:
        pool_inputs = {**some_of(config, (*pool_fields, "k_shot")), "seed": seed}
        if config.pool == "collapsed":
            before["base"] = base
            pool_inputs["classifier"] = config.classifier
    elif config.pool not in POOL_KINDS:
        pool_inputs = some_of(config, (*pool_fields, "generator_seed"))
    else:
        chain = generator_stages(config, seed)
        before["generator"] = chain["generator"]
        pool_inputs = some_of(config, (*pool_fields, *GENERATOR_FIELDS))
    pool = Stage(
        name="pool",
        inputs=pool_inputs,
        compute="selection_core.stages:compute_pool",
        needs=before,
    )
    features = Stage(
        name="features",
        inputs={**some_of(config, ("k_shot", "classifier")), "seed": seed},
        compute="selection_core.stages:compute_features",
        needs={"pool": pool, "base": base},
    )
    found = {**chain, **before, "pool": pool, "base": base, "features": features}
    of_extractor = {**some_of(config, CLASSIFIER_FIELDS), "seed": config.generator_seed}
    extractor = Stage(
        name="extractor",
        inputs={**of_extractor, "k_shot": 0},
        compute="selection_core.stages:compute_base",
    )
    if config.method == "true_half" and not planted_truth(config):
        found["extractor"] = extractor
    if config.pool_quality == "on" and config.pool not in PLANTED:
        found["extractor"] = extractor
        found["quality"] = Stage(
            name="quality",
            inputs=of_extractor,
            compute="selection_core.stages:compute_quality",
            needs={"pool": pool, "extractor": extractor},
        )
    if config.method in WITH_CONTROLLER:
        own = config.method in OWN_CONTROLLER
        if (controller := trained_controller(config)) != config.controller:
            config = replace(config, controller=controller)
        found["selection"] = Stage(
            name="selection",
            inputs={**some_of(config, SELECTION_FIELDS), "seed": seed},
            compute="selection_core.controller_selection:compute_selection",
            needs={"pool": pool, "features": features},
            offers=("controller_last", "controller_best") if own else (),
        )
    return found


def fit(config: SelectionConfig, data: ImageDataset, typed: Collection[str]) -> Mapping[str, Any]:
    """The values that this data forces on fields that nobody typed: counts of images at most what
    there is, no transposes of images that are not square.
    """
    found: dict[str, Any] = {}

    def lower(field: str, most: int) -> None:
        if getattr(config, field) > most >= 1 and field not in typed:
            found[field] = most

    train = smallest_class(data.train)
    lower("k_shot", train)
    lower("validation_per_class", smallest_class(data.validation))
    if config.pool in PLANTED:
        lower("pool_per_class", train - found.get("k_shot", config.k_shot))
    if config.pool in POOL_KINDS:
        each = found.get("pool_per_class", config.pool_per_class)
        lower("batches", each * len(data.classes))
    height, width = data.size
    turned = config.classifier_augment == "flips-transposes" and height != width
    if turned and "classifier_augment" not in typed:
        found["classifier_augment"] = "flips"
    return found


def check(config: SelectionConfig, data: ImageDataset) -> None:
    """Refuse, before any work, a configuration that this data cannot serve.

    Raises:
        ConfigError: k_shot above a class's size, too few images for a real pool or in
            validation, an augmentation or a generator that the image's shape forbids, or fields
            that the method does not read.
    """
    _check_method(config)
    offered = [config.pool_per_class] * len(data.classes)
    if config.pool not in POOL_KINDS:
        listed = by_class(config.pool, data.classes, config.pool_per_class)
        offered = [config.pool_per_class or len(own) for own in listed]
    elif config.pool not in PLANTED and config.method not in WITHOUT_POOL:
        halvings(data.size)
    if sum(offered) < config.batches:
        raise ConfigError(
            f"batches must be at most {sum(offered)} (candidates of all classes), got "
            f"{config.batches}"
        )
    check_k_shot(data, config.k_shot)
    for index, name in enumerate(data.classes):
        if config.method == "metric_learning" and data.train.class_sizes.get(index, 0) < 2:
            raise ConfigError(
                "a class must have at least 2 training images with method=metric_learning (a "
                f'triplet needs two), "{name}" has {data.train.class_sizes.get(index, 0)}'
            )
        real = config.k_shot or data.train.class_sizes.get(index, 0)
        wanted = round(config.keep_share * real)
        by_real = config.keep_share_of == "real" and config.method in BY_SHARE
        if by_real and wanted > offered[index]:
            raise ConfigError(
                f"keep_share must be at most {offered[index] / real:g} with keep_share_of=real "
                f'({offered[index]} candidates for {real} real images of class "{name}"), got '
                f"{config.keep_share}"
            )
        left = data.train.class_sizes.get(index, 0) - config.k_shot
        if config.pool in PLANTED and left < config.pool_per_class:
            raise ConfigError(
                f"pool_per_class must be at most {left} with pool={config.pool} (training images "
                f'of class "{name}" outside the k-shot set), got {config.pool_per_class}'
            )
        there = data.validation.class_sizes.get(index, 0)
        if config.validation_per_class > there:
            raise ConfigError(
                f"validation_per_class must be at most {there} (validation images of class "
                f'"{name}"), got {config.validation_per_class}; use 0 for all'
            )
    height, width = data.size
    if config.classifier_augment == "flips-transposes" and height != width:
        raise ConfigError(
            f"classifier_augment must be none, flips or traditional for images of {height} × "
            f'{width} pixels, got "flips-transposes"'
        )


def _check_method(config: SelectionConfig) -> None:
    """Refuse combinations that would run one thing under the name of another."""
    method = config.method
    if method == "logistic_policy" and config.controller not in ("transformer", "logistic"):
        raise ConfigError(
            "controller must be left at transformer with method=logistic_policy, which has no "
            f'sequence model, got "{config.controller}"'
        )
    if method == "traditional_augmentation" and config.classifier_augment == "traditional":
        raise ConfigError(
            "classifier_augment must not be traditional with method=traditional_augmentation, "
            "which would be the baseline; try classifier_augment=none"
        )
    if method == "metric_learning" and config.k_shot == 1:
        raise ConfigError(
            "k_shot must be 0 (all) or at least 2 with method=metric_learning, got 1; a triplet "
            "needs two images of a class"
        )


TASK = Task(
    name="selection_core",
    version=3,
    config=SelectionConfig,
    presets=PRESETS,
    check=check,
    fit=fit,
    stages=stages,
    train="selection_core.training:train_cell",
    metrics=(
        *(METRICS[name] for name in METRIC_NAMES),
        *OWN_METRICS,
        *LEARNING_METRICS,
        *QUALITY_METRICS,
    ),
    passed_on=frozenset(field_names(SelectionConfig)).difference(DECIDING_FIELDS),
    meanings=MEANINGS,
    applying="selection_core.applying",
)
