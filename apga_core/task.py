"""APGA as the engine sees it: the configuration, its presets, its stage and where it trains."""

from collections.abc import Collection, Mapping
from typing import Any

from apga_core.config import POLICY_METHODS, PRESETS, APGAConfig
from apga_core.initial_weights import weights_notes
from apga_core.meanings import MEANINGS
from imaging_core.datasets.base import ImageDataset
from imaging_core.fields import ConfigError, field_names, some_of
from imaging_core.metric_table import METRICS
from imaging_core.splits import check_k_shot, smallest_class
from imaging_core.task import Metric, Stage, Task

VERSION = 4
"""2: small networks and the masked step round differently; 3: small-unet does; 4: fills and
`aid_ratio` act on every arm, `precision` in both phases, `evaluations` counts phase one's looks."""

BASE_FIELDS = (
    "classifier",
    "weights",
    "weights_path",
    "k_shot",
    "batch_size",
    "augment",
    "base_epochs",
    "base_learning_rate",
    "base_schedule",
    "base_patience",
    "base_min_steps",
    "weight_decay",
    "class_weights",
    "precision",
)
"""What the converged classifier depends on; every arm that agrees in these shares it."""

CONTROL_FIELDS = (
    "classifier",
    "weights",
    "weights_path",
    "policy_weights",
    "policy_weights_path",
    "k_shot",
    "policy_network",
    "grid",
    "initial_bias",
    "erase_value",
    "blur_sigma",
    "precision",
)
"""What the maps that the policy is compared with depend on."""

_INFINITY = float("inf")

APGA_METRICS = (
    Metric(
        name="classifier_steps",
        label="Classifier steps",
        higher_is_better=None,
        high=_INFINITY,
        meaning="Gradient steps of the classifier in the second phase: equal for every arm but "
        "baseline, which has none.",
    ),
    Metric(
        name="images_seen",
        label="Images seen",
        higher_is_better=None,
        high=_INFINITY,
        meaning="Images in the batches of these steps, original and second views: equal as well.",
    ),
    Metric(
        name="mask_area",
        label="Mask area",
        higher_is_better=None,
        meaning="Mean share of a validation image that the policy calls important (p ≥ 0.5).",
    ),
    Metric(
        name="empty_masks",
        label="Empty masks",
        higher_is_better=None,
        meaning="Share of the second phase's aid masks that kept nothing; unless "
        "empty_aid=as-printed, they fell back to the original image.",
    ),
    Metric(
        name="lesion_auroc",
        label="AUROC of p for the lesion",
        higher_is_better=True,
        meaning="Over the pixels of a test image with a lesion, averaged over the first 150 such "
        "images.",
    ),
    Metric(
        name="lesion_iou",
        label="IoU of p for the lesion",
        higher_is_better=True,
        meaning="Of the lesion with as many top-ranked pixels, averaged over the same images.",
    ),
    Metric(
        name="lesion_margin",
        label="AUROC of p above the best control",
        higher_is_better=True,
        low=-1,
        meaning="lesion_auroc less the highest of: intensity, image − blur (signed and absolute), "
        "bone mask, untrained policy, Grad-CAM, occlusion.",
    ),
    Metric(
        name="lesion_iou_margin",
        label="IoU of p above the best control",
        higher_is_better=True,
        low=-1,
        meaning="lesion_iou less the highest of the same controls.",
    ),
    Metric(
        name="reward_of_lesion",
        label="Reward of erasing the lesion",
        higher_is_better=None,
        low=-_INFINITY,
        high=_INFINITY,
        meaning="Eq. (6) of the converged classifier on test images, before the second phase.",
    ),
    Metric(
        name="reward_of_patch_positive",
        label="Reward of erasing a patch, positives",
        higher_is_better=None,
        low=-_INFINITY,
        high=_INFINITY,
        meaning="As above for a lesion-sized patch at a random place of a positive image.",
    ),
    Metric(
        name="reward_of_patch_negative",
        label="Reward of erasing a patch, negatives",
        higher_is_better=None,
        low=-_INFINITY,
        high=_INFINITY,
        meaning="As above for negative images: above 0, the fill itself looks like a lesion.",
    ),
    Metric(
        name="tta_accuracy",
        label="Test accuracy, two views",
        higher_is_better=True,
        meaning="Mean of the original and the aid-masked view where validation prefers it, "
        "else the original alone.",
    ),
)


def fit(config: APGAConfig, data: ImageDataset, typed: Collection[str]) -> Mapping[str, Any]:
    """The values that this data forces on fields that nobody typed: images per class at most what
    there are, a grid inside the image, no transposes of images that are not square.
    """
    found: dict[str, Any] = {}
    most, side = smallest_class(data.train), min(data.size)
    if config.k_shot > most >= 1 and "k_shot" not in typed:
        found["k_shot"] = most
    if config.grid > side and "grid" not in typed:
        found["grid"] = side
    if config.augment == "flips-transposes" and len(set(data.size)) > 1 and "augment" not in typed:
        found["augment"] = "flips"
    return found


def check(config: APGAConfig, data: ImageDataset) -> tuple[str, ...]:
    """Refuse what does not fit together, before any work.

    Returns:
        What the user should know before it starts: which weights the networks take.

    Raises:
        ConfigError: k_shot above a class's size, a grid or network that does not fit the image,
            weights that are not there or do not fit.
    """
    check_k_shot(data, config.k_shot)
    height, width = data.size
    if config.grid > min(height, width):
        raise ConfigError(
            f"grid must be at most the image's side ({min(height, width)}), got {config.grid}"
        )
    if config.augment == "flips-transposes" and height != width:
        raise ConfigError(
            f"augment must be none, flips or traditional for images of {height} × {width} pixels, "
            'got "flips-transposes"'
        )
    multiple = {"small-unet": 4, "coarse-unet": 8, "unet-vgg11": 32}[config.policy_network]
    if height % multiple or width % multiple:
        raise ConfigError(
            f"policy_network={config.policy_network} needs sides that are multiples of "
            f"{multiple}, got {height} × {width}; use another network or image size"
        )
    if config.policy_network == "coarse-unet" and not 0 < config.grid <= min(height, width) // 4:
        raise ConfigError(
            f"policy_network=coarse-unet needs a grid of 1 to {min(height, width) // 4} (a "
            f"quarter of the side), got {config.grid}; use small-unet for finer actions"
        )
    return weights_notes(config, data)


def stages(config: APGAConfig, seed: int) -> Mapping[str, Stage]:
    """The converged classifier, one per (data, k_shot, seed, classifier's settings); and, for arms
    with a policy, what the maps that it must beat score."""
    inputs = {**some_of(config, BASE_FIELDS), "seed": seed}
    base = Stage(name="base", inputs=inputs, compute="apga_core.stages:train_base")
    if config.method not in POLICY_METHODS:
        return {"base": base}
    controls = Stage(
        name="controls",
        inputs={**some_of(config, CONTROL_FIELDS), "seed": seed},
        compute="apga_core.stages:score_controls",
        needs={"base": base},
    )
    return {"base": base, "controls": controls}


TASK = Task(
    name="apga_core",
    version=VERSION,
    config=APGAConfig,
    presets=PRESETS,
    check=check,
    fit=fit,
    stages=stages,
    train="apga_core.training:train_cell",
    metrics=(
        *(
            METRICS[name]
            for name in (
                "accuracy",
                "auc",
                "sensitivity",
                "specificity",
                "balanced_accuracy",
                "study_accuracy",
                "kappa",
                "val_best",
                "test_at_best_val",
                "optimiser_steps",
                "evaluations",
            )
        ),
        *APGA_METRICS,
    ),
    passed_on=frozenset(field_names(APGAConfig)) - {"method"},
    meanings=MEANINGS,
    applying="apga_core.applying",
)
