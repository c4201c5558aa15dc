"""The environments: closed-form ridge, common random numbers, counted trainings, controls."""

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from imaging_core.classifiers import build_classifier
from imaging_core.fields import as_dict, build
from imaging_core.fitting import FitConfig, predict
from imaging_core.seeding import torch_generator
from imaging_core.standardised import Standardised
from imaging_core.stream import Stream
from selection_core import environment as rewards
from selection_core.config import SelectionConfig
from selection_core.controller_selection import reward_fit
from selection_core.environment import (
    ClassifierReward,
    LinearProbeReward,
    SignedReward,
    score_of,
    with_kept,
)
from selection_core.stages import final_fit


def _tables(seed=0, count=40, width=5):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return rng.normal(size=(count, width)).astype(np.float32) + 0.5 * labels[:, None], labels


@pytest.mark.parametrize("metric", ["accuracy", "log_likelihood"])
def test_linear_probe_against_scikit_learn(metric):
    real, pool, validation = _tables(0), _tables(1), _tables(2)
    probe = LinearProbeReward(
        real=real, pool=pool, validation=validation, classes=2, ridge=0.1, metric=metric
    )
    keep = np.random.default_rng(3).random(40) < 0.5
    x = np.concatenate([real[0], pool[0][keep]]).astype(float)
    y = np.eye(2)[np.concatenate([real[1], pool[1][keep]])] - 0.5
    scores = torch.from_numpy(Ridge(alpha=0.1 * len(x)).fit(x, y).predict(validation[0]))
    if metric == "accuracy":
        expected = float((scores.argmax(1).numpy() == validation[1]).mean())
    else:
        own = scores.log_softmax(1)[torch.arange(40), torch.from_numpy(validation[1])]
        expected = float(own.mean())
    assert probe.reward(keep) == pytest.approx(expected, abs=1e-6)
    assert probe.trainings == 0


def _eight_bits(values):
    """(N, C, H, W) as pixels whose standardised values are nearly these, from -4 to 4."""
    pixels = (values * 32 + 128).round().clamp(0, 255).to(torch.uint8)
    shape = (1, values.shape[1], 1, 1)
    return Standardised(pixels, torch.full(shape, 128.0), torch.full(shape, 32.0))


def _classifier_reward(warm=False, statistic="max", epochs=9, updates=0, repeats=1):
    generator = torch_generator(0, "images")
    noise = torch.randn(24, 1, 16, 16, generator=generator)
    part = (_eight_bits(noise), torch.arange(24) % 2)
    models = [
        build_classifier(
            "tiny-resnet",
            channels=1,
            classes=2,
            size=16,
            generator=torch_generator(0, f"weights/{repeat}"),
        )
        for repeat in range(repeats)
    ]
    fit_config = FitConfig(
        epochs=epochs,
        batch_size=8,
        learning_rate=1e-3,
        optimiser="adamw",
        schedule="constant",
        weight_decay=0.0,
        patience=0,
        min_steps=0,
        augment="none",
    )
    return ClassifierReward(
        models,
        real=part,
        pool=part,
        validation=part,
        fit_config=fit_config,
        updates=updates,
        statistic=statistic,
        metric="log_likelihood",
        seed=0,
        warm=warm,
    )


def test_the_same_selection_earns_the_same_reward_whatever_came_before():
    environment = _classifier_reward(epochs=3)
    keep = np.arange(24) < 12
    first = environment.reward(keep)
    other = environment.reward(~keep)
    assert environment.reward(keep) == first
    assert other != first
    assert (environment.trainings, environment.steps) == (3, 3 * 3 * 5)  # 36 images in eights


def test_a_warm_start_carries_weights_over():
    environment = _classifier_reward(warm=True)
    keep = np.arange(24) < 12
    assert environment.reward(keep) != environment.reward(keep)


def _last_score(environment, keep):
    """The score after the last epoch alone."""
    model = copy.deepcopy(environment.initial[0])
    environment.initial, environment.warm = (model,), True
    environment.reward(keep)
    seen, truth = environment.validation
    return rewards.score_of(predict(model, seen), truth, environment.metric)


def test_reward_is_the_max_or_mean_of_the_last_five_epochs():
    """Epoch by epoch: a fit of e epochs at a constant rate ends where one of e + 1 passed by."""
    keep = np.zeros(24, dtype=bool)
    ends = [_last_score(_classifier_reward(epochs=e), keep) for e in range(5, 10)]
    assert _classifier_reward(statistic="max").reward(keep) == pytest.approx(max(ends))
    assert _classifier_reward(statistic="mean").reward(keep) == pytest.approx(np.mean(ends))


def test_a_reward_takes_only_the_scores_it_reads(monkeypatch):
    environment, taken = _classifier_reward(), []
    score_of = rewards.score_of
    monkeypatch.setattr(rewards, "score_of", lambda *x: taken.append(1) or score_of(*x))
    keep = np.arange(24) < 12
    environment.reward(keep)
    assert len(taken) == 5  # the last five of nine epochs


def test_signed_rewards():
    keep = np.ones(40, dtype=bool)
    probe = LinearProbeReward(
        real=_tables(0),
        pool=_tables(1),
        validation=_tables(2),
        classes=2,
        ridge=0.1,
        metric="accuracy",
    )
    assert SignedReward(probe, "flipped", 0).reward(keep) == -probe.reward(keep)
    null = SignedReward(probe, "random", 0)
    assert null.reward(keep) != null.reward(keep)


def test_score_literals():
    class Fixed(torch.nn.Module):
        def forward(self, x):
            return torch.tensor([[0.0, 0.0], [0.0, np.log(3.0)]])

    images, labels = torch.zeros(2, 1, 1, 1), torch.tensor([0, 1])
    assert score_of(predict(Fixed(), images), labels, "accuracy") == 1.0
    expected = (np.log(0.5) + np.log(0.75)) / 2
    assert score_of(predict(Fixed(), images), labels, "log_likelihood") == pytest.approx(expected)


def test_joined_keeps_real_first_and_an_empty_selection_is_real_alone():
    real = (_eight_bits(torch.zeros(2, 1, 1, 1)), torch.tensor([0, 1]))
    pool = (_eight_bits(torch.arange(1.0, 4).view(3, 1, 1, 1)), torch.tensor([1, 0, 1]))
    images, labels = with_kept(real, pool, np.array([True, False, True]))
    assert (images[:].flatten().tolist(), labels.tolist()) == ([0, 0, 1, 3], [0, 1, 1, 1])
    assert len(with_kept(real, pool, np.zeros(3, dtype=bool))[0]) == 2


def test_a_reward_of_several_trainings_is_their_mean():
    keep = np.arange(24) < 12
    both, first = (_classifier_reward(repeats=n, epochs=3) for n in (2, 1))
    mean = both.reward(keep)
    assert mean != first.reward(keep)
    assert (both.trainings, both.steps) == (2, 2 * first.steps)
    second = 2 * mean - first.reward(keep)
    both.initial = (both.initial[0], both.initial[0])  # other batches alone also make it another
    assert both.reward(keep) not in (mean, first.reward(keep))
    assert np.isfinite(second)


@pytest.mark.parametrize("kept", [0, 5, 24])
def test_a_reward_costs_the_same_steps_whatever_is_kept(kept):
    environment = _classifier_reward(epochs=3, updates=10)
    environment.reward(np.arange(24) < kept)
    assert environment.steps == 10
    by_passes = _classifier_reward(epochs=3)  # the twin: passes over the images
    by_passes.reward(np.arange(24) < kept)
    assert by_passes.steps == 3 * -(-(24 + kept) // 8)


@pytest.mark.long
def test_two_selections_differ_by_their_images_and_not_by_their_order(monkeypatch):
    """One candidate less of sixteen. The twin orders by how many are kept, as it was."""

    def differences():
        environment = _classifier_reward(epochs=4, updates=12)
        whole = np.arange(24) < 16
        found = []
        for place in range(0, 16, 3):
            less = whole & (np.arange(24) != place)
            found.append(environment.reward(whole) - environment.reward(less))
        return np.sqrt(np.mean(np.square(found)))

    def ordered_by_count(self, batch_size, keys):
        generator = torch_generator(len(self.members), "order")
        order = [torch.randperm(len(self.members), generator=generator) for _ in range(20)]
        batches = torch.cat(order)[: self.steps * batch_size].split(batch_size)
        for part in np.array_split(np.arange(self.steps), self.parts):
            yield [batches[step] for step in part]

    by_key = differences()
    monkeypatch.setattr(Stream, "batches", ordered_by_count)
    assert by_key < 0.7 * differences()


@pytest.mark.parametrize(("level", "expected"), [("same", "flips"), ("none", "none")])
def test_a_rewards_fit_is_augmented_as_the_final_one_or_says_so(level, expected):
    config = build(SelectionConfig, {"classifier_augment": "flips", "reward_augment": level})
    assert reward_fit(config).augment == expected
    assert final_fit(as_dict(config)).augment == "flips"
