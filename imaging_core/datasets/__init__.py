"""Named datasets: `load("ihc-colon")`, `load("folder", path=...)`. No torch here.

Every loader returns an `ImageDataset` whose train, validation and test parts share no patient and
no identical image; the check runs on every load.
"""

from imaging_core.datasets.base import DataError, ImageDataset, Split
from imaging_core.datasets.fetch import FetchError
from imaging_core.datasets.partition import (
    FOLD,
    folds,
    parse_fold,
    parse_split_seed,
    with_partition,
)
from imaging_core.datasets.registry import absolute, card, expand, load, names

__all__ = [
    "FOLD",
    "DataError",
    "FetchError",
    "ImageDataset",
    "Split",
    "absolute",
    "card",
    "expand",
    "folds",
    "load",
    "names",
    "parse_fold",
    "parse_split_seed",
    "with_partition",
]
