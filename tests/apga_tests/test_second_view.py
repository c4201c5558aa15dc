"""What a second view may do to the classifier's batch norm, level by level, on two networks."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional

from apga_core.arms import EMPTY_AIDS
from apga_core.batch_norm import STATISTICS
from apga_core.config import APGAConfig
from apga_core.learner import Learner
from imaging_core.classifiers import build_classifier
from imaging_core.fields import levels_of
from imaging_core.seeding import torch_generator

SIZES = {"tiny-resnet": 32, "densenet169": 64}  # px
COUNTS = {"tiny-resnet": 16, "densenet169": 4}  # images
STEPS = {"tiny-resnet": 2, "densenet169": 1}
NETWORKS = ["tiny-resnet", pytest.param("densenet169", marks=pytest.mark.slow)]


@functools.cache
def built(network: str) -> nn.Module:
    return build_classifier(
        network, channels=1, classes=2, size=SIZES[network], generator=torch_generator(0, "net")
    )


def learner(level: str, network: str = "tiny-resnet") -> Learner:
    return Learner(
        copy.deepcopy(built(network)), learning_rate=1e-3, weight_decay=1e-2, precision="float32",
        second_view_statistics=level,
    )  # fmt: skip


def views(network: str = "tiny-resnet"):
    """Original images, and a second view of them with other statistics."""
    side, count = SIZES[network], COUNTS[network]
    images = torch.randn(count, 1, side, side, generator=torch_generator(0, "images"))
    labels = torch.arange(count) % 2
    images[labels > 0, :, :8, :8] += 2
    return images, labels, 0.2 * images - 3.0


def buffers(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in net.named_buffers()}


def same(first, second) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def steps(of: Learner, network: str = "tiny-resnet", count: int = 0) -> None:
    """`count` batches (or `STEPS`), each a step on the originals and one on their second view."""
    images, labels, second = views(network)
    for _ in range(count or STEPS[network]):
        of.update(images, labels)
        of.update(second, labels, second_view=True)


def test_every_level_has_its_statistics_and_no_other_is_known():
    assert tuple(STATISTICS) == levels_of(APGAConfig, "second_view_statistics")
    assert tuple(EMPTY_AIDS) == levels_of(APGAConfig, "empty_aid")


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("level", ["frozen", "separate"])
def test_a_second_step_leaves_what_a_score_reads_of_the_originals(level, network):
    """The weights that both views share move, the statistics are those of the originals alone.

    At a learning rate of 0 nothing of the second view is left: the eval-mode loss on originals is,
    to the bit, that of a network that never saw it.
    """
    images, labels, _ = views(network)
    mixed, still, alone = (learner(name, network) for name in ("shared", level, "shared"))
    for of in (mixed, still, alone):
        of.optimiser = torch.optim.SGD(of.classifier.parameters(), lr=0.0)
    steps(still, network)
    steps(mixed, network)
    for _ in range(STEPS[network]):
        alone.update(images, labels)
    expected = alone.losses(images, labels)
    assert torch.equal(still.losses(images, labels), expected)
    assert float((mixed.losses(images, labels) - expected).abs().mean()) > 0.01


@pytest.mark.parametrize("level", ["frozen", "separate"])
def test_statistics_after_a_second_step_are_those_before_it(level):
    """With learning on: the step on the second view moves weights and no running statistic."""
    images, labels, second = views()
    of = learner(level)
    of.update(images, labels)
    before, weights = buffers(of.classifier), of.classifier.head.weight.clone()
    of.update(second, labels, second_view=True)
    assert same(before, buffers(of.classifier))
    assert not torch.equal(weights, of.classifier.head.weight)
    shared = learner("shared")
    shared.update(images, labels)
    before = buffers(shared.classifier)
    shared.update(second, labels, second_view=True)
    assert not same(before, buffers(shared.classifier))


@pytest.mark.parametrize("network", NETWORKS)
def test_re_estimated_statistics_are_those_of_original_images_alone(network):
    """Whatever the running statistics held: the score is of a network with the same weights that
    only ever saw originals. One batch of all of them: then the mean of batches is exact."""
    images, labels, _ = views(network)
    of = learner("re-estimated", network)
    steps(of, network)
    clean = copy.deepcopy(of.classifier)
    for module in clean.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = 1.0
    with torch.no_grad():
        clean.train()(images.contiguous(memory_format=torch.channels_last))
        expected = functional.cross_entropy(clean.eval()(images), labels, reduction="none")
    before = of.losses(images, labels)
    of.before_scoring(images, len(images), torch_generator(0, "order"))
    torch.testing.assert_close(of.losses(images, labels), expected, atol=1e-4, rtol=1e-4)
    assert float((before - expected).abs().mean()) > 0.05
    of.update(images, labels)  # and training goes on with the momentum it had
    assert {m.momentum for m in of.classifier.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_re_estimation_averages_all_batches():
    """The first layer's mean over 16 images in batches of 4, by hand."""
    images, *_ = views()
    of = learner("re-estimated")
    of.before_scoring(images, 4, torch_generator(0, "order"))
    convolution, norm = of.classifier.trunk[0], of.classifier.trunk[1]
    with torch.no_grad():
        expected = convolution(images).mean(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_mean, expected, atol=1e-5, rtol=1e-4)
    assert int(norm.num_batches_tracked) == 4


def test_the_other_levels_score_with_what_training_left():
    for level in ("shared", "frozen", "separate"):
        of = learner(level)
        steps(of)
        before = buffers(of.classifier)
        of.before_scoring(views()[0], 8, torch_generator(0, "order"))
        assert same(before, buffers(of.classifier)), level


def test_separate_layers_learn_from_their_own_view_alone():
    """Weights of the one view do not move in the other's step, not even by Adam's momentum or by
    weight decay; the convolutions, which both share, do."""
    images, labels, second = views()
    of = learner("separate")
    norms = of.statistics.norms
    assert len(of.own) == len(norms) > 0
    assert not {id(layer) for layer in of.own} & {id(norm) for norm in norms}
    steps(of)

    def weights(layers):
        return [layer.weight.clone() for layer in layers]

    first, own, head = weights(norms), weights(of.own), of.classifier.head.weight.clone()
    of.update(second, labels, second_view=True)
    assert all(map(torch.equal, first, weights(norms)))
    assert not any(map(torch.equal, own, weights(of.own)))
    assert not torch.equal(head, of.classifier.head.weight)
    own = weights(of.own)
    of.update(images, labels)
    assert all(map(torch.equal, own, weights(of.own)))
    assert not any(map(torch.equal, first, weights(norms)))


def test_each_view_is_scored_by_its_own_layers():
    """On second views the second layers do better than the classifier's, which never saw one."""
    images, labels, second = views()
    of = learner("separate")
    steps(of, count=40)
    state = buffers(of.classifier)

    def loss(x, **how):
        return float(functional.nll_loss(of.predict(x, **how).log(), labels))

    assert loss(second, second_view=True) < loss(second) - 0.05
    assert loss(images) < loss(images, second_view=True) - 0.05
    assert same(state, buffers(of.classifier))
    assert of.statistics.norms == [
        m for m in of.classifier.modules() if isinstance(m, nn.BatchNorm2d)
    ]
