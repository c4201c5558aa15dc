"""Dealing patients out to train, validation and test, where the data does not say."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from imaging_core.datasets.base import ImageDataset, Split, image_hashes
from imaging_core.datasets.decoding import chosen

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


def in_part_order(parts: np.ndarray) -> np.ndarray:
    """(N,): rows so that those of train, validation and test follow one another; stable.

    Args:
        parts: (N,) of PART_NAMES, or anything else, which comes last.
    """
    place = np.full(len(parts), len(PART_NAMES))
    for number, name in enumerate(PART_NAMES):
        place[parts == name] = number
    return np.argsort(place, kind="stable")


def _keys(split: Split) -> list[bytes]:
    return [row.tobytes() for row in image_hashes(split)]


def drop_shared_images(data: ImageDataset) -> ImageDataset:
    """`data` without training images that are pixel for pixel in validation or test, and without
    validation images that are in test (unless the protocol reports where it selects); then without
    those whose pixels carry two labels, wherever they are: none can be right.
    """
    keys = {part: _keys(getattr(data, part)) for part in PART_NAMES}
    keep = {part: np.ones(len(found), dtype=bool) for part, found in keys.items()}
    held_out = set(keys["test"])
    if data.protocol != "paper":
        keep["validation"] = np.array([k not in held_out for k in keys["validation"]], dtype=bool)
    held_out |= set(_left(keys["validation"], keep["validation"]))
    keep["train"] = np.array([k not in held_out for k in keys["train"]], dtype=bool)
    labels: dict[bytes, set[int]] = {}
    for part, found in keys.items():
        of_part = getattr(data, part).labels[keep[part]].tolist()
        for key, label in zip(_left(found, keep[part]), of_part, strict=True):
            labels.setdefault(key, set()).add(label)
    two = {key for key, of_key in labels.items() if len(of_key) > 1}
    for part, found in keys.items():
        keep[part] &= np.array([key not in two for key in found], dtype=bool)
    return replace(data, **{part: _kept(getattr(data, part), keep[part]) for part in PART_NAMES})


def _left(keys: list[bytes], keep: np.ndarray) -> list[bytes]:
    return [key for key, kept in zip(keys, keep.tolist(), strict=True) if kept]


def _kept(split: Split, keep: np.ndarray) -> Split:
    """The rows of `split` that `keep`; pixels that lie in a file are written to another one."""
    if keep.all():
        return split
    images = chosen(split.images, image_hashes(split), keep)
    others = replace(split, images=np.empty((len(keep), 0), dtype=np.uint8)).take(keep)
    return replace(others, images=images)
