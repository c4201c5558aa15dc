"""The reinforcement-learning loop: draw selections, reward them, update the controller."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from imaging_core.seeding import torch_generator
from imaging_core.task import Progress, no_progress
from selection_core import objectives
from selection_core.config import SelectionConfig
from selection_core.controllers import Controller


@dataclass(frozen=True, kw_only=True)
class PolicyResult:
    """What the loop leaves behind, beside the trained controller.

    Attributes:
        keep_probability: (S, L) final probabilities, in the controller's order.
        reward: mean raw reward of each iteration's selections.
        entropy: mean entropy of the decisions, nats, before each update.
        kept_fraction: share of candidates drawn, before each update.
        policies: (T, S, L) float32, the keep probabilities that each iteration drew from.
        advantage: (T, E, 1) or (T, E, S), what each iteration's draws were updated by.
    """

    keep_probability: np.ndarray
    reward: tuple[float, ...]
    entropy: tuple[float, ...]
    kept_fraction: tuple[float, ...]
    policies: np.ndarray
    advantage: np.ndarray


def train_controller(
    controller: Controller,
    inputs: Tensor,  # (S, L, D): S batches of L candidates
    reward: Callable[[np.ndarray], float],  # (S, L) bool selection → raw reward
    *,
    config: SelectionConfig,
    seed: int,
    progress: Progress = no_progress,
    before_update: Callable[[list[float]], None] | None = None,
) -> PolicyResult:
    """Update `controller` in place for `config.iterations` iterations.

    `before_update(rewards)` is called in each one while the controller still has the weights that
    drew the last of the mean rewards so far.

    The uniforms behind the draws come from (seed, "policy/draws"): arms with the same
    probabilities draw the same selections.
    """
    controller.train()
    batches, length = inputs.shape[:2]
    optimiser = _optimiser(controller, config)
    draws = torch_generator(seed, "policy/draws")
    smoothed: float | None = None
    mean_square: float | None = None
    moments: objectives.Moments | None = None
    policies, advantages = [], []
    curves: dict[str, list[float]] = {"reward": [], "entropy": [], "kept_fraction": []}

    for iteration in range(config.iterations):
        with torch.no_grad():
            logits, value = controller(inputs)
        probability = objectives.keep_probability(logits).flatten()
        uniform = objectives.uniforms(
            config.episodes,
            batches * length,
            antithetic=config.sampling == "antithetic",
            generator=draws,
        ).to(inputs.device)
        actions = objectives.draw_actions(probability, uniform)  # (E, S·L)
        rewards = _rewards(actions.view(-1, batches, length), reward, config.episode)  # (E, 1 | S)

        signal, smoothed = objectives.smoothed_return(
            rewards, smoothed, config.ema_alpha, config.reward_smoothing
        )
        signal = signal.to(inputs.device)
        advantage = target = signal
        if config.value_baseline == "on":
            before = moments
            moments = objectives.VALUE_TARGETS[config.value_target](before, signal)
            # Before there is any past, the iteration's own mean stands in, as for Q̂_0.
            predicted = objectives.denormalised(_value(value, config.episode), before or moments)
            advantage = signal - predicted
            target = objectives.normalised(signal, moments)
        if config.advantage_scale == "running_rms":
            advantage, mean_square = objectives.running_rms(mean_square, advantage)
        if before_update is not None:
            before_update([*curves["reward"], float(rewards.mean())])
        _update(controller, optimiser, inputs, actions, logits, advantage, target, config)

        policies.append(probability.view(batches, length).cpu().numpy())
        advantages.append(advantage.cpu().numpy())
        curves["reward"].append(float(rewards.mean()))
        curves["entropy"].append(float(objectives.entropy(logits).mean()))
        curves["kept_fraction"].append(float(actions.mean()))
        progress(
            (iteration + 1) / config.iterations,
            f"RL iteration {iteration + 1}/{config.iterations}",
            curves,
        )
    with torch.no_grad():
        final = objectives.keep_probability(controller(inputs)[0])
    return PolicyResult(
        keep_probability=final.cpu().numpy(),
        policies=np.stack(policies),
        advantage=np.stack(advantages),
        **{name: tuple(values) for name, values in curves.items()},
    )


def _optimiser(controller: Controller, config: SelectionConfig) -> torch.optim.Optimizer:
    attention = controller.attention_parameters()
    own = {id(p) for p in attention}
    groups = [{"params": [p for p in controller.parameters() if id(p) not in own]}]
    if attention:
        groups.append({"params": attention, "lr": config.attention_learning_rate})
    return torch.optim.Adam(groups, lr=config.learning_rate, eps=1e-5)


def _rewards(actions: Tensor, reward: Callable[[np.ndarray], float], episode: str) -> Tensor:
    """(E, S, L) draws → (E, 1) for episode=pass, (E, S) for episode=batch.

    With `batch` the reward of batch s is that of everything kept in batches 0 … s: a kept
    candidate "is added to the original training set for further steps" (section 2.2).
    """
    drawn = list(actions.bool().cpu().numpy())
    asked = drawn
    if episode == "batch":
        steps = np.arange(actions.shape[1])
        asked = [sel & (steps <= s)[:, None] for sel in drawn for s in steps]
    values = [reward(selection) for selection in asked]
    return torch.tensor(values).view(len(drawn), -1)


def _value(value: Tensor, episode: str) -> Tensor:
    """(S,) values of the batches → (1, 1) of the whole pass, or (1, S)."""
    return value.mean().view(1, 1) if episode == "pass" else value.view(1, -1)


def _update(
    controller: Controller,
    optimiser: torch.optim.Optimizer,
    inputs: Tensor,  # (S, L, D)
    actions: Tensor,  # (E, S·L)
    old_logits: Tensor,  # (S, L, 2) that drew them
    advantage: Tensor,  # (E, 1) or (E, S)
    target: Tensor,  # the same: what V is to predict
    config: SelectionConfig,
) -> None:
    """One REINFORCE step, or up to `ppo_epochs` steps of PPO, on the same draws."""
    episodes, (batches, length) = len(actions), inputs.shape[:2]
    per_candidate = advantage.expand(episodes, batches).repeat_interleave(length, 1)
    old_log_p = objectives.log_prob(_repeat(old_logits, episodes), actions)
    for _ in range(config.ppo_epochs if config.policy_gradient == "ppo" else 1):
        logits, value = controller(inputs)
        if _passed(config.kl_limit, old_logits, logits):
            break
        log_p = objectives.log_prob(_repeat(logits, episodes), actions)
        if config.policy_gradient == "reinforce":
            loss = objectives.reinforce_loss(log_p, per_candidate)
        elif config.ratio == "candidate":
            loss = objectives.ppo_loss(log_p, old_log_p, per_candidate, config.clip)
        else:
            # One ratio per reward: the whole pass, or each batch.
            parts = (episodes, advantage.shape[1], -1)
            loss = objectives.ppo_joint_loss(
                log_p.view(parts), old_log_p.view(parts), advantage.unsqueeze(-1), config.clip
            )
        loss = loss - config.entropy_weight * objectives.entropy(logits).mean()
        if config.value_baseline == "on":
            predicted = _value(value, config.episode).expand_as(target)
            loss = loss + config.value_weight * objectives.value_loss(predicted, target)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(controller.parameters(), config.max_grad_norm)
        optimiser.step()


def _passed(limit: float, old_logits: Tensor, logits: Tensor) -> bool:
    """Whether the policy has moved further than `limit` nats a decision; a limit of 0 is none."""
    return limit > 0 and float(objectives.kl_divergence(old_logits, logits.detach()).mean()) > limit


def _repeat(logits: Tensor, episodes: int) -> Tensor:
    """(S, L, 2) → (E, S·L, 2)."""
    return logits.flatten(0, 1).expand(episodes, -1, -1)
