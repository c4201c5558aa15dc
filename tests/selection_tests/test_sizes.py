"""Images that the generator cannot draw are refused before anything starts."""

import dataclasses

import numpy as np
import pytest

from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.fields import ConfigError
from selection_core.config import PRESETS, SelectionConfig
from selection_core.gan import Generator
from selection_core.sizes import halvings
from selection_core.task import check


def data_of(height: int, width: int) -> ImageDataset:
    def part(seed: int) -> Split:
        names = np.array([f"{seed}-{i}" for i in range(40)])
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 1, height, width))
        return Split(
            images=pixels.astype(np.uint8),
            labels=np.arange(40) % 2,
            groups=names,
            ids=names,
        )

    parts = (part(seed) for seed in range(3))
    train, validation, test = parts
    return ImageDataset(
        name="toy", classes=("a", "b"), train=train, validation=validation, test=test
    )


def config(**fields) -> SelectionConfig:
    small = {"k_shot": 8, "validation_per_class": 0, "classifier_augment": "none"}
    return SelectionConfig(**{**PRESETS["demo"], **small, **fields})


@pytest.mark.parametrize("size", [(28, 28), (224, 224), (32, 28), (50, 50)])
def test_a_size_that_does_not_halve_is_refused_with_one_that_does(size):
    with pytest.raises(ConfigError) as refusal:
        check(config(), data_of(*size))
    assert f"got {size[0]} × {size[1]}; resize the images to 32, 64" in str(refusal.value)


@pytest.mark.parametrize("size", [(32, 32), (24, 48), (40, 40)])
def test_a_size_that_halves_is_taken(size):
    check(config(), data_of(*size))
    assert min(size) >> halvings(size) in (3, 4, 5)


@pytest.mark.parametrize("size", [(28, 28), (224, 224)])
@pytest.mark.parametrize("fields", [{"method": "baseline"}, {"pool": "real", "pool_per_class": 8}])
def test_where_nothing_is_generated_any_size_will_do(size, fields):
    check(config(**fields), data_of(*size))


def test_what_is_checked_is_what_the_network_refuses():
    """The check and the generator agree on every size up to 72 pixels."""
    for side in range(6, 73):
        refused = []
        for build in (
            lambda side=side: check(config(), data_of(side, side)),
            lambda side=side: Generator(
                latent=4, classes=2, channels=1, size=(side, side), width=4
            ),
        ):
            try:
                build()
                refused.append(False)
            except ConfigError:
                refused.append(True)
        assert refused[0] == refused[1], side


def test_a_triplet_needs_two_images_of_each_class():
    data = data_of(32, 32)
    alone = np.flatnonzero((data.train.labels == 0) | (np.arange(40) == 1))
    lonely = dataclasses.replace(data, train=data.train.take(alone))
    with pytest.raises(ConfigError, match="at least 2 training images with method=metric_learning"):
        check(config(method="metric_learning", k_shot=0), lonely)
