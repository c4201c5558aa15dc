"""Folds and split seeds: patients stay whole, every image is tested once, order says nothing."""

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from imaging_core.datasets import ImageDataset, Split, registry
from imaging_core.datasets.partition import folds, parse_fold, partitioned
from imaging_core.datasets.parts import PART_NAMES
from imaging_core.fields import ConfigError

CARD = "twenty patients a class"


def whole(patients: int = 20) -> Split:
    """Patients of one to four images each, two classes; two patients share an image."""
    rows = [(p, i) for p in range(2 * patients) for i in range(1 + p % 4)]
    pixels = [10 * p + i if (p, i) != (3, 0) else 10 for p, i in rows]  # that of patient 1
    return Split(
        images=np.array(pixels)[:, None, None, None].astype(np.uint8)
        + np.array([[[[0, 1], [p // 26, 2]]] for p, _ in rows], dtype=np.uint8),
        labels=np.array([p % 2 for p, _ in rows]),
        groups=np.array([f"patient-{p}" for p, _ in rows]),
        ids=np.array([f"{p}-{i}" for p, i in rows]),
    )


def dealt(every: Split) -> ImageDataset:
    part = np.array([int(group.partition("-")[2]) % 10 for group in every.groups])
    return ImageDataset(
        name="tiny",
        classes=("a", "b"),
        train=every.take(part < 6),
        validation=every.take((part == 6) | (part == 7)),
        test=every.take(part > 7),
    ).check()


def load(path=None, *, protocol="held-out") -> ImageDataset:
    """This module as a loader without options."""
    return replace(dealt(whole()), protocol=protocol)


def parts_of(data: ImageDataset) -> dict[str, str]:
    """Image → its part."""
    return {i: name for name in PART_NAMES for i in getattr(data, name).ids.tolist()}


def test_every_image_is_in_one_test_fold_and_no_patient_in_two_parts():
    base, tested = load(), Counter()
    for fold in folds(5):
        data = partitioned(base, fold=fold).check()  # refuses patients and images in two parts
        tested.update(data.test.ids.tolist())
        assert parts_of(data).keys() == parts_of(base).keys()
        assert all(set(getattr(data, name).labels) == {0, 1} for name in PART_NAMES)
        shared = {parts_of(data)[i] for i in ("1-0", "1-1", "3-0", "3-1", "3-2", "3-3")}
        assert len(shared) == 1, "patients who share an image stay together"
    assert set(tested.values()) == {1}
    assert tested.keys() == parts_of(base).keys()


def test_a_split_seed_deals_by_patient_in_the_shares_of_the_parts():
    base = load()
    first, second = (partitioned(base, fold=None, split_seed=seed).check() for seed in (0, 1))
    assert parts_of(first) != parts_of(second)
    sizes = [len(set(getattr(first, name).groups)) for name in PART_NAMES]
    assert sizes == pytest.approx([24, 8, 8], abs=2)


@pytest.mark.parametrize("fold", ["2of4", None])
def test_the_order_of_the_rows_does_not_matter(fold):
    turned = whole().take(np.arange(len(whole()))[::-1].copy())
    one, other = (partitioned(dealt(w), fold=fold, split_seed=3) for w in (whole(), turned))
    assert parts_of(one) == parts_of(other)


def test_a_dataset_takes_them_as_options_and_is_itself_without(monkeypatch):
    monkeypatch.setitem(registry.LOADERS, "tiny", __name__)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    found = {path: registry.load("tiny", path) for path in (None, "?fold=1of3", "?split_seed=1")}
    assert found[None].fingerprint == load().fingerprint
    assert len({data.fingerprint for data in found.values()}) == 3
    again = registry.load("tiny", "?split_seed=2&fold=1of3")
    assert again.fingerprint == partitioned(load(), fold="1of3", split_seed=2).fingerprint
    with pytest.raises(ConfigError, match='another partition needs protocol "held-out"'):
        registry.load("tiny", "?fold=1of3", "paper")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("?fold=6of5", 'fold must be one of at least 3, as "2of5"'),
        ("?fold=1of2", 'fold must be one of at least 3, as "2of5"'),
        ("?fold=two", 'fold must be one of at least 3, as "2of5"'),
        ("?split_seed=-1", 'split_seed must be a whole number from 0 to .*, got "-1"'),
        # Of 20 patients of class b two go together.
        ("?fold=1of20", r"folds must be at most 19 \(the patients of class b in tiny\), got 20"),
        ("?fold=1of3&fold=2of3", 'option "fold" must be given once'),
        ("?fold=1of3&size=8", 'tiny takes no options, got "size"'),
    ],
)
def test_what_is_no_partition_is_refused(monkeypatch, path, said):
    monkeypatch.setitem(registry.LOADERS, "tiny", __name__)
    with pytest.raises(ConfigError, match=said):
        registry.load("tiny", path)


def test_folds_are_three_at_least():
    assert [parse_fold(text) for text in folds(3)] == [(0, 3), (1, 3), (2, 3)]
    with pytest.raises(ConfigError, match="folds must be at least 3"):
        folds(2)
