"""Literals, torchrl as an independent oracle, and the enumerated gradient of a toy."""

import itertools
import math

import pytest
import torch
from torch import nn

from selection_core import objectives as obj


def test_log_prob_and_entropy_literals():
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]])  # keep with p = 1/2 and 3/4
    assert obj.keep_probability(logits).tolist() == pytest.approx([0.5, 0.75])
    assert obj.log_prob(logits, torch.tensor([1, 1])).exp().tolist() == pytest.approx([0.5, 0.75])
    assert obj.log_prob(logits, torch.tensor([0, 0])).exp().tolist() == pytest.approx([0.5, 0.25])
    expected = [math.log(2), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))]
    assert obj.entropy(logits).tolist() == pytest.approx(expected)


def test_ppo_literals_and_where_clipping_stops_the_gradient():
    # Ratios 1.5, 1.5, 0.5, 0.5 with advantages +2, −2, +2, −2 and ε = 0.2:
    # min(r A, clip(r) A) = 2.4, −3.0, 1.0, −1.6; loss = −mean = 0.3.
    ratio = torch.tensor([[1.5, 1.5, 0.5, 0.5]])
    log_p = ratio.log().requires_grad_()
    advantage = torch.tensor([[2.0, -2.0, 2.0, -2.0]])
    loss = obj.ppo_loss(log_p, torch.zeros(1, 4), advantage, 0.2)
    assert loss.item() == pytest.approx(0.3)
    loss.backward()
    # d/d log p = −r A / 4 where unclipped, 0 where the clip is active.
    assert log_p.grad.tolist()[0] == pytest.approx([0.0, 0.75, -0.25, 0.0])


def test_joint_ratio_is_the_product():
    # Two candidates of ratio 1.1 each: joint 1.21, clipped at 1.2 for A = +1.
    log_p = torch.full((1, 2), math.log(1.1))
    old, advantage = torch.zeros(1, 2), torch.ones(1, 1)
    assert float(obj.ppo_joint_loss(log_p, old, advantage, 0.2)) == pytest.approx(-1.2)
    assert float(obj.ppo_loss(log_p, old, advantage, 0.2)) == pytest.approx(-1.1)


def test_value_loss_and_ema_literals():
    value = torch.tensor([1.0, 3.0], requires_grad=True)
    assert obj.value_loss(value, torch.tensor([0.0, 1.0])).item() == pytest.approx(1.25)
    assert obj.ema(None, 0.6, 0.8) == 0.6
    assert obj.ema(0.6, 1.0, 0.8) == pytest.approx(0.68)  # 80 % of the old value


def test_smoothing_as_baseline_and_as_reward():
    reward = torch.tensor([[1.0]])
    signal, smoothed = obj.smoothed_return(reward, 0.5, 0.8, "baseline")
    assert (float(signal), smoothed) == pytest.approx((0.5, 0.6))  # the old average is subtracted
    signal, smoothed = obj.smoothed_return(reward, 0.5, 0.8, "reward")
    assert (float(signal), smoothed) == pytest.approx((0.6, 0.6))
    first, _ = obj.smoothed_return(torch.tensor([[1.0], [2.0]]), None, 0.8, "baseline")
    assert first.flatten().tolist() == [-0.5, 0.5]


def test_running_rms_literals():
    scaled, mean_square = obj.running_rms(None, torch.tensor([3.0]))
    assert float(scaled) == pytest.approx(1.0)
    scaled, mean_square = obj.running_rms(mean_square, torch.tensor([0.0]))
    assert (float(scaled), mean_square) == pytest.approx((0.0, 8.1))


def test_value_target_literals():
    """Signals 1, then 3, at decay 0.9: mean 1.2, mean square 1.8, deviation 0.6."""
    first = obj.running_moments(None, torch.tensor([1.0]))
    assert first == (1.0, 1.0)
    assert obj.normalised(torch.tensor([1.0]), first).tolist() == [0.0]  # it never varied
    second = obj.running_moments(first, torch.tensor([3.0]))
    assert second == pytest.approx((1.2, 1.8))
    assert float(obj.normalised(torch.tensor([3.0]), second)) == pytest.approx(3.0)
    assert float(obj.denormalised(torch.tensor([3.0]), second)) == pytest.approx(3.0)
    assert float(obj.denormalised(torch.tensor([0.0]), second)) == pytest.approx(1.2)
    signal = torch.tensor([0.7, -2.0])
    raw = obj.unit_moments(second, signal)
    assert torch.equal(obj.normalised(signal, raw), signal)
    assert torch.equal(obj.denormalised(signal, raw), signal)


def test_kl_divergence_literal():
    old, new = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3.0)]])
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert obj.kl_divergence(old, new).tolist() == pytest.approx([expected])
    assert obj.kl_divergence(new, new).tolist() == pytest.approx([0.0])


def test_the_best_smoothed_reward_is_neither_the_last_nor_the_luckiest():
    """α = 0.5, so the first of two does not compete: Q̂ = 9, 4.5, 2.25, 3.1, 3.6, 1.8, 2.4."""
    rewards = [9.0, 0.0, 0.0, 4.0, 4.0, 0.0, 3.0]
    assert obj.best_smoothed(rewards, 0.5) == 1
    assert obj.best_smoothed([9.0, *rewards[1:]], 0.0) == 0
    rising = [0.0, 0.0, 0.0, 4.0, 4.0, 0.0, 3.0]  # Q̂: 0, 0, 0, 2, 3, 1.5, 2.25
    assert obj.best_smoothed(rising, 0.5) == 4
    assert obj.best_smoothed([1.0], 0.8) == 0  # fewer than compete: the last
    assert obj.best_smoothed([0.0, 0.0], 0.5) == 1


def test_antithetic_draws_are_paired_and_each_still_uniform():
    generator = torch.Generator().manual_seed(0)
    u = obj.uniforms(2, 20_000, antithetic=True, generator=generator)
    assert torch.allclose(u[0] + u[1], torch.ones(20_000))
    kept = obj.draw_actions(torch.tensor(0.3), u).mean(1)
    assert kept.tolist() == pytest.approx([0.3, 0.3], abs=0.01)


@pytest.mark.parametrize("sign", [1, -1])
def test_ppo_equals_torchrl_in_loss_and_gradient(sign):
    """torchrl's ClipPPOLoss on the same logits, actions, stored log-probabilities, advantages."""
    from tensordict import TensorDict
    from tensordict.nn import TensorDictModule
    from torchrl.modules import ProbabilisticActor
    from torchrl.objectives import ClipPPOLoss

    class Table(nn.Module):
        def __init__(self, logits):
            super().__init__()
            self.logits = nn.Parameter(logits.clone())

        def forward(self, index):
            return self.logits[index]

    generator = torch.Generator().manual_seed(1)
    count = 64
    old = torch.randn(count, 2, generator=generator)
    new = old + 0.4 * torch.randn(count, 2, generator=generator)
    actions = torch.randint(0, 2, (count,), generator=generator)
    advantage = torch.randn(count, generator=generator)

    table = Table(new)
    actor = ProbabilisticActor(
        TensorDictModule(table, in_keys=["index"], out_keys=["logits"]),
        in_keys=["logits"],
        distribution_class=torch.distributions.Categorical,
        return_log_prob=True,
    )
    critic = TensorDictModule(nn.Linear(1, 1), in_keys=["observation"], out_keys=["state_value"])
    oracle = ClipPPOLoss(actor, critic, clip_epsilon=0.2, entropy_bonus=False)
    batch = TensorDict(
        {
            "index": torch.arange(count),
            "observation": torch.zeros(count, 1),
            "action": actions,
            "action_log_prob": obj.log_prob(old, actions),
            "sample_log_prob": obj.log_prob(old, actions),
            "advantage": advantage.unsqueeze(-1),
            "value_target": torch.zeros(count, 1),
        },
        [count],
    )
    expected = oracle(batch)["loss_objective"]
    expected.backward()

    logits = new.clone().requires_grad_()
    loss = obj.ppo_loss(
        obj.log_prob(logits, actions).unsqueeze(0),
        obj.log_prob(old, actions).unsqueeze(0),
        sign * advantage.unsqueeze(0),
        0.2,
    )
    loss.backward()
    agree = abs((loss - expected).item()) < 1e-5 and torch.allclose(
        logits.grad, table.logits.grad, atol=1e-5
    )
    assert agree == (sign == 1)  # the twin with a flipped advantage must not pass


def _toy_reward(actions):
    """Six candidates: worth, cost of size, and one pair that only counts together."""
    worth = torch.tensor([1.0, -0.5, 0.3, 0.8, -1.0, 0.2])
    return actions @ worth - 0.05 * actions.sum(-1) ** 2 + actions[..., 0] * actions[..., 4]


@pytest.mark.parametrize("antithetic", [False, True])
def test_reinforce_gradient_matches_the_enumerated_one(antithetic):
    """Mean over 20,000 sampled selections against the exact sum over all 64."""
    logits = torch.tensor([[0.0, x] for x in (0.4, -0.2, 0.0, 0.7, -0.5, 0.1)])
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=6)))

    exact = logits.clone().requires_grad_()
    probability = obj.log_prob(exact.expand(64, 6, 2), every).sum(1).exp()
    (probability * _toy_reward(every)).sum().backward()

    generator = torch.Generator().manual_seed(2)
    uniform = obj.uniforms(20_000, 6, antithetic=antithetic, generator=generator)
    actions = obj.draw_actions(obj.keep_probability(logits), uniform)
    rewards = _toy_reward(actions)
    cosine = {}
    for sign in (1, -1):
        sampled = logits.clone().requires_grad_()
        log_p = obj.log_prob(sampled.expand(20_000, 6, 2), actions)
        obj.reinforce_loss(log_p, sign * (rewards - rewards.mean()).unsqueeze(1)).backward()
        # The loss is minimised, the expected reward maximised; N = 6 is the loss's own mean.
        estimate = -6 * sampled.grad
        cosine[sign] = float(
            torch.cosine_similarity(estimate.flatten(), exact.grad.flatten(), dim=0)
        )
        if sign == 1:
            assert torch.allclose(estimate, exact.grad, atol=0.02)
    assert cosine[1] > 0.95
    assert cosine[-1] < -0.95
