"""Another partition of the same images into train, validation and test: dealt anew, or in folds.

Options of every dataset: `?fold=2of5` (test is the second of five folds, validation the next one,
train the other three) and `?split_seed=1` (dealt by patient in the shares of the dataset's own
parts, where the loader itself does not deal; with `fold` the shuffle of the folds). Patients stay
whole, and so do patients who share an identical image; classes are stratified.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from imaging_core.datasets.base import ImageDataset, Split, image_hashes
from imaging_core.datasets.decoding import chosen, map_file, place_of
from imaging_core.datasets.parts import PART_NAMES, carve
from imaging_core.fields import ConfigError

FOLD, SPLIT_SEED = "fold", "split_seed"
FEWEST_FOLDS = 3  # one each for test and validation, the rest to train on


def with_partition(text: str, levels: Mapping[str, Any]) -> str:
    """The dataset `text` ("name:path") with the partition that `levels` name, if they do, among its
    options.
    """
    options = "&".join(f"{n}={levels[n]}" for n in (SPLIT_SEED, FOLD) if n in levels)
    if not options:
        return text
    between = "&" if "?" in text else "?" if ":" in text else ":?"
    return f"{text}{between}{options}"


def folds(count: int) -> tuple[str, ...]:
    """`("1of3", "2of3", "3of3")`: the values of `fold` that make up a cross-validation.

    Raises:
        ConfigError: fewer than three.
    """
    if count < FEWEST_FOLDS:
        raise ConfigError(
            f"folds must be at least {FEWEST_FOLDS} (test, validation and at least one to train "
            f"on), got {count}"
        )
    return tuple(f"{number}of{count}" for number in range(1, count + 1))


def parse_fold(text: str) -> tuple[int, int]:
    """`"2of5"` → (1, 5): which fold, from 0, and of how many.

    Raises:
        ConfigError: another form, fewer than three folds, or no such fold.
    """
    found = re.fullmatch(r"([1-9]\d*)of([1-9]\d*)", text)
    if not found or int(found[1]) > int(found[2]) or int(found[2]) < FEWEST_FOLDS:
        raise ConfigError(
            f'fold must be one of at least {FEWEST_FOLDS}, as "2of5" (the second of five), got '
            f'"{text}"'
        )
    return int(found[1]) - 1, int(found[2])


def parse_split_seed(text: str) -> int:
    """A whole number from 0 to 2³² − 1.

    Raises:
        ConfigError: anything else.
    """
    if not text.isdecimal() or int(text) >= 2**32:
        raise ConfigError(f'split_seed must be a whole number from 0 to 2^32 - 1, got "{text}"')
    return int(text)


def partitioned(data: ImageDataset, *, fold: str | None, split_seed: int = 0) -> ImageDataset:
    """`data` with its images dealt out again; what its loader fitted to its own parts stays.

    Args:
        fold: `"2of5"`; None: in the shares that the parts of `data` have.

    Raises:
        ConfigError: a protocol other than held-out, or more folds than a class has patients.
    """
    if data.protocol != "held-out":
        raise ConfigError(
            f'another partition needs protocol "held-out", got "{data.protocol}": it is the '
            "published one that the paper selects and reports on"
        )
    whole = _whole(data)
    together = _together(whole)
    if fold is None:
        counts = [len(np.unique(getattr(data, name).groups)) for name in PART_NAMES]
        first, second, third = (count / sum(counts) for count in counts)
        parts = carve(together, whole.labels.tolist(), (first, second, third), split_seed)
        said = f"split_seed {split_seed}"
    else:
        number, count = parse_fold(fold)
        place = _folds(data, whole.labels, together, count, split_seed)
        parts = np.full(len(place), "train", dtype="U10")
        parts[place == number] = "test"
        parts[place == (number + 1) % count] = "validation"
        said = f"fold {number + 1} of {count}, split_seed {split_seed}"
    taken = {name: _taken(whole, parts == name) for name in PART_NAMES}
    note = f"dealt out again by patient ({said}); what the loader fitted to its own parts stays"
    return ImageDataset(name=data.name, classes=data.classes, notes=(*data.notes, note), **taken)


def _folds(
    data: ImageDataset, labels: np.ndarray, together: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """(N,) the fold of each image, from 0; it does not depend on the order of the rows."""
    from sklearn.model_selection import StratifiedGroupKFold

    for label, name in enumerate(data.classes):
        patients = len(np.unique(together[labels == label]))
        if patients < count:
            raise ConfigError(
                f"folds must be at most {patients} (the patients of class {name} in {data.name}), "
                f"got {count}"
            )
    dealer = StratifiedGroupKFold(n_splits=count, shuffle=True, random_state=seed)
    place = np.empty(len(labels), dtype=np.int64)
    for number, (_, test) in enumerate(dealer.split(labels, labels, together)):
        place[test] = number
    return place


def _whole(data: ImageDataset) -> Split:
    """The three parts as one; ids carry their part's name where two parts share one."""
    parts: Sequence[Split] = [getattr(data, name) for name in PART_NAMES]
    ids = [part.ids for part in parts]
    if len(np.unique(np.concatenate(ids))) < sum(map(len, ids)):
        ids = [
            np.array([f"{name}/{each}" for each in of_part])
            for name, of_part in zip(PART_NAMES, ids, strict=True)
        ]
    found = {"images": _joined([part.images for part in parts]), "ids": np.concatenate(ids)}
    found["hashes"] = np.concatenate([image_hashes(part) for part in parts])
    for f in fields(Split):
        values = [getattr(part, f.name) for part in parts]
        if f.name not in found and all(value is not None for value in values):
            found[f.name] = np.concatenate(values)
    return Split(**found)


def _joined(images: Sequence[np.ndarray]) -> np.ndarray:
    """All of them in order: mapped where they follow one another in one file, else a copy."""
    places = [place_of(each) for each in images]
    first = places[0]
    if first is not None:
        ends = np.cumsum([first[1], *(each.nbytes for each in images)])
        if places == [(first[0], int(end)) for end in ends[:-1]]:
            return map_file(first[0], sum(map(len, images)), images[0].shape[1:], offset=first[1])
    return np.concatenate(images)


def _together(whole: Split) -> np.ndarray:
    """(N,) str: a name for those who stay together: a patient, or several who share an image."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, group = np.unique(whole.groups, return_inverse=True)
    _, image = np.unique(image_hashes(whole), axis=0, return_inverse=True)
    nodes = len(names) + int(image.max()) + 1
    edges = coo_array((np.ones(len(group)), (group, len(names) + image.ravel())), (nodes, nodes))
    _, component = connected_components(edges, directed=False)
    first = {}
    for name, which in zip(names.tolist(), component[: len(names)].tolist(), strict=True):
        first.setdefault(which, name)  # names are sorted, so this does not depend on the rows
    return np.array([first[which] for which in component[group].tolist()])


def _taken(whole: Split, keep: np.ndarray) -> Split:
    images = chosen(whole.images, image_hashes(whole), keep)
    others = replace(whole, images=np.empty((len(keep), 0), dtype=np.uint8)).take(keep)
    return replace(others, images=images)
