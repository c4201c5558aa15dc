"""The maths of selecting by policy gradient: plain functions of tensors.

Equations are those of Ye et al. 2020, "Synthetic Sample Selection via Reinforcement Learning"
(MICCAI). A selection is a binary vector a in {0, 1}^N; the controller gives two logits per
candidate, index 1 meaning "keep". Shapes: E episodes, N candidates; `...` any leading shape.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def keep_probability(logits: Tensor) -> Tensor:
    """π(a_i = 1 | s): (..., 2) logits → (...) in [0, 1]."""
    return logits.softmax(-1)[..., 1]


def log_prob(
    logits: Tensor,  # (..., 2)
    actions: Tensor,  # (...), 0 or 1
) -> Tensor:
    """log π(a_i | s) of each candidate's own decision, (...)."""
    return logits.log_softmax(-1).gather(-1, actions.long().unsqueeze(-1)).squeeze(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of each two-way decision, (..., 2) → (...) in [0, ln 2]."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


def draw_actions(probability: Tensor, uniform: Tensor) -> Tensor:
    """a_i = 1[u_i < p_i], (...) float; the same `uniform` for all arms pairs their draws."""
    return (uniform < probability).to(probability.dtype)


def uniforms(
    episodes: int, candidates: int, *, antithetic: bool, generator: torch.Generator
) -> Tensor:
    """(E, N) in [0, 1); with `antithetic` the second half is one minus the first.

    Each episode alone is still an exact draw from the policy, so gradients stay unbiased; at
    p = 1/2 a pair keeps complementary halves and any baseline cancels.
    """
    if not antithetic:
        return torch.rand(episodes, candidates, generator=generator)
    half = torch.rand(episodes // 2, candidates, generator=generator)
    return torch.cat([half, 1 - half])


def reinforce_loss(
    log_p: Tensor,  # (E, N) log π(a_i | s)
    advantage: Tensor,  # (E, N) or (E, 1), no gradient flows through it
) -> Tensor:
    """Scalar whose gradient is minus the score-function estimate of ∇E[A], divided by N."""
    return -(log_p * advantage.detach()).mean()


def ppo_loss(
    log_p: Tensor,  # (E, N) log π_θ(a_i | s)
    old_log_p: Tensor,  # (E, N) the same, stored when the actions were drawn
    advantage: Tensor,  # (E, N) or (E, 1)
    clip: float,  # ε
) -> Tensor:
    """Minus eq. (4), one ratio per candidate: −mean min(r A, clip(r, 1 − ε, 1 + ε) A).

    r = π_θ(a_i | s) / π_old(a_i | s) with the *stored* probability of the *same* action. Eq. (6)
    divides by the probability of the previous step's action, which is no importance ratio.
    """
    ratio = (log_p - old_log_p.detach()).exp()
    a = advantage.detach()
    return -torch.minimum(ratio * a, ratio.clamp(1 - clip, 1 + clip) * a).mean()


def ppo_joint_loss(
    log_p: Tensor,  # (E, N)
    old_log_p: Tensor,  # (E, N)
    advantage: Tensor,  # (E, 1)
    clip: float,
) -> Tensor:
    """Minus eq. (4) with one ratio per episode, the product over all N decisions.

    The literal reading of a_t in R^(N×2); a product of hundreds of ratios leaves [1 − ε, 1 + ε]
    after the smallest update, so clipping is nearly always on.
    """
    return ppo_loss(log_p.sum(-1, keepdim=True), old_log_p.sum(-1, keepdim=True), advantage, clip)


def value_loss(value: Tensor, target: Tensor) -> Tensor:
    """½ mean (V − target)², no gradient through `target`; same shapes."""
    return 0.5 * (value - target.detach()).square().mean()


def ema(previous: float | None, value: float, alpha: float) -> float:
    """Eq. (5): Q̂_t = α Q̂_(t−1) + (1 − α) Q_t, and Q̂_1 = Q_1."""
    return value if previous is None else alpha * previous + (1 - alpha) * value


def smoothed_return(
    reward: Tensor,  # (...) raw rewards of one iteration
    previous: float | None,  # Q̂_(t−1), None at t = 1
    alpha: float,
    mode: str,  # "baseline" | "reward"
) -> tuple[Tensor, float]:
    """What the advantage is made of, and Q̂_t.

    baseline: Q_t − Q̂_(t−1), every action keeping the whole of its own outcome (at t = 1 the mean
    of the iteration stands in for Q̂_0). reward: Q̂ itself, eq. (5) as printed, where an action
    receives (1 − α) of its own outcome and α of its predecessors'.
    """
    mean = float(reward.mean())
    if mode == "baseline":
        return reward - (mean if previous is None else previous), ema(previous, mean, alpha)
    smoothed = reward if previous is None else alpha * previous + (1 - alpha) * reward
    return smoothed, ema(previous, mean, alpha)


Moments = tuple[float, float]  # mean, mean square


def running_moments(previous: Moments | None, signal: Tensor, decay: float = 0.9) -> Moments:
    """Running mean and mean square of the signal: what V's target is normalised by.

    V is trained on (signal − mean) / deviation and read as mean + deviation · V, as in van Hasselt
    et al. 2016 ("Learning values across many orders of magnitude"), without the correction of
    past outputs: a head that starts at zero then predicts the running mean.
    """
    mean, square = previous or (None, None)
    return (
        ema(mean, float(signal.mean()), decay),
        ema(square, float(signal.square().mean()), decay),
    )


def unit_moments(previous: Moments | None, signal: Tensor) -> Moments:
    """Mean 0 and deviation 1: V is trained on the signal as it is."""
    return 0.0, 1.0


VALUE_TARGETS: dict[str, Callable[[Moments | None, Tensor], Moments]] = {
    "normalised": running_moments,
    "raw": unit_moments,
}


def normalised(signal: Tensor, moments: Moments) -> Tensor:
    """(signal − mean) / deviation; zeros where the signal never varied."""
    return (signal - moments[0]) / max(_deviation(moments), 1e-8)


def denormalised(value: Tensor, moments: Moments) -> Tensor:
    """The inverse: V in the signal's units."""
    return moments[0] + _deviation(moments) * value


def _deviation(moments: Moments) -> float:
    return float(max(moments[1] - moments[0] ** 2, 0.0) ** 0.5)


def kl_divergence(
    old_logits: Tensor,  # (..., 2)
    logits: Tensor,  # (..., 2)
) -> Tensor:
    """KL(π_old ‖ π_θ) in nats of each two-way decision, (...)."""
    old, new = old_logits.log_softmax(-1), logits.log_softmax(-1)
    return (old.exp() * (old - new)).sum(-1)


def best_smoothed(rewards: Sequence[float], alpha: float) -> int:
    """The iteration (from 0) whose smoothed reward Q̂_t, eq. (5), is highest, the first of ties.

    The first 1 / (1 − α) iterations do not compete unless there are no others: until then Q̂ is
    mostly its first value, one reward with all its noise.
    """
    smoothed: list[float] = []
    for reward in rewards:
        smoothed.append(ema(smoothed[-1] if smoothed else None, reward, alpha))
    first = min(round(1 / (1 - alpha)), len(smoothed)) - 1
    return max(range(first, len(smoothed)), key=lambda t: (smoothed[t], -t))


def running_rms(
    previous: float | None, advantage: Tensor, decay: float = 0.9
) -> tuple[Tensor, float]:
    """`advantage` divided by the root of a running mean of its square, and that mean square.

    Keeps the step size free of the reward's units. The present advantage enters its own scale,
    so the first one becomes ±1 and an all-zero one stays zero.
    """
    square = float(advantage.square().mean())
    mean_square = ema(previous, square, decay)
    return advantage / max(mean_square**0.5, 1e-8), mean_square
