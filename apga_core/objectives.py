"""The losses and rewards of APGA (Cheng et al., MICCAI 2019), Eq. (2)-(7) and Algorithm 1.

Throughout, p = sigmoid(logits) is the *importance* of a pixel (or of a cell of a coarse grid), and
the action e is 1 where the adversary erases it: π(e = 1) = p, so −log π(e) = BCE(p, e). Shapes:
B images, K sampled actions per image, (H, W) the policy's grid.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from apga_core.learner import to_device


def greedy_action(logits: Tensor) -> Tensor:
    """Erase where p > 0.5 (Sec. 2.3): 0/1 in the shape of `logits`. No exploration."""
    return (logits > 0).to(logits.dtype)


def bernoulli_action(logits: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """`samples` independent draws e ~ Bernoulli(p): (K, *logits.shape), 0/1.

    This is what Eq. (2) takes its expectation over; REINFORCE is unbiased only for these.
    """
    # Drawn on the generator's device, so that a CPU and a GPU act on the same numbers.
    draws = torch.rand(samples, *logits.shape, generator=generator, device=generator.device)
    return (to_device(draws, logits.device) < torch.sigmoid(logits.detach())).to(logits.dtype)


def policy_target(erased: Tensor, target: str) -> Tensor:
    """What Eq. (5) compares p with: the action e, or, `as-printed`, the kept pixels 1 − e.

    Line 8 of Algorithm 1 sets A = 1[P < 0.5] ("keep") and line 12 uses it as the target of p,
    which is the probability of "important": minus the log-probability of the opposite action.
    """
    return erased if target == "taken-action" else 1.0 - erased


def adversarial_reward(adversarial_loss: Tensor, original_loss: Tensor) -> Tensor:
    """Eq. (6): R = L_adversarial − L_original per image; (…, B) each, never part of a graph."""
    return (adversarial_loss - original_loss).detach()


def share_reward(reward: Tensor, granularity: str) -> Tensor:
    """`image`: R as it is, (K, B); `batch`: its mean over the batch, given to every image."""
    if granularity == "batch":
        return reward.mean(dim=-1, keepdim=True).expand_as(reward)
    return reward


def update_baseline(baseline: Tensor | None, reward: Tensor, decay: float) -> Tensor:
    """b ← decay·b + (1 − decay)·mean(R), a scalar; the first reward starts it (`baseline` None)."""
    mean = reward.mean().double()
    return mean if baseline is None else decay * baseline + (1.0 - decay) * mean


def subtract_baseline(
    reward: Tensor, baseline: Tensor | None, decay: float, kind: str
) -> tuple[Tensor, Tensor | None]:
    """The advantage R − b of Eq. (7), (K, B), and the baseline for the next step, a scalar.

    `ema-before`: b is the average of *earlier* rewards (0 at the first step). `ema-after`: the
    released code updates b first, so that R̄ − b is decay·(R̄ − b_old), and 0 at the first step.
    `none`: line 14 of Algorithm 1. `leave-one-out`: b is the mean of the image's other samples.

    Raises:
        ValueError: `leave-one-out` with a single sample per image.
    """
    if kind == "none":
        return reward, None
    if kind == "leave-one-out":
        samples = reward.shape[0]
        if samples < 2:
            raise ValueError(f"leave-one-out needs at least 2 samples per image, got {samples}")
        others = (reward.sum(dim=0, keepdim=True) - reward) / (samples - 1)
        return reward - others, None
    updated = update_baseline(baseline, reward, decay)
    if kind == "ema-after":
        return reward - updated, updated
    return reward - (0.0 if baseline is None else baseline), updated


def scale_advantage(
    advantage: Tensor, mean_square: Tensor | None, decay: float
) -> tuple[Tensor, Tensor]:
    """The advantage over its running root mean square, and the mean square to carry on, a scalar.

    Rewards shrink as the classifier grows sure, and λ_zeros does not: without a scale the
    regulariser's share drifts over training.
    """
    now = advantage.square().mean().double()
    mean_square = now if mean_square is None else decay * mean_square + (1.0 - decay) * now
    return advantage / mean_square.clamp(min=1e-12).sqrt(), mean_square


def action_distance(logits: Tensor, target: Tensor) -> Tensor:
    """Eq. (4)-(5) per image: BCE(p, a) averaged over the last three axes (1, H, W).

    `logits` (B, 1, H, W) or (K, B, 1, H, W); `target` has the same shape, or one more in front.
    """
    logits = logits.expand_as(target)
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return bce.mean(dim=(-3, -2, -1))


def policy_gradient_term(logits: Tensor, target: Tensor, advantage: Tensor) -> Tensor:
    """Eq. (3) with the baseline of Eq. (7): mean over samples and images of BCE(p, a)·(R − b).

    `logits` (B, 1, H, W), `target` (K, B, 1, H, W), `advantage` (K, B). Its gradient in a logit
    of one image's N pixels is (p − a)(R − b)/N, over K·B: descent raises p where what was erased
    hurt the classifier more than expected. An image with advantage 0 still counts in the mean.
    """
    return (action_distance(logits, target) * advantage).mean()


def extreme_action_term(
    logits: Tensor, advantage: Tensor, *, mode: str, zeros: float, ones: float
) -> Tensor:
    """Eq. (7): λ_zeros·BCE(p, 0), and the released code's λ_ones·BCE(p, 1); a scalar.

    `constant` weights every image by λ (the paper); `abs-advantage` by λ·|R − b| (the released
    code), so that the term vanishes with the advantage. `advantage` is (K, B).
    """
    weight = (
        advantage.abs().mean(dim=0) if mode == "abs-advantage" else torch.ones_like(advantage[0])
    )
    distance = zeros * action_distance(logits, torch.zeros_like(logits))
    if ones:
        distance = distance + ones * action_distance(logits, torch.ones_like(logits))
    return (distance * weight).mean()


def policy_loss(
    logits: Tensor,
    target: Tensor,
    advantage: Tensor,
    *,
    pg_scale: float,
    lambda_mode: str,
    lambda_zeros: float,
    lambda_ones: float,
) -> Tensor:
    """Eq. (7), to be minimised: pg_scale·BCE(p, a)·(R − b) + the extreme-action terms."""
    extreme = extreme_action_term(
        logits, advantage, mode=lambda_mode, zeros=lambda_zeros, ones=lambda_ones
    )
    return pg_scale * policy_gradient_term(logits, target, advantage) + extreme
