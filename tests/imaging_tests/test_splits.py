import numpy as np
import pytest

from imaging_core.datasets import ImageDataset, Split
from imaging_core.fields import ConfigError
from imaging_core.splits import check_k_shot, k_shot, k_shot_index


def make_split(per_class=(30, 20), groups=5):
    labels = np.repeat(np.arange(len(per_class)), per_class)
    n = len(labels)
    return Split(
        images=np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1),
        labels=labels,
        groups=np.array([f"patient-{i % groups}" for i in range(n)]),
        ids=np.array([f"image-{i:03d}" for i in range(n)]),
    )


def drawn(split, k, seed=0):
    return [str(x) for x in k_shot(split, k, seed).ids]


def by_class(split, k, seed=0):
    part = k_shot(split, k, seed)
    return {c: [str(x) for x in part.ids[part.labels == c]] for c in (0, 1)}


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_subsets_are_nested_in_k(seed):
    split = make_split()
    full = by_class(split, 20, seed)
    for k in range(1, 20):
        smaller = by_class(split, k, seed)
        for label in (0, 1):
            assert smaller[label] == full[label][:k]


def test_subsets_hold_k_of_each_class():
    for k in (1, 7, 20):
        assert np.bincount(k_shot(make_split(), k, 0).labels).tolist() == [k, k]


def test_rows_in_another_order_give_the_same_subset():
    split = make_split()
    shuffled = split.take(np.random.default_rng(3).permutation(len(split)))
    assert shuffled.ids.tolist() != split.ids.tolist()
    assert drawn(shuffled, 8) == drawn(split, 8)


def test_images_come_from_as_many_patients_as_there_are():
    part = k_shot(make_split(per_class=(30, 30), groups=6), 6, 0)
    for label in (0, 1):
        assert len(set(part.groups[part.labels == label])) == 6


def test_seeds_draw_different_subsets():
    assert len({tuple(drawn(make_split(), 5, seed)) for seed in range(6)}) == 6


def test_zero_means_every_image():
    split = make_split()
    assert k_shot(split, 0, 0) is split


def test_k_above_the_smallest_class_is_refused_with_its_size():
    split = make_split(per_class=(30, 20))
    data = ImageDataset(name="toy", classes=("a", "b"), train=split, validation=split, test=split)
    check_k_shot(data, 20)
    with pytest.raises(ConfigError, match=r"k_shot must be at most 20 .*class 1.*got 21.*k_shot=0"):
        check_k_shot(data, 21)


def test_the_index_has_no_repeats():
    index = k_shot_index(make_split(), 15, 4)
    assert len(index) == len(set(index.tolist())) == 30
