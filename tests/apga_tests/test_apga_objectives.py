"""Eq. (2)-(7) of Cheng et al. 2019 against literals, and the estimator against a planted truth."""

import numpy as np
import pytest
import torch

from apga_core import objectives
from imaging_core.seeding import torch_generator

LOGITS = torch.tensor([[0.0, 1.0], [-2.0, 0.5]], dtype=torch.float64).view(1, 1, 2, 2)


def _sigmoid(z):
    return 1.0 / (1.0 + np.exp(-np.asarray(z)))


@pytest.mark.parametrize("target", ["taken-action", "as-printed"])
def test_gradient_in_the_logits_is_p_minus_e_times_advantage(target):
    logits = LOGITS.clone().requires_grad_()
    erased = objectives.greedy_action(logits.detach())
    advantage = torch.tensor([[0.7]], dtype=torch.float64)
    chosen = objectives.policy_target(erased, target).unsqueeze(0)
    objectives.policy_gradient_term(logits, chosen, advantage).backward()

    p = _sigmoid(LOGITS.numpy())
    taken = (p - (p > 0.5)) * 0.7 / 4
    opposite = (p - (p <= 0.5)) * 0.7 / 4
    expected, wrong = (taken, opposite) if target == "taken-action" else (opposite, taken)
    np.testing.assert_allclose(logits.grad.numpy(), expected, atol=1e-6)
    assert np.abs(logits.grad.numpy() - wrong).max() > 0.1


def test_gradient_averages_over_samples_and_images():
    generator = torch_generator(0, "test")
    logits = torch.randn(3, 1, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    erased = objectives.bernoulli_action(logits, 5, generator)
    advantage = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    objectives.policy_gradient_term(logits, erased, advantage).backward()
    p = torch.sigmoid(logits.detach())
    expected = ((p - erased) * advantage.view(5, 3, 1, 1, 1)).sum(0) / (5 * 3 * 16)
    torch.testing.assert_close(logits.grad, expected, atol=1e-6, rtol=0)


def test_literal_table_of_equations_6_and_7():
    # One image, four pixels: p = .5, .7311, .1192, .6225; e = 0, 1, 0, 1; R = 1.2 − .5 = .7; b = .2
    reward = objectives.adversarial_reward(torch.tensor([[1.2]]), torch.tensor([0.5]))
    assert reward.tolist() == [[pytest.approx(0.7)]]
    erased = objectives.greedy_action(LOGITS)
    assert erased.flatten().tolist() == [0, 1, 0, 1]
    distance = float(objectives.action_distance(LOGITS, erased))
    assert distance == pytest.approx((0.693147 + 0.313262 + 0.126928 + 0.474077) / 4, abs=1e-6)
    advantage = reward.double() - 0.2
    loss = objectives.policy_loss(
        LOGITS, erased.unsqueeze(0), advantage,
        pg_scale=1.0, lambda_mode="constant", lambda_zeros=0.1, lambda_ones=0.0,
    )  # fmt: skip
    # BCE(p, 0) = mean softplus = (.693147 + 1.313262 + .126928 + .974077)/4 = .776853
    assert float(loss) == pytest.approx(0.401853 * 0.5 + 0.1 * 0.776853, abs=1e-5)
    released = objectives.policy_loss(
        LOGITS, erased.unsqueeze(0), advantage,
        pg_scale=100.0, lambda_mode="abs-advantage", lambda_zeros=0.1, lambda_ones=0.01,
    )  # fmt: skip
    # BCE(p, 1) = mean softplus(−z) = (.693147 + .313262 + 2.126928 + .474077)/4 = .901853
    expected = 100 * 0.401853 * 0.5 + 0.5 * (0.1 * 0.776853 + 0.01 * 0.901853)
    assert float(released) == pytest.approx(expected, rel=1e-5)


def test_reward_is_not_part_of_a_graph():
    loss = torch.ones(2, requires_grad=True)
    assert not objectives.adversarial_reward(loss * 2, loss).requires_grad


def test_regulariser_alone_lowers_p_at_every_step():
    logits = LOGITS.clone().requires_grad_()
    previous = torch.sigmoid(logits.detach())
    for _ in range(20):
        zero = torch.zeros(1, 1, dtype=torch.float64)
        loss = objectives.policy_loss(
            logits, objectives.greedy_action(logits).unsqueeze(0), zero,
            pg_scale=1.0, lambda_mode="constant", lambda_zeros=0.1, lambda_ones=0.0,
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(loss, logits)
        logits = (logits - gradient).detach().requires_grad_()
        p = torch.sigmoid(logits.detach())
        assert bool((p < previous).all())
        previous = p


def test_lambda_ones_alone_raises_p():
    logits = LOGITS.clone().requires_grad_()
    one = torch.ones(1, 1, dtype=torch.float64)
    term = objectives.extreme_action_term(logits, one, mode="constant", zeros=0.0, ones=0.5)
    (gradient,) = torch.autograd.grad(term, logits)
    assert bool((gradient < 0).all())


def test_baseline_is_subtracted_before_it_is_updated():
    first, second = torch.tensor([[2.0]]), torch.tensor([[4.0]])
    advantage, b = objectives.subtract_baseline(first, None, 0.5, "ema-before")
    assert (float(advantage), b) == (2.0, 2.0)
    advantage, b = objectives.subtract_baseline(second, b, 0.5, "ema-before")
    assert (float(advantage), b) == (2.0, 3.0)  # 4 − 2, not 4 − 3


def test_released_baseline_halves_the_advantage_and_wastes_the_first_step():
    first, second = torch.tensor([[2.0]]), torch.tensor([[4.0]])
    advantage, b = objectives.subtract_baseline(first, None, 0.5, "ema-after")
    assert (float(advantage), b) == (0.0, 2.0)
    advantage, b = objectives.subtract_baseline(second, b, 0.5, "ema-after")
    assert (float(advantage), b) == (1.0, 3.0)


def test_leave_one_out_baseline_and_its_refusal():
    reward = torch.tensor([[1.0], [2.0], [6.0]])
    advantage, b = objectives.subtract_baseline(reward, None, 0.5, "leave-one-out")
    assert b is None
    assert advantage.flatten().tolist() == [1 - 4, 2 - 3.5, 6 - 1.5]
    with pytest.raises(ValueError, match="leave-one-out needs at least 2 samples per image, got 1"):
        objectives.subtract_baseline(reward[:1], None, 0.5, "leave-one-out")


def test_batch_granularity_gives_every_image_the_mean():
    reward = torch.tensor([[1.0, 3.0], [0.0, 8.0]])
    assert objectives.share_reward(reward, "batch").tolist() == [[2.0, 2.0], [4.0, 4.0]]
    assert objectives.share_reward(reward, "image").tolist() == reward.tolist()


def test_running_rms_carries_its_mean_square():
    advantage, square = objectives.scale_advantage(torch.tensor([[3.0, -3.0]]), None, 0.9)
    assert advantage.tolist() == [[1.0, -1.0]]
    assert square == pytest.approx(9.0)
    advantage, square = objectives.scale_advantage(torch.tensor([[1.0, 1.0]]), square, 0.9)
    assert square == pytest.approx(8.2)
    assert float(advantage[0, 0]) == pytest.approx(8.2**-0.5)


# --- the estimator, with a planted truth -------------------------------------------------------

PATCH = torch.zeros(8, 8, dtype=torch.bool)
PATCH[2:6, 2:6] = True


def planted_reward(erased: torch.Tensor) -> torch.Tensor:
    """2 × the erased share of the patch; `erased` (..., 1, 8, 8)."""
    return 2.0 * (erased[..., 0, :, :] * PATCH).sum(dim=(-2, -1)) / PATCH.sum()


def auroc(score: torch.Tensor, truth: torch.Tensor) -> float:
    positive, negative = score[truth], score[~truth]
    difference = positive.view(-1, 1) - negative.view(1, -1)
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())


def iou(mask: torch.Tensor, truth: torch.Tensor) -> float:
    return float((mask & truth).sum() / (mask | truth).sum())


def train_free_logits(
    *, sampling, target, granularity="image", baseline="ema-before", spread=0.0,
    reward="planted", sign=1.0, steps=1500, learning_rate=0.1, seed=0,
):  # fmt: skip
    """Free 8 × 8 logits shared by a batch of 25, each image with its own offsets of sd `spread`."""
    generator = torch_generator(seed, "planted")
    logits = 0.1 * torch.randn(1, 1, 8, 8, generator=generator)
    state = None
    for _ in range(steps):
        offsets = spread * torch.randn(25, 1, 8, 8, generator=generator)
        shared = logits.expand(25, -1, -1, -1).clone().requires_grad_()
        z = shared + offsets
        if sampling == "greedy":
            erased = objectives.greedy_action(z.detach()).unsqueeze(0)
        else:
            erased = objectives.bernoulli_action(z, 1, generator)
        r = sign * planted_reward(erased) + 0.5 * torch.randn(1, 25, generator=generator)
        if reward == "shuffled":
            r = r[:, torch.randperm(25, generator=generator)]
        r = objectives.share_reward(r, granularity)
        advantage, state = objectives.subtract_baseline(r, state, 0.5, baseline)
        loss = objectives.policy_loss(
            z, objectives.policy_target(erased, target), advantage, pg_scale=1.0,
            lambda_mode="constant", lambda_zeros=0.02, lambda_ones=0.0,
        )  # fmt: skip
        (gradient,) = torch.autograd.grad(loss, shared)
        # Per-pixel scale: the loss averages over 64 pixels, the toy's step is per pixel.
        logits = (logits - learning_rate * 64 * gradient.sum(dim=0, keepdim=True)).clamp(-8, 8)
    return logits[0, 0]


def test_sampled_actions_find_the_planted_patch():
    logits = train_free_logits(sampling="bernoulli", target="taken-action")
    assert iou(logits > 0, PATCH) > 0.8


@pytest.mark.long
def test_a_shuffled_reward_finds_nothing():
    ranks = [
        auroc(
            train_free_logits(
                sampling="bernoulli", target="taken-action", reward="shuffled", seed=s, steps=600
            ),
            PATCH,
        )
        for s in range(4)
    ]
    assert 0.35 < float(np.mean(ranks)) < 0.65


def test_a_flipped_reward_ranks_the_patch_last():
    logits = train_free_logits(sampling="bernoulli", target="taken-action", sign=-1.0)
    assert auroc(logits, PATCH) < 0.3


@pytest.mark.long
def test_the_printed_target_anti_learns():
    logits = train_free_logits(sampling="greedy", target="as-printed", spread=1.0)
    assert auroc(logits, PATCH) < 0.1
    taken = train_free_logits(sampling="greedy", target="taken-action", spread=1.0)
    assert auroc(taken, PATCH) > 0.9


def test_sampled_gradient_agrees_with_the_exact_one_and_greedy_does_not():
    """A5.2: 20,000 draws; E[R] = 2·mean(p over the patch), so dE[R]/dz is p(1 − p)·2/16 there."""
    generator = torch_generator(3, "estimator")
    logits = torch.randn(1, 1, 8, 8, generator=generator, dtype=torch.float64)
    p = torch.sigmoid(logits)
    exact = (p * (1 - p))[0, 0] * 2 * PATCH / PATCH.sum()
    expected_reward = 2 * float(p[0, 0][PATCH].mean())

    def cosine(erased):
        noise = 0.5 * torch.randn(erased.shape[:2], generator=generator, dtype=torch.float64)
        advantage = planted_reward(erased) + noise - expected_reward
        free = logits.clone().requires_grad_()
        loss = objectives.policy_gradient_term(free, erased, advantage)
        (gradient,) = torch.autograd.grad(loss, free)
        return float(torch.cosine_similarity(-gradient.flatten(), exact.flatten(), dim=0))

    assert cosine(objectives.bernoulli_action(logits, 20_000, generator)) > 0.95
    # A greedy action is one fixed mask: its mean update does not point along the exact gradient.
    greedy = objectives.greedy_action(logits).unsqueeze(0).expand(20_000, -1, -1, -1, -1)
    assert abs(cosine(greedy)) < 0.3
