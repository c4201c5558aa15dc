"""The configuration of APGA: every factor with its levels, and where each default comes from.

The defaults are the `paper` preset: the values Cheng et al. 2019 print, read soundly where the
text contradicts itself (README.md, "Departures from the paper"). No torch here.
"""

from typing import Literal

import pydantic
from pydantic.dataclasses import dataclass

from imaging_core.fields import ours, paper
from imaging_core.stamps import stamped_file

Method = Literal[
    "baseline",
    "baseline_matched",
    "cutout",
    "cutout_released",
    "hide_and_seek",
    "trivial_augment",
    "gradcam",
    "end2end",
    "random_mask",
    "apga",
]
"""The arms, in the order in which `sweeps/apga_methods.py` computes and shows them."""

POLICY_METHODS = ("apga", "random_mask", "end2end")
"""The methods that train a policy; the others ignore its fields."""


@dataclass(frozen=True, kw_only=True, config=pydantic.ConfigDict(extra="forbid"))
class APGAConfig:
    """One arm of Cheng et al. 2019.

    Attributes:
        method: `apga`, or the arm it is compared with (see `apga_core.arms`).
        k_shot: training images per class; 0 = all.
        classifier, policy_network: networks by name.
        weights, policy_weights: what the networks start from: random weights, or torchvision's for
            ImageNet (of the policy its encoder), and then ImageNet's normalisation of the images.
        weights_path, policy_weights_path: files with initial weights instead, known by their
            content: as torchvision names them, or as this project does; empty = none.
        batch_size: images per step, in both phases.
        augment: what every batch goes through in both phases, before any arm.
        base_epochs, base_learning_rate, base_schedule, base_patience, base_min_steps: the first
            phase, training the classifier to convergence (Alg. 1, line 2).
        weight_decay: of the classifier, both phases.
        class_weights: of the classifier's loss, both phases: none, or each class the same in sum.
            Losses in rewards are never weighted.
        epochs, patience, min_steps: the second phase (Alg. 1, lines 3-18); `epochs` grows until
            `min_steps` batches are seen; patience 0 = never stop early.
        learning_rate, policy_learning_rate: Adam, second phase.
        policy_warmup_steps: batches on which the policy alone learns, before the second phase.
        aid_ratio: second views per original image in the second phase, of every arm.
        second_view_statistics: what a second view does to the classifier's batch norm, in every
            arm (`apga_core.batch_norm`): its running statistics are `shared` with the originals,
            `frozen` for the second view, `separate` layers, or `re-estimated` before a score.
        empty_aid: an aid mask that keeps nothing keeps the original image, or, line 17 as printed,
            nothing: a filled image with its label.
        target: what Eq. (5) compares p with: the action taken, or line 8's kept pixels.
        sampling: the adversary's action: threshold 0.5, or Bernoulli draws on the grid.
        grid: cells per side of an action; 0 = one per pixel.
        samples: actions per image and step.
        reward_granularity: R per image, or the batch's mean for every image.
        reward_baseline, baseline_decay: b of Eq. (7).
        advantage_scale: R − b as it is, or over its running root mean square.
        reward_images: whose rewards train the policy: all, or positives (class above 0) only.
        lambda_zeros, lambda_mode, lambda_ones: the terms against extreme masks.
        lambda_ramp_steps: policy updates over which lambda_zeros rises from 0: masks start large
            and shrink (a curriculum on area), so the policy does not collapse before it knows.
        pg_scale: weight of the policy gradient term.
        erase_value: what an erased pixel becomes, whichever arm's mask erased it.
        blur_sigma: of `erase_value="blur"`, as a share of the image's shorter side.
        bn_mode: both losses of Eq. (6) from the same weights in eval mode, or as released: the
            original one from the training step before its update.
        initial_bias: of the policy's last layer: p starts near sigmoid(initial_bias).
        end2end_zeros, end2end_ones: λ of the end-to-end arm.
        tta: also score the mean of the original and the aid-masked view, reported apart.
        precision: of the networks, in both phases and in every score; weights, masks, losses and
            rewards stay float32.
    """

    method: Method = paper("apga", "Sec. 2")
    k_shot: int = paper(0, "Sec. 3.1; 100 in Table 2", ge=0)
    classifier: Literal["densenet169", "resnet34", "small-resnet", "tiny-resnet"] = paper(
        "densenet169", "Sec. 3"
    )
    policy_network: Literal["unet-vgg11", "small-unet", "coarse-unet"] = paper(
        "unet-vgg11", "Sec. 3, TernausNet's family"
    )
    weights: Literal["none", "imagenet"] = paper("imagenet", "Sec. 3")
    policy_weights: Literal["none", "imagenet"] = ours(
        "imagenet", "TernausNet's encoder starts there; Carvana's weights fit its decoder only"
    )
    weights_path: str = ours("", "a file in place of `weights`")
    policy_weights_path: str = ours("", "a file in place of `policy_weights`")
    batch_size: int = paper(25, "Sec. 3", ge=2)
    augment: Literal["none", "flips", "flips-transposes", "traditional"] = paper(
        "none", "Sec. 3: no augmentation but the masks"
    )

    base_epochs: int = ours(30, 'Alg. 1 line 2 says "to convergence"', ge=1)
    base_learning_rate: float = paper(1e-4, "Sec. 3", gt=0)
    base_schedule: Literal["constant", "onecycle", "cosine"] = paper("constant", "Sec. 3")
    base_patience: int = ours(5, "convergence: epochs without a better validation accuracy", ge=0)
    base_min_steps: int = ours(200, "100 images per class make 8 batches an epoch", ge=0)
    weight_decay: float = paper(0.0, "Sec. 3 names none", ge=0)
    class_weights: Literal["none", "balanced"] = paper("none", "Sec. 3: plain cross-entropy")

    epochs: int = ours(20, "the paper gives no T; the released script stops within 100", ge=1)
    patience: int = ours(0, "early stopping would give the arms unequal budgets", ge=0)
    min_steps: int = ours(200, "100 images per class make 8 batches an epoch", ge=0)
    learning_rate: float = paper(1e-4, "Sec. 3; the released script uses 1e-5", gt=0)
    policy_learning_rate: float = paper(1e-4, "Sec. 3; the released script uses 1e-5", gt=0)
    policy_warmup_steps: int = paper(0, "Alg. 1 has none", ge=0)
    aid_ratio: float = paper(1.0, "Sec. 3", ge=0, le=1)
    second_view_statistics: Literal["shared", "frozen", "separate", "re-estimated"] = ours(
        "shared", "the paper does not say; the released script keeps one set for both views"
    )
    empty_aid: Literal["original", "as-printed"] = ours(
        "original", "line 17 would train on a black image with a real label"
    )

    target: Literal["taken-action", "as-printed"] = ours(
        "taken-action", "lines 8 and 12 reward the opposite action; eq. 3 is right with this one"
    )
    sampling: Literal["greedy", "bernoulli-grid"] = paper("greedy", "Alg. 1 line 8")
    grid: int = paper(0, "Sec. 2.1: pixel-wise", ge=0)
    samples: int = paper(1, "Alg. 1", ge=1)
    reward_granularity: Literal["image", "batch"] = ours(
        "image", "the batch's mean gives every image the credit of all; Alg. 1 does not say"
    )
    reward_baseline: Literal["ema-before", "ema-after", "none", "leave-one-out"] = paper(
        "ema-before", "eq. 7; Alg. 1 line 14 has none"
    )
    baseline_decay: float = paper(0.5, "Sec. 3", ge=0, lt=1)
    advantage_scale: Literal["none", "running-rms"] = paper("none", "eq. 7")
    reward_images: Literal["all", "positives"] = paper("all", "Alg. 1")
    lambda_zeros: float = paper(0.1, "Sec. 3", ge=0)
    lambda_mode: Literal["constant", "abs-advantage"] = paper("constant", "eq. 7")
    lambda_ramp_steps: int = paper(0, "eq. 7: constant", ge=0)
    lambda_ones: float = paper(0.0, "eq. 7; the released script uses 0.01", ge=0)
    pg_scale: float = paper(1.0, "eq. 7; the released script uses 100", gt=0)
    erase_value: Literal["zero", "mean", "blur"] = paper("zero", "Sec. 2.1")
    blur_sigma: float = ours(0.125, "not in the paper: wide enough to take a lesion away", gt=0)
    bn_mode: Literal["matched", "released"] = ours(
        "matched", "else an empty mask has a reward; the paper does not say"
    )
    initial_bias: float = paper(0.0, "none is named")
    end2end_zeros: float = ours(0.5, "tuned in the paper, not printed; the released value", ge=0)
    end2end_ones: float = ours(0.6, "tuned in the paper, not printed; the released value", ge=0)
    tta: bool = ours(False, "Sec. 4 only suggests it; the released script always does it")
    precision: Literal["float32", "bfloat16"] = ours("float32", "the same numbers on every device")

    @pydantic.field_validator("weights_path", "policy_weights_path")
    @classmethod
    def _stamped(cls, value: str) -> str:
        return stamped_file(value)

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "APGAConfig":
        if self.sampling == "greedy" and self.samples != 1:
            raise ValueError(
                f"samples must be 1 with sampling=greedy (every draw is the same), got "
                f"{self.samples}; use sampling=bernoulli-grid"
            )
        if self.reward_baseline == "leave-one-out" and self.samples < 2:
            raise ValueError(
                f"reward_baseline=leave-one-out needs samples of at least 2, got {self.samples}; "
                "use samples=4 with sampling=bernoulli-grid"
            )
        return self


DEMO = {
    "weights": "none",
    "policy_weights": "none",
    "classifier": "tiny-resnet",
    "policy_network": "coarse-unet",
    "batch_size": 50,
    "augment": "flips",
    "base_epochs": 20,
    "base_learning_rate": 3e-3,
    "base_schedule": "onecycle",
    "base_patience": 0,
    "weight_decay": 1e-4,
    "epochs": 3,
    "min_steps": 60,
    "learning_rate": 3e-4,
    "policy_learning_rate": 2e-3,
    "policy_warmup_steps": 120,
    "second_view_statistics": "separate",
    "sampling": "bernoulli-grid",
    "grid": 8,
    "samples": 4,
    "reward_baseline": "leave-one-out",
    "advantage_scale": "running-rms",
    "reward_images": "positives",
    "lambda_zeros": 0.1,
    "lambda_ramp_steps": 100,
    "erase_value": "blur",
    "initial_bias": -2.0,
}

RELEASED = {
    "method": "apga",
    "weights": "none",
    "policy_weights": "imagenet",
    "base_epochs": 100,
    "base_patience": 15,
    "epochs": 100,
    "patience": 15,
    "min_steps": 0,
    "learning_rate": 1e-5,
    "policy_learning_rate": 1e-5,
    "second_view_statistics": "shared",
    "target": "taken-action",
    "sampling": "greedy",
    "reward_granularity": "batch",
    "reward_baseline": "ema-after",
    "lambda_mode": "abs-advantage",
    "lambda_ones": 0.01,
    "pg_scale": 100.0,
    "erase_value": "zero",
    "bn_mode": "released",
    "tta": True,
}
"""The authors' script, level by level, where it differs from the paper or settles what that leaves
open; its faults that change no level (README.md, "Departures") are not repeated."""

PRESETS = {"paper": {}, "demo": DEMO, "released": RELEASED}
"""`paper` is the defaults; `demo` is for 32 px on one CPU core, a cell in seconds; `released` is
the authors' script."""
