"""The arms of the second phase: what each shows the classifier after the original batch.

Every arm makes two classifier updates a batch, the first on the original images (Alg. 1, line 6),
the second on its own copy of `aid_ratio` of them (line 17), so all have the same budget; what a
mask takes is filled by `erase_value`, whichever arm drew it. `baseline_matched` shows the original
batch twice: what APGA's extra steps alone are worth.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from apga_core import masking, objectives
from apga_core.augmentations import KEEPS, trivial_augment
from apga_core.config import APGAConfig
from apga_core.learner import Learner
from apga_core.networks import Policy
from apga_core.saliency import discretise, grad_cam
from apga_core.trace import Trace
from imaging_core.classifiers import Classifier
from imaging_core.descent import Descent, FlatOptimiser
from imaging_core.fitting import evaluation_batch
from imaging_core.precision import autocast
from imaging_core.standardised import Images

EMPTY_AIDS: dict[str, Callable[[Tensor], Tensor]] = {
    "original": masking.keep_all_where_empty,
    "as-printed": lambda keep: keep,
}
"""What each level of `empty_aid` makes of aid masks (B, 1, h, w)."""
RMS_DECAY = 0.9  # of the running mean square of the advantage: about ten steps


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """How standardised pixels came about: `mean`, `std` (C,) of images in [0, 1]."""

    mean: Tensor
    std: Tensor

    @property
    def black(self) -> Tensor:
        """(C,): a pixel of 0 in the file."""
        return -self.mean / self.std

    def to(self, device: str | torch.device) -> "Pixels":
        """The same on `device`, where a fill need not fetch them."""
        return Pixels(mean=self.mean.to(device), std=self.std.to(device))

    def fill(self, config: APGAConfig, images: Tensor) -> Tensor:
        """What `erase_value` puts in place of erased pixels of `images`."""
        sigma = config.blur_sigma * min(images.shape[-2:])
        return masking.fill_images(images, config.erase_value, black=self.black, blur_sigma=sigma)


def rewarded_rows(config: APGAConfig, labels: Tensor) -> Tensor | None:
    """The rows of a batch whose rewards train the policy, on the device of `labels`; None = all.

    How many they are must be known on the host, so a GPU's labels make it wait.
    """
    return (labels > 0).nonzero()[:, 0] if config.reward_images == "positives" else None


def second_views(config: APGAConfig, batch: int) -> int:
    """How many of a batch's images have a second view; never one, that batch norm cannot take."""
    count = round(config.aid_ratio * batch)
    return count if count > 1 else 0


class AugmentArm:
    """The second view is a function of the batch: nothing of the arm learns."""

    policy_steps = 0

    def __init__(
        self, config: APGAConfig, learner: Learner, augment: Callable[[Tensor], Tensor]
    ) -> None:
        self.config = config
        self.learner = learner
        self.augment = augment

    def second_step(
        self,
        images: Tensor,
        labels: Tensor,
        original_losses: Tensor,
        rewarded: Tensor | None = None,
    ) -> None:
        """The update of line 17; what only a policy needs is ignored."""
        count = second_views(self.config, len(labels))
        if count:
            self.learner.update(self.augment(images[:count]), labels[:count], second_view=True)


class PolicyArm:
    """APGA (Alg. 1, lines 7-17): the policy learns from the adversary's reward, then aids.

    `random_mask` is the same arm but for the last step, which uses the aid mask moved to a random
    place: the area and outline are APGA's, the position says nothing.
    """

    def __init__(
        self,
        config: APGAConfig,
        policy: Policy,
        learner: Learner,
        *,
        pixels: Pixels,
        classes: int,
        generator: Generator,
    ) -> None:
        self.config = config
        self.policy = policy
        self.learner = learner
        self.pixels = pixels
        self.generator = generator
        self.optimiser = FlatOptimiser(
            policy.parameters(), Descent(kind="adam", learning_rate=config.policy_learning_rate)
        )
        self.trace = Trace(classes=classes)
        self.policy_steps = 0
        self.aided = 0
        self._empty = torch.zeros((), dtype=torch.int64, device=learner.device)
        self._baseline: Tensor | None = None
        self._mean_square: Tensor | None = None

    @property
    def empty(self) -> int:
        """How many of the `aided` aid masks kept nothing; reading it waits for the device."""
        return int(self._empty)

    @empty.setter
    def empty(self, count: int) -> None:
        self._empty.fill_(count)

    @property
    def running(self) -> dict[str, Tensor]:
        """The running means of the reward, as far as there are any."""
        found = {"baseline": self._baseline, "mean_square": self._mean_square}
        return {name: value for name, value in found.items() if value is not None}

    @running.setter
    def running(self, means: dict[str, Tensor]) -> None:
        self._baseline, self._mean_square = means.get("baseline"), means.get("mean_square")

    def learn(
        self,
        images: Tensor,
        labels: Tensor,
        original_losses: Tensor | None = None,
        rewarded: Tensor | None = None,
        fill: Tensor | None = None,
    ) -> None:
        """One policy update (lines 7-15).

        `original_losses` (B,) are those of the classifier's update, in training mode and before
        it; only `bn_mode=released` reads them. `rewarded` are the rows `rewarded_rows` names,
        found on the host; without them the device is asked and waited for. `fill` is that of
        `pixels` for these images, where the caller has it.
        """
        config = self.config
        fill = self.pixels.fill(config, images) if fill is None else fill
        original = original_losses if config.bn_mode == "released" else None
        rewarded = rewarded_rows(config, labels) if rewarded is None else rewarded
        if rewarded is not None:
            if not len(rewarded):
                return
            fill = fill[rewarded] if len(fill) == len(images) else fill
            images, labels = images[rewarded], labels[rewarded]
            original = None if original is None else original[rewarded]
        logits = self._logits(images)
        if config.sampling == "greedy":
            erased = objectives.greedy_action(logits.detach()).unsqueeze(0)
        else:
            erased = objectives.bernoulli_action(logits, config.samples, self.generator)
        adversarial, original = self._losses(images, labels, erased, fill, original)
        reward = objectives.adversarial_reward(adversarial, original)
        self.trace.add("reward", reward, labels)
        self._descend(logits, erased, reward)

    def _losses(
        self, images: Tensor, labels: Tensor, erased: Tensor, fill: Tensor, original: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """(K, B) losses without what the actions `erased` (K, B, 1, h, w) take, and (B,) with all.

        Both in one forward pass, unless the `original` ones are given.
        """
        samples, batch = erased.shape[:2]
        keep = 1.0 - erased
        if original is None:  # as one more sample, that takes nothing
            keep = torch.cat([keep, torch.ones_like(keep[:1])])
        views = len(keep)
        keep = masking.to_pixels(keep.flatten(0, 1), images.shape[-2:])
        shown = masking.erase(images, keep.unflatten(0, (views, batch)), fill).flatten(0, 1)
        losses = self.learner.losses(shown, labels.repeat(views)).view(views, batch)
        return losses[:samples], losses[-1] if original is None else original

    def _descend(self, logits: Tensor, erased: Tensor, reward: Tensor) -> None:
        config = self.config
        reward = objectives.share_reward(reward, config.reward_granularity)
        advantage, self._baseline = objectives.subtract_baseline(
            reward, self._baseline, config.baseline_decay, config.reward_baseline
        )
        if config.advantage_scale == "running-rms":
            advantage, self._mean_square = objectives.scale_advantage(
                advantage, self._mean_square, RMS_DECAY
            )
        ramp = min(1.0, self.policy_steps / max(config.lambda_ramp_steps, 1))
        loss = objectives.policy_loss(
            logits,
            objectives.policy_target(erased, config.target),
            advantage,
            pg_scale=config.pg_scale,
            lambda_mode=config.lambda_mode,
            lambda_zeros=config.lambda_zeros * (ramp if config.lambda_ramp_steps else 1.0),
            lambda_ones=config.lambda_ones,
        )
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.policy_steps += 1

    def second_step(
        self,
        images: Tensor,
        labels: Tensor,
        original_losses: Tensor,
        rewarded: Tensor | None = None,
    ) -> None:
        """Lines 7-17: the policy's update, then the classifier's on what the new policy keeps."""
        fill = self.pixels.fill(self.config, images)
        self.learn(images, labels, original_losses, rewarded, fill)
        count = second_views(self.config, len(labels))
        if count:
            fill = fill[:count] if len(fill) == len(images) else fill
            aided = self._aid(images[:count], labels[:count], fill)
            self.learner.update(aided, labels[:count], second_view=True)

    def _aid(self, images: Tensor, labels: Tensor, fill: Tensor) -> Tensor:
        with torch.no_grad():
            keep = self._aid_keep(self._logits(images), labels)
        keep = masking.to_pixels(keep, images.shape[-2:])
        if self.config.method == "random_mask":
            keep = masking.shift_masks(keep, self.generator)
        return masking.erase(images, keep, fill)

    def _aid_keep(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The aid masks on the policy grid; areas, and how many keep nothing, are counted."""
        keep = masking.aid_keep(logits.detach())
        empty = masking.empty_masks(keep)
        self._empty += empty.sum()
        self.aided += len(labels)
        self.trace.add("mask_area", keep.mean(dim=(1, 2, 3)), labels)
        self.trace.add("empty_masks", empty, labels)
        return EMPTY_AIDS[self.config.empty_aid](keep)

    @torch.no_grad()
    def importance(self, images: Images) -> Tensor:
        """p on the policy's grid, (N, 1, h, w), in chunks that fit a small memory."""
        chunks = images.split(evaluation_batch(images))
        return torch.cat([torch.sigmoid(self._logits(chunk)) for chunk in chunks])

    @torch.no_grad()
    def mask_area(self, images: Images) -> float:
        """The share of the grid that the policy keeps, over all images."""
        chunks = images.split(evaluation_batch(images))  # a bit an action is enough to remember
        kept = torch.cat([torch.sigmoid(self._logits(chunk)) >= 0.5 for chunk in chunks])
        return float(kept.float().mean())

    @torch.no_grad()
    def aid_views(self, images: Tensor) -> Tensor:
        """The images (N, C, H, W) as the aid masks leave them."""
        keep = (self.importance(images) >= 0.5).to(images.dtype)
        keep = masking.to_pixels(EMPTY_AIDS[self.config.empty_aid](keep), images.shape[-2:])
        return masking.erase(images, keep, self.pixels.fill(self.config, images))

    def _logits(self, images: Tensor) -> Tensor:
        with autocast(self.learner.device, self.config.precision):
            x = images.contiguous(memory_format=torch.channels_last)
            return self.policy(x).float()


class EndToEndArm(PolicyArm):
    """The policy learns from the classifier's own gradient through hard masks, straight through.

    The released script never zeroes the policy's gradients and steps the classifier twice on those
    of the plain loss; here both are zeroed before every step.
    """

    def learn(
        self,
        images: Tensor,
        labels: Tensor,
        original_losses: Tensor | None = None,
        rewarded: Tensor | None = None,
        fill: Tensor | None = None,
    ) -> None:
        """Nothing: the update is in `second_step`."""

    def second_step(
        self,
        images: Tensor,
        labels: Tensor,
        original_losses: Tensor,
        rewarded: Tensor | None = None,
    ) -> None:
        """One step of both networks on the cross-entropy of the masked images."""
        count = second_views(self.config, len(labels))
        if not count:
            return
        images, labels = images[:count], labels[:count]
        logits = self._logits(images)
        p = torch.sigmoid(logits)
        keep = self._aid_keep(logits, labels) + p - p.detach()
        keep = masking.to_pixels(keep, images.shape[-2:])
        penalty = objectives.extreme_action_term(
            logits,
            torch.ones(1, len(labels), device=images.device),
            mode="constant",
            zeros=self.config.end2end_zeros,
            ones=self.config.end2end_ones,
        )
        masked = masking.erase(images, keep, self.pixels.fill(self.config, images))
        self.optimiser.zero_grad()
        self.learner.update(masked, labels, penalty, second_view=True)
        self.optimiser.step()
        self.policy_steps += 1


Arm = AugmentArm | PolicyArm

POLICY_ARMS: dict[str, type[PolicyArm]] = {
    "apga": PolicyArm,
    "random_mask": PolicyArm,
    "end2end": EndToEndArm,
}
"""The arm of each method that trains a policy (`config.POLICY_METHODS`)."""


def build_arm(
    config: APGAConfig,
    learner: Learner,
    *,
    base: Classifier,
    policy: Policy | None,
    pixels: Pixels,
    classes: int,
    generator: Generator,
) -> Arm:
    """The arm `config.method` names; `base` is the converged classifier, frozen.

    `policy` is needed for the methods of `config.POLICY_METHODS` only.

    Raises:
        KeyError: a method that nothing here builds; none stands for another.
    """
    if config.method in KEEPS:
        draw = KEEPS[config.method]

        def hide(images: Tensor) -> Tensor:
            keep = draw(len(images), tuple(images.shape[-2:]), generator).to(images)
            return masking.erase(images, keep, pixels.fill(config, images))

        return AugmentArm(config, learner, hide)
    if config.method == "gradcam":

        def attend(images: Tensor) -> Tensor:
            maps = grad_cam(base, images, config.precision)
            keep = discretise(maps, tuple(images.shape[-2:]))
            return masking.erase(images, keep, pixels.fill(config, images))

        return AugmentArm(config, learner, attend)
    if config.method == "trivial_augment":
        return AugmentArm(
            config,
            learner,
            lambda images: trivial_augment(images, pixels.mean, pixels.std, generator),
        )
    if config.method in ("baseline", "baseline_matched"):
        return AugmentArm(config, learner, lambda images: images)
    kind = POLICY_ARMS[config.method]
    return kind(config, policy, learner, pixels=pixels, classes=classes, generator=generator)
