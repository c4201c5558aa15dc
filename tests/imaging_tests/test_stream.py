"""Common random numbers for fits on selections: what two selections share comes in one order."""

import numpy as np
import pytest
import torch

from imaging_core.augment import AUGMENTATIONS
from imaging_core.seeding import torch_generator
from imaging_core.stream import Stream, by_key


def _order(members, groups=(4, 60), steps=12, batch=8, parts=3):
    """Places in the whole list, in the order in which a fit reads them, (steps, batch)."""
    stream = Stream(groups=groups, members=torch.tensor(members), steps=steps, parts=parts)
    keys, _ = by_key(groups, torch_generator(0, "fit"))
    batches = [rows for part in stream.batches(batch, keys) for rows in part]
    return stream.members[torch.stack(batches)]


def _passes(order, images):
    """The order of `images` in each pass that is whole."""
    read = [place for place in order.flatten().tolist() if place in images]
    whole = len(read) // len(images) * len(images)
    return np.reshape(read[:whole], (-1, len(images)))


def _by_count(members, steps=12, batch=8):
    """The twin that breaks the promise: a permutation of as many as there are."""
    generator, read = torch_generator(0, "fit"), []
    while len(read) < steps * batch:
        read += torch.tensor(members)[torch.randperm(len(members), generator=generator)].tolist()
    return torch.tensor(read[: steps * batch]).view(steps, batch)


@pytest.mark.parametrize("other", [list(range(1, 40)), [*range(20), *range(44, 60)], [2, 5, 9]])
def test_images_that_two_selections_share_come_in_the_same_order_in_each_pass(other):
    mine = list(range(40))
    shared = set(mine) & set(other)
    a, b = _passes(_order(mine), shared), _passes(_order(other), shared)
    passes = min(len(a), len(b))
    assert passes >= 1
    assert np.array_equal(a[:passes], b[:passes])
    a, b = _passes(_by_count(mine), shared), _passes(_by_count(other), shared)
    assert not np.array_equal(a[:passes], b[:passes])


@pytest.mark.parametrize("count", [3, 4, 33, 64])
def test_every_selection_makes_as_many_steps_on_as_many_images(count):
    order = _order(list(range(count)))
    assert order.shape == (12, 8)
    times = torch.bincount(order.flatten(), minlength=count)
    assert times.max() - times.min() <= 1  # pass after pass, each image once in each


def test_real_images_are_read_alike_with_and_without_a_pool():
    assert torch.equal(_order([0, 1, 2, 3], groups=(4,)), _order([0, 1, 2, 3], groups=(4, 60)))


@pytest.mark.parametrize("name", ["flips", "flips-transposes", "traditional"])
def test_an_image_is_augmented_alike_whatever_else_is_in_its_batch(name):
    images = torch.rand(64, 3, 6, 6, generator=torch_generator(0, "images"))

    def seen(rows):
        _, draws = by_key((4, 60), torch_generator(0, "fit"))
        draws.rows = torch.tensor(rows)
        return AUGMENTATIONS[name](images[rows], draws)

    assert torch.equal(seen([7, 20, 3])[2], seen([9, 3])[1])
    assert not torch.equal(seen([3])[0], images[3]) or not torch.equal(seen([7])[0], images[7])


def test_parts_are_refused_where_there_are_more_than_steps():
    with pytest.raises(ValueError, match="at least as many steps as parts, got 2 steps in 3 parts"):
        Stream(groups=(4,), members=torch.arange(4), steps=2, parts=3)
