"""k-shot subsets: nested in k, stratified by class, spread over patients, free of file order."""

import hashlib

import numpy as np

from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.fields import ConfigError


def _rank(seed: int, kind: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/k-shot/{kind}/{name}".encode()).digest()


def k_shot_index(split: Split, k: int, seed: int) -> np.ndarray:
    """Row numbers of `k` examples per class, class by class, in drawing order.

    Patients take turns (one image of each, in an order drawn from the seed, then the second of
    each, …), so k images come from as many patients as there are. The subset for k is the head
    of the subset for k + 1, and does not depend on the order of the rows.

    Raises:
        ConfigError: a class has fewer than `k` examples.
    """
    chosen: list[int] = []
    _check_sizes(split, k)
    for label in split.class_sizes:
        rows = np.flatnonzero(split.labels == label)
        by_group: dict[str, list[int]] = {}
        for row in sorted(rows, key=lambda r: _rank(seed, "image", str(split.ids[r]))):
            by_group.setdefault(str(split.groups[row]), []).append(int(row))
        turns = [
            (turn, _rank(seed, f"group/{label}", group), row)
            for group, members in by_group.items()
            for turn, row in enumerate(members)
        ]
        chosen += [row for _, _, row in sorted(turns)[:k]]
    return np.asarray(chosen, dtype=np.int64)


def k_shot(split: Split, k: int, seed: int) -> Split:
    """The `k`-per-class subset of `split`; k = 0 means all of it."""
    return split if k == 0 else split.take(k_shot_index(split, k, seed))


def check_k_shot(data: ImageDataset, k: int) -> None:
    """Refuse a k above the smallest class, before any work."""
    if k:
        _check_sizes(data.train, k)


def smallest_class(split: Split) -> int:
    """Images of the class that has fewest."""
    return min(split.class_sizes.values(), default=0)


def _check_sizes(split: Split, k: int) -> None:
    for label, size in split.class_sizes.items():
        if size < k:
            raise ConfigError(
                f"k_shot must be at most {size} (the training images of class {label}), "
                f"got {k}; lower it, or use k_shot=0 for all"
            )
