"""Dealing patients out to train, validation and test, where the data does not say."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from imaging_core.datasets.base import ImageDataset, Split

PART_NAMES = ("train", "validation", "test")


def _hash(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}/part/{group}".encode()).digest()


def carve(
    groups: Sequence[str],
    labels: Sequence[int],
    shares: tuple[float, float, float],
    seed: int,
) -> np.ndarray:
    """The part of each row, by patient and stratified by class; free of the order of rows.

    A patient counts for the class that most of their images have (the larger one when tied).
    Within a class, patients are ordered by a hash and cut at the cumulative `shares` (which sum
    to 1); each part gets at least one of a class that has three patients or more.
    """
    tallies: dict[str, Counter[int]] = {}
    for group, label in zip(groups, labels, strict=True):
        tallies.setdefault(str(group), Counter())[int(label)] += 1
    strata: dict[int, list[str]] = {}
    for group, tally in tallies.items():
        most = max(tally, key=lambda label: (tally[label], label))
        strata.setdefault(most, []).append(group)
    part_of: dict[str, str] = {}
    for members in strata.values():
        count = len(members)
        first = round(shares[0] * count)
        second = round((shares[0] + shares[1]) * count)
        if count >= 3:
            first = min(max(first, 1), count - 2)
            second = min(max(second, first + 1), count - 1)
        for rank, group in enumerate(sorted(members, key=lambda g: _hash(seed, g))):
            part_of[group] = PART_NAMES[(rank >= first) + (rank >= second)]
    return np.array([part_of[str(group)] for group in groups])


def in_share(group: str, share: float, seed: int) -> bool:
    """Whether the hash of `group` falls into this share; it depends on no other patient."""
    return int.from_bytes(_hash(seed, group)[:8], "big") < share * 2**64


def _image_hashes(split: Split) -> list[bytes]:
    return [hashlib.sha256(np.ascontiguousarray(x).data).digest() for x in split.images]


def _without_contradictions(data: ImageDataset) -> ImageDataset:
    """`data` without images whose pixels carry two labels, wherever they are: none can be right."""
    hashes = {part: _image_hashes(getattr(data, part)) for part in PART_NAMES}
    labels: dict[bytes, set[int]] = {}
    for part, found in hashes.items():
        for key, label in zip(found, getattr(data, part).labels.tolist(), strict=True):
            labels.setdefault(key, set()).add(label)
    parts = {}
    for part, found in hashes.items():
        split = getattr(data, part)
        keep = np.array([len(labels[key]) == 1 for key in found], dtype=bool)
        parts[part] = split if keep.all() else split.take(keep)
    return replace(data, **parts)


def drop_shared_images(data: ImageDataset) -> ImageDataset:
    """`data` without training images that are pixel for pixel in validation or test, and without
    validation images that are in test (unless the protocol reports where it selects); then without
    those whose pixels carry two labels.
    """
    test = set(_image_hashes(data.test))
    validation = data.validation
    if data.protocol != "paper":
        keep = np.array([h not in test for h in _image_hashes(validation)], dtype=bool)
        validation = validation.take(keep)
    held_out = test | set(_image_hashes(validation))
    keep = np.array([h not in held_out for h in _image_hashes(data.train)], dtype=bool)
    left = replace(data, train=data.train.take(keep), validation=validation)
    return _without_contradictions(left)
