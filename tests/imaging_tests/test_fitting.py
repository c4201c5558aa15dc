import math

import numpy as np
import pydantic
import pytest
import torch
from torch import nn

from imaging_core.classifiers import build_classifier
from imaging_core.datasets import load
from imaging_core.fitting import (
    FitConfig,
    accuracy,
    fit,
    last_epochs_reward,
    learning_rate_at,
    predict,
)
from imaging_core.seeding import torch_generator
from imaging_core.splits import k_shot
from imaging_core.standardised import standardise

BASE = {
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "optimiser": "adamw",
    "schedule": "onecycle",
    "weight_decay": 0.01,
    "patience": 0,
    "min_steps": 0,
    "augment": "flips-transposes",
}


def config(**changes):
    return FitConfig(**{**BASE, **changes})


def net(seed=0):
    return build_classifier(
        "tiny-resnet",
        channels=1,
        classes=2,
        size=16,
        generator=torch_generator(seed, "weights"),
    )


def toy(count=48, seed=0):
    """Class 1 is brighter on the left half: learnable, and mirrored it is not."""
    g = torch_generator(seed, "toy")
    labels = torch.arange(count) % 2
    images = torch.randn(count, 1, 16, 16, generator=g)
    images[labels == 1, :, :, :8] += 0.7
    return images, labels


def train(seed=0, count=48, keep_best=False, validation=None, **changes):
    model = net()
    result = fit(
        model,
        *toy(count),
        config=config(**changes),
        generator=torch_generator(seed, "order"),
        validation=validation,
        keep_best=keep_best,
    )
    return model, result


def same(first, second):
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("augment", ["none", "flips", "flips-transposes", "traditional"])
def test_the_same_generator_gives_the_same_bits(augment):
    first, _ = train(augment=augment)
    torch.rand(5)  # moves the global generator
    second, _ = train(augment=augment)
    other, _ = train(seed=1, augment=augment)
    assert same(first, second)
    assert not same(first, other)


def test_one_sgd_step_by_hand():
    images = torch.tensor([[[[1.0]]], [[[-2.0]]]])
    labels = torch.tensor([1, 0])
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0], [0.5]]))
        model[1].bias.zero_()
    fit(
        model,
        images,
        labels,
        config=config(
            epochs=1,
            optimiser="sgd",
            schedule="constant",
            learning_rate=0.1,
            weight_decay=0.0,
            augment="none",
        ),
        generator=torch_generator(0, "order"),
        keep_best=False,
    )
    # p(class 1) = sigmoid(w·x), w = 0.5: gradient of the mean loss in w of class 1 is
    # [(p(1) − 1)·1 + (p(−2) − 0)·(−2)] / 2
    p_first, p_second = 1 / (1 + math.exp(-0.5)), 1 / (1 + math.exp(1.0))
    gradient = ((p_first - 1) - 2 * p_second) / 2
    assert model[1].weight[1].item() == pytest.approx(0.5 - 0.1 * gradient, abs=1e-6)
    assert model[1].weight[0].item() == pytest.approx(0.1 * gradient, abs=1e-6)


@pytest.mark.parametrize(
    ("count", "batch_size", "per_epoch"), [(48, 16, 3), (49, 16, 3), (50, 16, 4), (2, 16, 1)]
)
def test_a_last_batch_of_one_image_is_dropped(count, batch_size, per_epoch):
    _, result = train(count=count, batch_size=batch_size, epochs=2)
    assert result.steps == 2 * per_epoch


def test_one_image_is_refused():
    with pytest.raises(ValueError, match=r"fit needs at least 2 images .*got 1"):
        train(count=1)


def test_min_steps_raises_the_epochs():
    _, result = train(epochs=2, min_steps=20)
    assert (result.epochs_run, result.steps) == (7, 21)
    _, result = train(epochs=2, min_steps=6)
    assert (result.epochs_run, result.steps) == (2, 6)


def test_patience_stops_and_counts_from_the_first_best():
    frozen = {"learning_rate": 1e-12, "schedule": "constant", "epochs": 30}
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    result = fit(
        model,
        *toy(),
        config=config(**frozen, patience=4),
        generator=torch_generator(0, "order"),
        validation=toy(seed=1),
        keep_best=True,
    )
    assert (result.best_epoch, result.epochs_run) == (0, 5)
    result = fit(
        model,
        *toy(),
        config=config(**frozen, patience=4, min_steps=24),
        generator=torch_generator(0, "order"),
        validation=toy(seed=1),
        keep_best=True,
    )
    assert result.epochs_run == 8


def test_the_best_weights_are_kept():
    rough = {"learning_rate": 0.05, "schedule": "constant", "epochs": 4}
    last, result = train(validation=toy(seed=1), **rough)
    best, again = train(validation=toy(seed=1), keep_best=True, **rough)
    trace = result.validation_accuracy
    assert again.validation_accuracy == trace
    assert max(trace) > trace[-1], "the setting no longer separates best from last"
    assert again.best_epoch == trace.index(max(trace))
    assert accuracy(best, *toy(seed=1)) == max(trace)
    assert accuracy(last, *toy(seed=1)) == trace[-1]


def test_choosing_needs_validation_images():
    for wish in ({"keep_best": True}, {"patience": 2}):
        with pytest.raises(ValueError, match="pass validation"):
            train(**wish)


def test_a_loss_that_is_not_finite_is_named():
    images, labels = toy()
    images[:] = float("nan")
    with pytest.raises(FloatingPointError, match="got nan at epoch 1, step 1"):
        fit(
            net(),
            images,
            labels,
            config=config(),
            generator=torch_generator(0, "order"),
            keep_best=False,
        )


def test_progress_rises_to_one():
    seen = []
    fit(
        net(),
        *toy(),
        config=config(epochs=4),
        generator=torch_generator(0, "order"),
        keep_best=False,
        progress=lambda done, note, curves: seen.append((done, note)),
    )
    assert seen[0] == (0.25, "epoch 1 of 4")
    assert [done for done, _ in seen] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("total", [10, 37, 200])
def test_schedules_are_torchs(total):
    def trace(make):
        optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
        schedule, rates = make(optimiser), []
        for _ in range(total):
            rates.append(optimiser.param_groups[0]["lr"])
            optimiser.step()
            schedule.step()
        return rates

    schedules = torch.optim.lr_scheduler
    onecycle = trace(
        lambda o: schedules.OneCycleLR(o, 0.3, total_steps=total + 1, cycle_momentum=False)
    )
    exact = trace(lambda o: schedules.OneCycleLR(o, 0.3, total_steps=total, cycle_momentum=False))
    cosine = trace(lambda o: schedules.CosineAnnealingLR(o, total))
    ours = [learning_rate_at(i, total, "onecycle", 0.3) for i in range(total)]
    assert ours == pytest.approx(exact, rel=1e-9)
    assert ours != pytest.approx(onecycle, rel=1e-3)
    assert [learning_rate_at(i, total, "cosine", 0.3) for i in range(total)] == pytest.approx(
        cosine, rel=1e-6
    )
    assert learning_rate_at(3, total, "constant", 0.3) == 0.3


def test_standardise_literal():
    images = np.array([[[[0, 255]], [[51, 102]]]], dtype=np.uint8)
    out = standardise(images, np.array([0.5, 0.2]), np.array([0.25, 0.1]), "cpu")
    torch.testing.assert_close(out, torch.tensor([[[[-2.0, 2.0]], [[0.0, 2.0]]]]))
    assert out.dtype == torch.float32
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\) uint8"):
        standardise(images.astype(np.float32), np.zeros(2), np.ones(2), "cpu")


def test_predict_gives_probabilities_and_leaves_the_mode():
    model = net().train()
    images, labels = toy()
    out = predict(model, images, batch_size=7)
    assert model.training
    assert out.shape == (48, 2)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.sum(dim=1), torch.ones(48))
    torch.testing.assert_close(out, predict(model, images))
    right = (out.argmax(dim=1) == labels).float().mean()
    assert accuracy(model, images, labels) == pytest.approx(right.item())
    out.requires_grad_()  # an inference tensor would refuse


def test_larger_images_are_evaluated_in_smaller_batches():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.seen = []

        def forward(self, x):
            self.seen.append(len(x))
            return torch.zeros(len(x), 2)

    for size, batches in ((32, [128] * 4 + [88]), (64, [128] * 4 + [88]), (256, [32] * 18 + [24])):
        model = Counting()
        predict(model, torch.zeros(600, 1, 1, 1).expand(600, 1, size, size))
        assert model.seen == batches


def test_reward_of_the_last_five_epochs():
    trace = (0.1, 0.1, 0.1, 0.9, 0.5, 0.6, 0.8, 0.7, 0.4)
    assert last_epochs_reward(trace) == 0.8
    assert last_epochs_reward(trace, "mean") == pytest.approx(0.6)
    assert last_epochs_reward((0.1, *trace), "max", last=2) == 0.7
    for short, expected in (((0.3,), 0.3), ((0.9, 0.3), 0.3), ((0.9, 0.4, 0.2), 0.3)):
        assert last_epochs_reward(short, "mean") == pytest.approx(expected)
    with pytest.raises(ValueError, match="at least one epoch"):
        last_epochs_reward(())


@pytest.mark.parametrize(
    ("field", "value"),
    [("optimiser", "rmsprop"), ("batch_size", 1), ("learning_rate", 0), ("augment", "mixup")],
)
def test_bad_settings_are_refused(field, value):
    with pytest.raises(pydantic.ValidationError, match=field):
        config(**{field: value})


@pytest.mark.slow
def test_the_real_slide_is_learnt_from_64_patches_per_class():
    data = load("ihc-colon")
    few = k_shot(data.train, 64, seed=0)
    mean, std = data.train.mean_std
    tensors = {
        name: (standardise(part.images, mean, std, "cpu"), torch.from_numpy(part.labels))
        for name, part in (("few", few), ("validation", data.validation))
    }
    model = build_classifier(
        "small-resnet", channels=1, classes=2, size=32, generator=torch_generator(0, "weights")
    )
    untrained = accuracy(model, *tensors["validation"])
    fit(
        model,
        *tensors["few"],
        config=config(epochs=1, batch_size=64, min_steps=80),
        generator=torch_generator(0, "order"),
        keep_best=False,
    )
    assert untrained < 0.7
    assert accuracy(model, *tensors["validation"]) > 0.85


def test_class_weights_are_those_of_torchs_loss():
    images, labels = toy(16)
    weights = torch.tensor([1.0, 3.0])
    one = {"epochs": 1, "batch_size": 16, "augment": "none", "optimiser": "sgd",
           "schedule": "constant", "weight_decay": 0.0}  # fmt: skip
    model, expected = net(), net()
    fit(
        model, images, labels, config=config(**one), generator=torch_generator(0, "order"),
        keep_best=False, class_weights=weights,
    )  # fmt: skip
    expected.to(memory_format=torch.channels_last).train()
    nn.CrossEntropyLoss(weights)(expected(images), labels).backward()
    torch.optim.SGD(expected.parameters(), lr=2e-3, momentum=0.9).step()
    plain = net()
    fit(
        plain, images, labels, config=config(**one), generator=torch_generator(0, "order"),
        keep_best=False,
    )  # fmt: skip
    assert torch.allclose(model.head.weight, expected.head.weight, atol=1e-7)
    assert not torch.allclose(model.head.weight, plain.head.weight, atol=1e-7)
