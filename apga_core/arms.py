"""The arms of the second phase: what each shows the classifier after the original batch.

Every arm makes two classifier updates a batch, the first on the original images (Alg. 1, line 6),
the second on its own copy of them (line 17), so all have the same budget. `baseline_matched` shows
the original batch twice: what APGA's extra steps alone are worth.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from apga_core import masking, objectives
from apga_core.augmentations import KEEPS, trivial_augment
from apga_core.config import APGAConfig
from apga_core.learner import Learner
from apga_core.networks import Policy
from apga_core.saliency import discretise, grad_cam
from imaging_core.classifiers import Classifier
from imaging_core.descent import Descent, FlatOptimiser

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


@dataclass(kw_only=True)
class Trace:
    """What is logged per class over one epoch; `mean()` reduces it.

    A step only notes its tensors, so that it computes and waits for nothing.
    """

    classes: int
    noted: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def add(self, name: str, values: Tensor, labels: Tensor) -> None:
        """`values` (…, B) of images with `labels` (B,); the same … at every step."""
        self.noted.setdefault(name, []).append((values.reshape(-1, len(labels)), labels))

    def mean(self) -> dict[str, float]:
        """Name → mean since the last call; a class that was not seen has no entry."""
        means = {}
        for name, noted in self.noted.items():
            values = torch.cat([values for values, _ in noted], dim=1).double().mean(dim=0)
            labels = torch.cat([labels for _, labels in noted]).unsqueeze(1)
            of_class = labels == torch.arange(self.classes, device=labels.device)
            # A product, not a scatter: on a GPU scattered sums come in no fixed order.
            sums = torch.stack([values, torch.ones_like(values)]) @ of_class.double()
            for label, (total, count) in enumerate(sums.T.tolist()):
                if count:
                    means[f"{name}/class{label}"] = total / count
        self.noted.clear()
        return means


def rewarded_rows(config: APGAConfig, labels: Tensor) -> Tensor | None:
    """The rows of a batch whose rewards train the policy, on the device of `labels`; None = all.

    How many they are must be known on the host, so a GPU's labels make it wait.
    """
    return (labels > 0).nonzero()[:, 0] if config.reward_images == "positives" else None


class AugmentArm:
    """The second view is a function of the batch: nothing of the arm learns."""

    policy_steps = 0

    def __init__(self, learner: Learner, augment: Callable[[Tensor], Tensor]) -> None:
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
        self.learner.update(self.augment(images), labels)


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

    def learn(
        self,
        images: Tensor,
        labels: Tensor,
        original_losses: Tensor | None = None,
        rewarded: Tensor | None = None,
    ) -> None:
        """One policy update (lines 7-15).

        `original_losses` (B,) are those of the classifier's update, in training mode and before
        it; only `bn_mode=released` reads them. `rewarded` are the rows `rewarded_rows` names,
        found on the host; without them the device is asked and waited for.
        """
        fill = self.pixels.fill(self.config, images)
        self._learn(images, labels, original_losses, rewarded, fill)

    def _learn(
        self,
        images: Tensor,
        labels: Tensor,
        original_losses: Tensor | None,
        rewarded: Tensor | None,
        fill: Tensor,
    ) -> None:
        config = self.config
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
        self._learn(images, labels, original_losses, rewarded, fill)
        count = round(self.config.aid_ratio * len(labels))
        if count:
            fill = fill[:count] if len(fill) == len(images) else fill
            self.learner.update(self._aid(images[:count], labels[:count], fill), labels[:count])

    def _aid(self, images: Tensor, labels: Tensor, fill: Tensor) -> Tensor:
        with torch.no_grad():
            keep = self._aid_keep(self._logits(images), labels)
        keep = masking.to_pixels(keep, images.shape[-2:])
        if self.config.method == "random_mask":
            keep = masking.shift_masks(keep, self.generator)
        return masking.erase(images, keep, fill)

    def _aid_keep(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The aid masks on the policy grid, none empty; areas and fallbacks are counted."""
        keep = masking.aid_keep(logits.detach())
        empty = masking.empty_masks(keep)
        self._empty += empty.sum()
        self.aided += len(labels)
        self.trace.add("mask_area", keep.mean(dim=(1, 2, 3)), labels)
        self.trace.add("empty_masks", empty, labels)
        return masking.keep_all_where_empty(keep)

    @torch.no_grad()
    def importance(self, images: Tensor) -> Tensor:
        """p on the policy's grid, (N, 1, h, w), in chunks that fit a small memory."""
        return torch.cat([torch.sigmoid(self._logits(chunk)) for chunk in images.split(256)])

    def _logits(self, images: Tensor) -> Tensor:
        with self.learner.autocast():
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
        self.learner.update(masked, labels, penalty)
        self.optimiser.step()
        self.policy_steps += 1


Arm = AugmentArm | PolicyArm


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
    """
    if config.method in KEEPS:
        draw = KEEPS[config.method]
        # The mean is Hide-and-Seek's own fill; cutout's is black, as in the paper.
        value = 0.0 if config.method == "hide_and_seek" else pixels.black.view(1, -1, 1, 1)

        def hide(images: Tensor) -> Tensor:
            keep = draw(len(images), tuple(images.shape[-2:]), generator).to(images)
            fill = torch.as_tensor(value).to(images)
            return masking.erase(images, keep, fill)

        return AugmentArm(learner, hide)
    if config.method == "gradcam":

        def attend(images: Tensor) -> Tensor:
            keep = discretise(grad_cam(base, images), tuple(images.shape[-2:]))
            return masking.erase(images, keep, pixels.fill(config, images))

        return AugmentArm(learner, attend)
    if config.method == "trivial_augment":
        return AugmentArm(
            learner, lambda images: trivial_augment(images, pixels.mean, pixels.std, generator)
        )
    if config.method in ("baseline", "baseline_matched"):
        return AugmentArm(learner, lambda images: images)
    kind = EndToEndArm if config.method == "end2end" else PolicyArm
    return kind(config, policy, learner, pixels=pixels, classes=classes, generator=generator)
