"""The configuration of synthetic sample selection (Ye et al. 2020): every choice, with its source.

The class defaults are the `paper` preset. This file imports no torch.
"""

from typing import Literal, get_args

from pydantic import field_validator, model_validator
from pydantic.dataclasses import dataclass

from imaging_core.fields import did_you_mean, ours, paper
from selection_core.pool_folder import is_path, stamped

SILENT = "the paper gives no value"
PoolKind = Literal["natural", "mixed", "real", "duplicates", "collapsed"]
POOL_KINDS: tuple[str, ...] = get_args(PoolKind)
PLANTED = ("real", "duplicates", "collapsed")  # pools of training images, whose truth is known
BY_SHARE = (
    "gan_augmentation",
    "metric_learning",
    "centroid_distance",
    "confidence_centroid",
    "agreement",
    "true_half",
)  # methods that keep `keep_share`
OWN_CONTROLLER = ("controller", "logistic_policy")  # methods that keep what theirs chooses


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """One arm. Counts are per cell; learning rates are per optimiser step."""

    # The method: which candidates join the real images (Tables 1 and 2, and our controls)
    method: Literal[
        "baseline",
        "traditional_augmentation",
        "gan_augmentation",
        "metric_learning",
        "centroid_distance",
        "controller",
        "confidence_centroid",
        "agreement",
        "use_all",
        "k_matched_random",
        "k_matched_centroid",
        "random_subset_search",
        "logistic_policy",
        "true_half",
        "oracle",
    ] = paper("controller", "section 2; the others: section 3.2, and README, Rivals and controls")
    keep_share: float = paper(
        0.5, "section 3.1: augmentation ratio of the rivals, here of the pool", gt=0
    )
    keep_share_of: Literal["pool", "real"] = ours(
        "pool",
        "the paper's ratio may mean either: a share of each class's candidates, or of its real "
        "training images (then above 1 is possible)",
    )
    matched_draws: int = ours(1, "random subsets that k_matched_random averages over", ge=1)
    triplet_margin: float = ours(0.2, SILENT, gt=0)

    # Data
    k_shot: int = ours(0, "training images per class the classifiers see; 0 = all, the paper", ge=0)
    validation_per_class: int = ours(
        0, "validation images that rewards and early stopping read; 0 = all, the paper", ge=0
    )

    # The candidate pool (section 3.1)
    pool: PoolKind | str = ours(
        "natural",
        "natural: the last generator; mixed: equal shares of its training snapshots; the path of a "
        "folder: your images, a folder per class; planted truths of training images outside the "
        "k-shot set: real; duplicates: half are copies of the k-shot set; collapsed: half are one "
        "image, the most central of its class",
    )
    pool_per_class: int = paper(
        1024,
        "section 3.1, cervical; 2,048 for PCam; 0 with pool=PATH: every image that is there",
        ge=0,
    )
    pool_quality: Literal["off", "on"] = ours("off", "on: FID, KID and CAS of the pool, once")
    pool_label_noise: float = ours(0.0, "share of candidates given a wrong label", ge=0, le=1)
    generator_seed: int = ours(0, "one generator and pool for all seeds, as in the paper", ge=0)
    generator_images: Literal["k_shot", "all"] = ours(
        "k_shot",
        "what the generator is trained on: the classifiers' k-shot images, so one generator per "
        "seed; all: every training image, which no rival without a pool is given",
    )
    generator_steps: int = ours(20_000, "ours: HistoGAN's settings are not in the paper", ge=1)
    generator_snapshots: int = ours(1, "networks kept, evenly over training, last included", ge=1)
    generator_checkpoints: int = ours(
        10, "parts of its training, each stored, so that a killed one resumes", ge=1
    )
    generator_batch: int = ours(32, SILENT, ge=2)
    generator_width: int = ours(64, "channels at full resolution", ge=4)
    generator_latent: int = ours(64, SILENT, ge=1)
    generator_learning_rate: float = ours(4e-4, SILENT, gt=0)
    discriminator_learning_rate: float = ours(8e-4, SILENT, gt=0)
    generator_ema: float = ours(
        0.999, "decay of the averaged weights that draw the pool", ge=0, lt=1
    )

    # The classifier: feature extractor and final model
    classifier: Literal["resnet34", "small-resnet", "tiny-resnet"] = paper(
        "resnet34", "section 3.1: extractor and classifier are ResNet34"
    )
    classifier_steps: int = ours(
        3300,
        "updates of every fit, however many images are kept: 50 epochs of the cervical images and "
        "half of their pool; 0: classifier_epochs passes, more updates the more is kept",
        ge=0,
    )
    classifier_epochs: int = ours(
        50, "equal parts of classifier_steps, validation is looked at after each", ge=1
    )
    classifier_min_steps: int = ours(
        0, "with classifier_steps=0 epochs are added until this many updates", ge=0
    )
    classifier_batch: int = ours(64, SILENT, ge=2)
    classifier_learning_rate: float = ours(1e-4, SILENT, gt=0)
    classifier_optimiser: Literal["sgd", "adam", "adamw"] = ours("adamw", SILENT)
    classifier_schedule: Literal["constant", "onecycle", "cosine"] = ours("constant", SILENT)
    classifier_weight_decay: float = ours(1e-4, SILENT, ge=0)
    classifier_patience: int = ours(
        0, "with classifier_steps=0: epochs without a better validation accuracy; 0 = never", ge=0
    )
    classifier_augment: Literal["none", "flips", "flips-transposes", "traditional"] = ours(
        "none", "named for the rival of Tables 1 and 2 alone"
    )

    # The reward (section 2.2, eq. 5)
    reward_model: Literal["classifier", "linear_probe"] = paper("classifier", "section 2")
    reward_classifier: Literal["same", "small-resnet", "tiny-resnet"] = paper("same", "section 3.1")
    reward_steps: int = ours(
        1980, "as classifier_steps: 30 epochs of the cervical images and half of their pool", ge=0
    )
    reward_epochs: int = ours(30, "as classifier_epochs, of reward_steps", ge=1)
    reward_repeats: int = ours(
        1, "trainings a reward averages, each of its own initial weights and batch order", ge=1
    )
    reward_augment: Literal["same", "none"] = ours(
        "same", "same: a reward's classifier is augmented as the final one"
    )
    reward_min_steps: int = ours(0, "as classifier_min_steps", ge=0)
    reward_learning_rate: float = ours(1e-4, SILENT, gt=0)
    reward_norm_momentum: float = ours(
        0.1, "batch norm's; a fit of 20 steps needs a shorter memory to be evaluated", gt=0, le=1
    )
    probe_ridge: float = ours(1.0, "penalty of linear_probe, per candidate and image", gt=0)
    reward_statistic: Literal["max", "mean"] = paper("max", "section 3.1: max of the last 5 epochs")
    reward_metric: Literal["accuracy", "log_likelihood"] = paper("accuracy", "section 3.1")
    reward_smoothing: Literal["baseline", "reward"] = ours(
        "baseline",
        "reward: eq. 5 as printed, an action gets 20 % of its own outcome; "
        "baseline: the average of past rewards is subtracted",
    )
    ema_alpha: float = paper(0.8, "eq. 5, weight of the old value", ge=0, lt=1)
    value_baseline: Literal["on", "off"] = paper("on", "eq. 4: A = Q - V")
    value_target: Literal["normalised", "raw"] = ours(
        "normalised",
        "what V learns; normalised: the signal less its running mean, over its running deviation; "
        "raw: the signal itself, of about 0.01, which V overshoots with every step of Adam",
    )
    advantage_scale: Literal["running_rms", "none"] = ours("running_rms", SILENT)
    reward_sign: Literal["normal", "flipped", "random"] = ours("normal", "controls, not methods")
    classifier_reset: Literal["reset", "warm"] = ours(
        "reset", "the paper is silent; warm: a reward continues the last one's weights"
    )

    # The controller (section 2.1)
    controller: Literal["gru", "gru_attention", "transformer", "logistic"] = paper(
        "transformer", "section 2.1; logistic is ours: no sequence model"
    )
    controller_width: int = ours(512, "transformer width; the others are matched to it", ge=4)
    controller_layers: int = paper(2, "section 3.1", ge=1)
    controller_heads: int = paper(2, "section 3.1", ge=1)
    controller_feedforward: int = ours(2048, "width of eq. 3", ge=1)
    controller_match: Literal["on", "off"] = ours("on", "equal parameter counts across controllers")
    positions: Literal["on", "off"] = paper("on", "section 2.1: sinusoidal; transformer only")
    candidate_label: Literal["crossed", "embedding", "off"] = ours(
        "crossed",
        "off: the paper names no label input; crossed: label × feature; embedding: label beside",
    )
    candidate_order: Literal["sorted", "shuffled"] = paper("sorted", "section 3.1")
    batches: int = paper(8, "section 3.1", ge=1)

    final_selection: Literal["threshold", "expected_count", "drawn"] = ours(
        "threshold",
        "the paper is silent; threshold: p > 0.5; expected_count: of each class as many as the "
        "policy expects to keep, its most probable ones; drawn: one draw, as in training",
    )
    policy_readout: Literal["last", "best_smoothed_reward"] = ours(
        "best_smoothed_reward",
        "the iteration whose policy is read; best_smoothed_reward: that of the highest "
        "validation reward, smoothed as in eq. 5; the paper is silent",
    )

    # The policy gradient (section 2.2)
    policy_gradient: Literal["reinforce", "ppo"] = paper("ppo", "section 2.2")
    # iterations, episodes, sampling, ppo_epochs and entropy_weight hold the policy open for the 200
    # rewards they cost; one episode, 4 epochs and 0.01 settle it within 60 (README, "Measured").
    iterations: int = ours(50, SILENT, ge=1)
    episode: Literal["pass", "batch"] = ours(
        "pass", "one reward per pass over all batches; batch: one per batch, 8 times the trainings"
    )
    episodes: int = ours(4, "selections drawn (and rewarded) per iteration", ge=1)
    sampling: Literal["independent", "antithetic"] = ours(
        "antithetic", "antithetic: the second of a pair is drawn from 1 - u"
    )
    learning_rate: float = paper(2.5e-4, "section 3.1", gt=0)
    attention_learning_rate: float = paper(1e-4, "section 3.1: GRU attention's parameters", gt=0)
    clip: float = paper(0.2, "section 3.1, ε of eq. 4", gt=0, lt=1)
    ratio: Literal["candidate", "joint"] = ours(
        "candidate", "joint: one ratio of the product over all candidates, always clipped"
    )
    ppo_epochs: int = ours(2, SILENT, ge=1)
    kl_limit: float = ours(
        0.0, "PPO's epochs end once KL(old, new) passes it, nats a decision; 0 = never", ge=0
    )
    entropy_weight: float = ours(0.05, SILENT, ge=0)
    value_weight: float = ours(0.5, SILENT, ge=0)
    max_grad_norm: float = ours(0.5, SILENT, gt=0)

    @field_validator("pool")
    @classmethod
    def _kind_or_path(cls, value: str) -> str:
        if value in POOL_KINDS:
            return value
        if is_path(value):
            return stamped(value)
        raise ValueError(
            f"must be one of {', '.join(POOL_KINDS)}, or the path of a folder that holds a folder "
            f"of images per class{did_you_mean(value, POOL_KINDS)}"
        )

    @model_validator(mode="after")
    def _fit_together(self) -> "SelectionConfig":
        if self.controller_width % (2 * self.controller_heads):
            raise ValueError(
                f"controller_width must be a multiple of 2 × controller_heads "
                f"({2 * self.controller_heads}), got {self.controller_width}"
            )
        if self.pool_per_class == 0 and self.pool in POOL_KINDS:
            raise ValueError(
                f"pool_per_class must be at least 1 with pool={self.pool}, got 0; 0 means every "
                "image of a folder, pool=PATH"
            )
        if self.keep_share_of == "pool" and self.keep_share > 1:
            raise ValueError(
                f"keep_share must be at most 1 with keep_share_of=pool, got {self.keep_share}; "
                "try keep_share_of=real"
            )
        for kind in ("classifier", "reward"):
            steps, parts = getattr(self, f"{kind}_steps"), getattr(self, f"{kind}_epochs")
            if 0 < steps < parts:
                raise ValueError(
                    f"{kind}_epochs must be at most {kind}_steps ({steps}), whose parts they are, "
                    f"got {parts}"
                )
        if self.classifier_patience and self.classifier_steps:
            raise ValueError(
                "classifier_patience must be 0 with classifier_steps above 0, which gives every "
                f"arm the same updates, got {self.classifier_patience}; or set classifier_steps=0"
            )
        if self.sampling == "antithetic" and self.episodes % 2:
            raise ValueError(
                f"episodes must be even with sampling=antithetic, got {self.episodes}; "
                f"try episodes={self.episodes + 1} or sampling=independent"
            )
        if self.pool in PLANTED and self.k_shot == 0:
            raise ValueError(
                f"k_shot must be above 0 with pool={self.pool}, which draws its candidates from "
                "the training images left over, got 0; try k_shot=16"
            )
        if self.pool not in ("natural", "mixed", "real") and self.pool_label_noise:
            raise ValueError(
                f"pool_label_noise must be 0 with pool={self.pool}, whose labels are its own, "
                f"got {self.pool_label_noise}; try pool=real"
            )
        if self.generator_snapshots > self.generator_steps:
            raise ValueError(
                f"generator_snapshots must be at most generator_steps ({self.generator_steps}), "
                f"got {self.generator_snapshots}"
            )
        return self


def trained_controller(config: SelectionConfig) -> str:
    """The controller that the method trains, where it trains one."""
    return "logistic" if config.method == "logistic_policy" else config.controller


def planted_truth(config: SelectionConfig) -> bool:
    """Whether which candidates are worth keeping is planted, and so known."""
    return config.pool in ("duplicates", "collapsed") or config.pool_label_noise > 0


PRESETS = {
    "paper": {},
    # Sized so that a cell fits 11 s of one CPU core (README, "Measured").
    "demo": {
        "k_shot": 16,
        "pool": "mixed",
        "classifier_steps": 90,
        "pool_per_class": 128,
        "generator_steps": 400,
        "generator_snapshots": 4,
        "generator_checkpoints": 1,
        "generator_width": 16,
        "generator_ema": 0.995,
        "classifier": "small-resnet",
        "classifier_epochs": 10,
        "classifier_min_steps": 60,
        "classifier_batch": 32,
        "classifier_learning_rate": 2e-3,
        "classifier_schedule": "onecycle",
        "classifier_augment": "flips-transposes",
        "reward_classifier": "tiny-resnet",
        "reward_steps": 20,
        "reward_epochs": 10,
        "reward_learning_rate": 5e-3,
        "reward_norm_momentum": 0.3,
        "reward_statistic": "mean",
        "controller_width": 32,
        "controller_feedforward": 64,
        # A draw of p near one half forgets what was learned, a threshold keeps all or nothing; on
        # seeds 100 to 109 (README, "Reading the policy").
        "final_selection": "expected_count",
        "iterations": 18,
        "episodes": 2,
        "sampling": "antithetic",
        "learning_rate": 1e-3,
        "ppo_epochs": 2,
        # Its small controller stays open by itself, and 36 rewards are few to learn from.
        "entropy_weight": 0.01,
    },
}
