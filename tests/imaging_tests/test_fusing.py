"""K replicas as one network: the same outputs, gradients, statistics and fits as K networks."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from imaging_core.classifiers import build_classifier
from imaging_core.fitting import FitConfig
from imaging_core.fused_fitting import Job, Watch, fit_alone, fit_fused, fit_job
from imaging_core.fusing import Fused
from imaging_core.rendezvous import together, widest
from imaging_core.seeding import initialise, torch_generator

K, BATCH, SIDE = 3, 6, 8


class Joining(nn.Module):
    """Every kind of layer that has a fused form, and a concatenation of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.second = nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False)
        self.group = nn.GroupNorm(2, 6)
        self.third = nn.Conv2d(10, 8, 3, stride=2)
        self.norm3 = nn.BatchNorm2d(8, momentum=0.3)
        self.head_drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = functional.relu(self.drop(self.norm(self.first(x))))
        second = functional.relu(self.group(self.second(first)))
        third = functional.relu(self.norm3(self.third(torch.cat([first, second], dim=1))))
        return self.head(self.head_drop(third.mean(dim=(2, 3))))


def joining(seed: int) -> nn.Module:
    return initialise(Joining(), torch_generator(seed, "net")).to(memory_format=torch.channels_last)


def classifier(seed: int, name: str = "tiny-resnet", side: int = SIDE) -> nn.Module:
    return build_classifier(
        name, channels=2, classes=3, size=side, generator=torch_generator(seed, "net")
    ).to(memory_format=torch.channels_last)


def close(a, b, tolerance: float = 2e-5) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def same_state(model: nn.Module, other: nn.Module, tolerance: float = 2e-5) -> None:
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(
            a, b, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}"
        )


def separate_step(model, x, y, seed: int):
    """Logits and gradients of a training step alone, torch's global generator seeded."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        logits = model.train()(x.contiguous(memory_format=torch.channels_last))
    functional.cross_entropy(logits, y).backward()
    return logits.detach(), [p.grad for p in model.parameters()]


def test_a_training_step_gives_each_replica_its_own_outputs_gradients_and_statistics():
    x = torch.randn(K, BATCH, 2, SIDE, SIDE, generator=torch_generator(0, "x"))
    y = torch.randint(3, (K, BATCH), generator=torch_generator(0, "y"))
    models = [joining(seed) for seed in range(K)]
    alone = [copy.deepcopy(model) for model in models]
    generators = [torch.Generator().manual_seed(seed) for seed in range(K)]

    fused = Fused(models, generators).train()
    logits = fused(x)
    sum(functional.cross_entropy(logits[k], y[k]) for k in range(K)).backward()

    assert not torch.allclose(logits[0], logits[1])
    for k, model in enumerate(alone):
        expected, gradients = separate_step(model, x[k], y[k], seed=k)
        close(logits[k], expected)
        by_name = dict(zip((n for n, _ in model.named_parameters()), gradients, strict=True))
        for name, whole in fused.network.named_parameters():
            close(fused.own(whole.grad, k).reshape(by_name[name].shape), by_name[name])
        same_state(models[k], model)  # the views of the fused statistics


def test_a_replica_with_fewer_rows_is_not_touched_by_the_padding():
    counts = [BATCH, BATCH - 2, 2]
    x = torch.randn(K, BATCH, 2, SIDE, SIDE, generator=torch_generator(1, "x"))
    models = [joining(seed) for seed in range(K)]
    alone = [copy.deepcopy(model) for model in models]
    padded = x.clone()
    for k, count in enumerate(counts):
        padded[k, count:] = 99.0
    fused = Fused(models, [torch.Generator().manual_seed(seed) for seed in range(K)]).train()
    logits = fused(padded, counts)
    for k, (model, count) in enumerate(zip(alone, counts, strict=True)):
        y = torch.zeros(count, dtype=torch.long)
        expected, _ = separate_step(model, x[k, :count], y, seed=k)
        close(logits[k, :count], expected)
        same_state(models[k], model)


@pytest.mark.parametrize(
    "name",
    [
        "tiny-resnet",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("resnet34", "densenet169")),
    ],
)
def test_every_classifier_can_be_fused(name):
    if name == "densenet169":
        side, batch = 32, 2
    else:
        side, batch = SIDE, 4
    models = [classifier(seed, name, side) for seed in range(2)]
    x = torch.randn(2, batch, 2, side, side, generator=torch_generator(2, "x"))
    alone = [
        copy.deepcopy(model).eval()(x[k].contiguous(memory_format=torch.channels_last))
        for k, model in enumerate(models)
    ]
    with torch.no_grad():
        fused = Fused(models).eval()(x)
    close(fused, torch.stack(alone).detach(), 1e-3)


def test_models_are_their_own_again_after_release():
    models = [classifier(seed) for seed in range(2)]
    fused = Fused(models)
    with torch.no_grad():
        next(fused.parameters()).zero_()
    assert all(not next(model.parameters()).any() for model in models)
    fused.release()
    with torch.no_grad():
        next(models[0].parameters()).fill_(1)
    assert not next(fused.parameters()).any()
    assert not next(models[1].parameters()).any()


def test_what_cannot_be_fused_is_refused():
    with pytest.raises(ValueError, match="one structure"):
        Fused([classifier(0), classifier(0, "small-resnet")])
    with pytest.raises(TypeError, match="LSTM has no fused form"):
        Fused([nn.Sequential(nn.LSTM(2, 2))])
    with pytest.raises(ValueError, match="one generator for each model"):
        Fused([joining(0), joining(1)])


def config(**changes) -> FitConfig:
    return FitConfig(
        **{
            "epochs": 3,
            "batch_size": 8,
            "learning_rate": 3e-3,
            "optimiser": "adamw",
            "schedule": "onecycle",
            "weight_decay": 1e-3,
            "patience": 0,
            "min_steps": 0,
            "augment": "flips",
            **changes,
        }
    )


def jobs(counts, *, rule: FitConfig, keep_best: bool, watch: bool) -> list[Job]:
    """In float64, where rounding cannot hide a difference in the rule."""
    found = []
    for seed, count in enumerate(counts):
        draws = torch_generator(seed, "images")
        images = torch.randn(count + 12, 2, SIDE, SIDE, generator=draws).double()
        labels = (images.mean(dim=(1, 2, 3)) > 0).long()
        held_out = images[count:], labels[count:]

        def score(probabilities, truth=held_out[1]):
            own = probabilities.gather(1, truth.unsqueeze(1))
            return float(own.clamp_min(1e-7).log().mean())

        found.append(
            Job(
                model=classifier(seed).double(),
                images=images[:count],
                labels=labels[:count],
                config=rule,
                generator=torch_generator(seed, "fit"),
                validation=held_out if keep_best else None,
                keep_best=keep_best,
                watch=Watch(images=held_out[0], score=score) if watch else None,
            )
        )
    return found


@pytest.mark.parametrize(
    ("counts", "changes"),
    [
        ((16, 16, 16), {}),
        ((19, 16, 26), {}),  # other batches, last ones that are shorter, other schedules
        ((19, 16, 26), {"optimiser": "sgd", "learning_rate": 0.02, "min_steps": 10}),
        ((17, 24, 19), {"optimiser": "adam", "schedule": "constant"}),  # a last batch of one
    ],
)
def test_fused_fits_are_those_of_separate_runs(counts, changes):
    rule = config(**changes)
    apart = jobs(counts, rule=rule, keep_best=False, watch=True)
    together = jobs(counts, rule=rule, keep_best=False, watch=True)
    expected = [fit_alone(job) for job in apart]
    found = fit_fused(together)
    for a, b, own, other in zip(found, expected, together, apart, strict=True):
        assert (a.result.steps, a.result.epochs_run) == (b.result.steps, b.result.epochs_run)
        assert a.result.best_epoch == b.result.best_epoch
        assert a.result.training_loss == pytest.approx(b.result.training_loss, rel=1e-5)
        assert a.watched == pytest.approx(b.watched, rel=1e-5)
        assert len(a.watched) == a.result.epochs_run
        same_state(own.model, other.model, 1e-9)
        assert torch.equal(own.generator.get_state(), other.generator.get_state())


def test_each_replica_stops_by_itself_and_keeps_its_best_epoch():
    rule = config(epochs=9, patience=2, schedule="constant", learning_rate=5e-3)
    apart = jobs((16, 19, 16), rule=rule, keep_best=True, watch=False)
    together = jobs((16, 19, 16), rule=rule, keep_best=True, watch=False)
    expected = [fit_alone(job) for job in apart]
    found = fit_fused(together)
    assert len({fitted.result.epochs_run for fitted in expected}) > 1  # they do stop apart
    for a, b, own, other in zip(found, expected, together, apart, strict=True):
        assert a.result.validation_accuracy == b.result.validation_accuracy
        assert a.result.best_epoch == b.result.best_epoch
        assert a.result.epochs_run == b.result.epochs_run
        same_state(own.model, other.model, 1e-9)


def test_fits_that_meet_are_fused_and_a_failing_one_fails_alone():
    rule = config()
    apart = jobs((16, 16, 16), rule=rule, keep_best=False, watch=True)
    meeting = jobs((16, 16, 16), rule=rule, keep_best=False, watch=True)
    meeting[1].images[:] = float("nan")
    expected = [fit_alone(job) for job in (apart[0], apart[2])]

    def call(job: Job):
        try:
            return fit_job(job), widest()
        except FloatingPointError as error:
            return str(error), widest()

    found = together([lambda job=job: call(job) for job in meeting], width=4)
    assert "loss must be finite" in found[1][0]
    # The failure broke the fused run up: the others started again, alone, and are the same bits.
    assert [found[0], found[2]] == [(fitted, 1) for fitted in expected]

    fused = jobs((16, 16, 16), rule=rule, keep_best=False, watch=True)
    results = together([lambda job=job: call(job) for job in fused], width=2)
    assert [width for _, width in results] == [2, 2, 1]
    assert results[2][0] == expected[1]
    assert results[0][0].watched == pytest.approx(expected[0].watched, rel=1e-5)
