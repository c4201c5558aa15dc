"""The contract of `apga_core.task`: pure cells, budgets, refused misfits, what a cell reports."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from apga_core import controls
from apga_core.controls import control_maps
from apga_core.learner import Learner
from apga_core.localisation import over_pixels
from apga_core.networks import Policy, build_policy
from apga_core.stages import class_weights, normalisation
from apga_core.task import TASK
from imaging_core import fields, fitting
from imaging_core.classifiers import Classifier, build_classifier
from imaging_core.datasets import phantom_xray
from imaging_core.fields import ConfigError
from imaging_core.seeding import torch_generator
from imaging_core.task import Outcome, load_function
from sweeps.engine.stages import stage_key
from sweeps.ledger.schema import cell_key

TINY = {
    **TASK.presets["demo"],
    "classifier": "tiny-resnet",
    "base_epochs": 2,
    "base_min_steps": 0,
    "batch_size": 25,
    "epochs": 1,
    "min_steps": 0,
    "samples": 2,
    "policy_warmup_steps": 0,
    "lambda_ramp_steps": 0,
}


@pytest.fixture(scope="module")
def data():
    variant = dataclasses.replace(phantom_xray.VARIANTS["fracture"], patients=48)
    return phantom_xray.generate(variant, name="tiny", seed=1).check()


@pytest.fixture(scope="module")
def computed():
    """Stages by identity, each computed once."""
    return {}


def arrays(stage, data, computed):
    key = repr((stage.name, dict(stage.inputs)))
    if key not in computed:
        needs = {name: arrays(need, data, computed) for name, need in stage.needs.items()}
        computed[key] = load_function(stage.compute)(stage.inputs, data, needs)
    return computed[key]


def run(data, computed, **changes) -> Outcome:
    config = fields.build(TASK.config, TINY | changes)
    TASK.check(config, data)
    stages = TASK.stages(config, 0)
    ready = {name: arrays(stage, data, computed) for name, stage in stages.items()}
    return load_function(TASK.train)(config, data, 0, ready, device="cpu")


def same(first: Outcome, second: Outcome) -> bool:
    return (
        first.metrics == second.metrics
        and first.curves == second.curves
        and all(
            np.array_equal(a.probabilities, b.probabilities)
            for a, b in zip(first.predictions, second.predictions, strict=True)
        )
        and all(np.array_equal(first.artifacts[k], second.artifacts[k]) for k in first.artifacts)
    )


@pytest.fixture(scope="module")
def by_method(data, computed):
    methods = fields.levels_of(TASK.config, "method")
    return {method: run(data, computed, method=method) for method in methods}


@pytest.mark.slow
@pytest.mark.parametrize("method", fields.levels_of(TASK.config, "method"))
def test_the_same_cell_twice_is_the_same_bits(data, computed, by_method, method):
    first = by_method[method]
    assert same(first, run(data, computed, method=method))
    known = {metric.name: metric for metric in TASK.metrics}
    for name, value in first.metrics.items():
        assert known[name].low <= value <= known[name].high, name
    json.dumps(dict(first.metrics), allow_nan=False)


BUDGET = ("classifier_steps", "images_seen", "evaluations")


def budget(outcome: Outcome) -> tuple[float, ...]:
    return tuple(outcome.metrics[name] for name in BUDGET)


def test_every_arm_but_the_baseline_has_the_same_budget(data, by_method):
    """Batches of 25, two views of each image; the base's two looks at validation, and one of the
    second phase's epoch. `baseline` is the best of the first two."""
    images = len(data.train.labels)
    budgets = {name: budget(outcome) for name, outcome in by_method.items()}
    assert budgets.pop("baseline") == (0, 0, 2)
    assert set(budgets.values()) == {(2 * math.ceil(images / 25), 2 * images, 3)}


@pytest.mark.parametrize("method", ["baseline_matched", "cutout", "end2end", "apga"])
def test_half_the_second_views_are_half_for_every_arm(data, computed, method):
    """A cell of each kind of arm; `test_apga_budgets` has all of them, batch by batch."""
    of_batches = [min(25, len(data.train.labels) - i) for i in range(0, len(data.train.labels), 25)]
    seen = sum(of_batches) + sum(round(0.5 * n) for n in of_batches)
    found = budget(run(data, computed, method=method, aid_ratio=0.5))
    assert found == (2 * len(of_batches), seen, 3)


@pytest.mark.parametrize("level", ["shared", "frozen", "re-estimated"])
def test_batch_norm_costs_no_budget_and_acts_on_every_kind_of_arm(data, computed, by_method, level):
    for method in ("cutout", "apga"):
        outcome = run(data, computed, method=method, second_view_statistics=level)
        assert budget(outcome) == budget(by_method[method])
        assert not same(outcome, by_method[method]), method


def test_the_two_views_are_of_one_epoch(data, computed, monkeypatch):
    """The classifier of the best epoch is scored with that epoch's policy, and the policy that the
    masks are reported of stays the last one."""
    from apga_core import second_phase as phase
    from apga_core import training

    seen: dict[str, list[torch.Tensor]] = {"epochs": [], "scored": [], "last": []}

    def importance(arm):
        return arm.importance(torch.ones(1, 1, 32, 32))

    accuracy, two_view, gallery = phase.accuracy, training.two_view_accuracy, training.gallery

    def second_phase(config, arm, *others):
        monkeypatch.setattr(phase, "accuracy", lambda *a, **k: (
            seen["epochs"].append(importance(arm)), scores.pop(0))[1])  # fmt: skip
        return whole(config, arm, *others)

    def two_views(arm, *others):
        seen["scored"].append(importance(arm))
        return two_view(arm, *others)

    def last(policy, *others):
        seen["last"].append(torch.sigmoid(policy(torch.ones(1, 1, 32, 32))).detach())
        return gallery(policy, *others)

    scores, whole = [0.5, 0.9, 0.7], training.second_phase
    monkeypatch.setattr(training, "second_phase", second_phase)
    monkeypatch.setattr(training, "two_view_accuracy", two_views)
    monkeypatch.setattr(training, "gallery", last)
    run(data, computed, method="apga", tta=True, epochs=3)
    first, best, end = seen["epochs"]
    assert torch.equal(seen["scored"][0], best)
    assert torch.equal(seen["last"][0], end)
    assert not torch.equal(best, first)
    assert not torch.equal(best, end)
    assert accuracy is not phase.accuracy


def test_phase_one_and_scores_follow_the_precision(data, computed, by_method):
    """bfloat16 in the converged classifier, in a score of the same weights, and in the controls."""
    base = {n: TASK.stages(fields.build(TASK.config, TINY | {"precision": n}), 0)["base"]
            for n in ("float32", "bfloat16")}  # fmt: skip
    full, half = (arrays(stage, data, computed) for stage in base.values())
    assert all(value.dtype == np.float32 for name, value in half.items() if "weight" in name[7:])
    assert not np.array_equal(full["training_loss"], half["training_loss"])
    exact = by_method["baseline"].predictions[-1].probabilities
    config = fields.build(TASK.config, TINY | {"method": "baseline", "precision": "bfloat16"})
    scored = load_function(TASK.train)(config, data, 0, {"base": full}, device="cpu")
    probabilities = scored.predictions[-1].probabilities
    assert not np.array_equal(probabilities, exact)
    np.testing.assert_allclose(probabilities, exact, atol=0.05)


def test_untrained_means_before_this_training(data, tmp_path):
    """The control is the policy as it starts: from `policy_weights_path` where one is given, by
    its content."""
    network = build_policy(
        "coarse-unet", channels=1, grid=8, initial_bias=3.0,
        generator=torch_generator(5, "other"),
    )  # fmt: skip
    path = tmp_path / "policy.pt"
    torch.save(network.network.state_dict(), path)
    plain = fields.build(TASK.config, TINY)
    given = fields.build(TASK.config, TINY | {"policy_weights_path": str(path)})
    first = TASK.stages(given, 0)["controls"].inputs
    assert first != TASK.stages(plain, 0)["controls"].inputs
    images = torch.randn(4, 1, 32, 32, generator=torch_generator(0, "images"))
    base = build_classifier(
        "tiny-resnet", channels=1, classes=2, size=32, generator=torch_generator(0, "net")
    )
    maps = control_maps(
        first, base, images, torch.tensor([0, 1, 0, 1]), black=torch.zeros(1), bone=None
    )
    with torch.no_grad():
        expected = over_pixels(torch.sigmoid(network(images)), (32, 32))
    np.testing.assert_array_equal(maps["untrained policy"], expected)
    torch.save({k: v + 1 for k, v in network.network.state_dict().items()}, path)
    other = fields.build(TASK.config, TINY | {"policy_weights_path": str(path)})
    assert TASK.stages(other, 0)["controls"].inputs != first
    with pytest.raises(ConfigError, match="holds a file other than when the study was planned"):
        fields.build(TASK.config, fields.as_dict(given))


def test_a_weights_file_is_its_content_in_the_keys_of_cells_and_stages(data, tmp_path):
    path = tmp_path / "w.pt"

    def keys_of(seed_of_weights: int) -> tuple[str, str, tuple[str, ...]]:
        network = build_classifier(
            "tiny-resnet", channels=1, classes=2, size=32,
            generator=torch_generator(seed_of_weights, "file"),
        )  # fmt: skip
        torch.save(network.state_dict(), path)
        config = fields.build(TASK.config, TINY | {"weights_path": str(path)})
        notes = TASK.check(config, data)
        stage = TASK.stages(config, 0)["base"]
        cell = cell_key(TASK.name, TASK.version, fields.as_dict(config), 0, data.fingerprint)
        return cell, stage_key(TASK, stage, data.fingerprint), notes

    first, again, other = keys_of(1), keys_of(1), keys_of(2)
    assert first == again
    assert first[0] != other[0]
    assert first[1] != other[1]
    assert first[2] == ("classifier: w.pt: 56 tensors loaded",)


@pytest.mark.parametrize(("channels", "mean"), [(3, 0.485), (1, 0.449)])
def test_imagenets_weights_bring_imagenets_normalisation(data, channels, mean):
    train = dataclasses.replace(data.train, images=np.zeros((2, channels, 4, 4), dtype=np.uint8))
    (first, *_), _ = normalisation("imagenet", "", train)
    assert first == pytest.approx(mean, abs=1e-3)
    assert normalisation("none", "", data.train) == data.train.mean_std
    assert normalisation("imagenet", "own.pt", data.train) == data.train.mean_std


def test_networks_never_see_more_pixels_at_once_than_an_evaluation(data, monkeypatch):
    """Without gradients: of the policy, of rewards before training, of every score and control."""
    most_at_once = 12  # as many as the adversary's two views of a batch of 6
    monkeypatch.setattr(fitting, "EVALUATION_PIXELS", most_at_once * 32 * 32)
    monkeypatch.setattr(controls, "OCCLUSION_CELLS", (2,))
    most = {"policy": 0, "classifier": 0}

    def watch(kind, name):
        forward = kind.forward

        def counted(self, x, *others):
            if not torch.is_grad_enabled() and len(x) > most[name]:
                most[name] = len(x)
            return forward(self, x, *others)

        monkeypatch.setattr(kind, "forward", counted)

    watch(Policy, "policy")
    watch(Classifier, "classifier")
    one = {"samples": 1, "reward_baseline": "ema-before"}
    run(data, {}, method="apga", batch_size=6, tta=True, **one)
    assert most == {"classifier": most_at_once, "policy": most_at_once}
    assert min(len(part.labels) for part in (data.validation, data.test)) > 2 * most_at_once


def test_arms_share_their_base_classifier_and_seeds_do_not():
    def inputs(seed=0, **changes):
        return TASK.stages(fields.build(TASK.config, TINY | changes), seed)["base"].inputs

    assert inputs(method="apga") == inputs(method="cutout", lambda_zeros=0.5, epochs=9)
    assert inputs() != inputs(seed=1)
    assert inputs() != inputs(k_shot=10)
    assert inputs() != inputs(base_learning_rate=1e-2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k_shot": 10_000}, "k_shot must be at most"),
        ({"grid": 9}, "coarse-unet needs a grid of 1 to 8"),
        ({"policy_network": "unet-vgg11", "grid": 33}, "grid must be at most the image's side"),
        (
            {"weights_path": "nowhere.pt"},
            r'weights_path: must name a file, "\S+nowhere.pt" is none',
        ),
        ({"weights": "imagenet"}, "ImageNet weights exist for .*got tiny-resnet"),
    ],
)
def test_misfits_with_the_data_are_refused(data, changes, message):
    with pytest.raises(ConfigError, match=message):
        TASK.check(fields.build(TASK.config, TINY | changes), data)


def test_a_policy_cell_reports_masks_rewards_and_the_lesion(data, computed, by_method):
    outcome = run(data, computed, method="apga", tta=True)
    assert {
        "mask_area", "empty_masks", "lesion_auroc", "lesion_iou", "tta_accuracy",
        "lesion_margin", "lesion_iou_margin", "reward_of_lesion",
        "reward_of_patch_positive", "reward_of_patch_negative",
    } <= set(outcome.metrics)  # fmt: skip
    assert {"reward/class1", "mask_area/class0", "mask_area/class1"} <= set(outcome.curves)
    assert outcome.artifacts["gallery_importance"].shape == (8, 32, 32)
    plain = by_method["baseline_matched"]
    assert "lesion_auroc" not in plain.metrics
    assert not plain.artifacts


@pytest.mark.slow
def test_factors_change_the_cell(data, computed, by_method):
    reference = by_method["apga"]
    for changes in (
        {"target": "as-printed"},
        {"reward_granularity": "batch"},
        {"reward_baseline": "ema-after"},
        {"lambda_zeros": 0.2},
        {"lambda_ramp_steps": 5},
        {"lambda_mode": "abs-advantage"},
        {"lambda_ones": 0.01},
        {"pg_scale": 100.0},
        {"advantage_scale": "none"},
        {"erase_value": "zero"},
        {"reward_images": "all"},
        {"bn_mode": "released"},
        {"aid_ratio": 0.5},
        {"second_view_statistics": "shared"},
        {"sampling": "greedy", "samples": 1, "reward_baseline": "ema-before"},
        {"initial_bias": 0.0},
        {"policy_warmup_steps": 3},
        {"grid": 4},
    ):
        assert not same(reference, run(data, computed, **changes)), changes


def test_balanced_classes_weigh_the_same_in_sum(data):
    train = data.train.take(np.r_[np.flatnonzero(data.train.labels == 0)[:30],
                                  np.flatnonzero(data.train.labels == 1)[:10]])  # fmt: skip
    weights = class_weights("balanced", train)
    assert weights.tolist() == pytest.approx([40 / 60, 40 / 20])
    assert class_weights("none", train) is None
    network = build_classifier(
        "tiny-resnet", channels=1, classes=2, size=32, generator=torch_generator(0, "net")
    )
    learner = Learner(
        network, learning_rate=1e-3, weight_decay=0.0, precision="float32", class_weights=weights
    )
    losses, labels = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 1])
    expected = (losses * weights[labels]).sum() / weights[labels].sum()
    assert float(learner._mean(losses, labels)) == pytest.approx(float(expected))
