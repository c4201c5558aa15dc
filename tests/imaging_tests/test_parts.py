import numpy as np
import pytest

from imaging_core.datasets import ImageDataset, Split
from imaging_core.datasets.parts import carve, drop_shared_images, in_share

SHARES = (0.7, 0.1, 0.2)


def make(count=300, per_group=3, seed=0):
    rng = np.random.default_rng(seed)
    groups = [f"p{i // per_group}" for i in range(count)]
    label_of = {g: int(rng.random() < 0.25) for g in dict.fromkeys(groups)}
    return groups, [label_of[g] for g in groups]


def test_a_patient_is_in_one_part_and_shares_hold_in_each_class():
    groups, labels = make()
    parts = carve(groups, labels, SHARES, 0)
    for group in set(groups):
        assert len({p for g, p in zip(groups, parts, strict=True) if g == group}) == 1
    for label in (0, 1):
        mine = parts[np.array(labels) == label]
        for part, share in zip(("train", "validation", "test"), SHARES, strict=True):
            assert np.mean(mine == part) == pytest.approx(share, abs=0.05)


def test_the_order_of_rows_does_not_matter():
    groups, labels = make()
    before = dict(zip(groups, carve(groups, labels, SHARES, 0), strict=True))
    order = np.random.default_rng(1).permutation(len(groups))
    again = carve([groups[i] for i in order], [labels[i] for i in order], SHARES, 0)
    assert {groups[i]: part for i, part in zip(order, again, strict=True)} == before
    other = carve(groups, labels, SHARES, 1)
    assert dict(zip(groups, other, strict=True)) != before


def test_a_class_of_three_patients_reaches_every_part():
    parts = carve(["a", "b", "c"], [0, 0, 0], (0.98, 0.01, 0.01), 0)
    assert sorted(parts) == ["test", "train", "validation"]


def test_a_patient_with_two_labels_counts_for_most_of_them():
    groups = [f"p{i}" for i in range(20) for _ in range(3)]
    labels = [0, 0, 1] * 20
    parts = carve(groups, labels, (0.5, 0.25, 0.25), 0)
    assert [int(np.sum(parts == p)) for p in ("train", "validation", "test")] == [30, 15, 15]


def test_a_share_is_of_patients_and_independent_of_the_others():
    inside = [in_share(f"patient{i:05d}", 0.1, 0) for i in range(20_000)]
    assert np.mean(inside) == pytest.approx(0.1, abs=0.01)
    more = [in_share(f"patient{i:05d}", 0.2, 0) for i in range(20_000)]
    assert all(b for a, b in zip(inside, more, strict=True) if a)


def part(name, pixels):
    n = len(pixels)
    ids = np.array([f"{name}{i}" for i in range(n)])
    images = np.array(pixels, dtype=np.uint8).reshape(n, 1, 1, 1)
    return Split(images=images, labels=np.arange(n) % 2, groups=ids, ids=ids)


def test_shared_images_go_to_the_later_part():
    data = ImageDataset(
        name="toy",
        classes=("a", "b"),
        train=part("train", [1, 2, 3, 4, 9]),
        validation=part("val", [5, 6, 3, 9]),
        test=part("test", [7, 8, 4, 9]),
    )
    kept = drop_shared_images(data).check()
    assert kept.train.ids.tolist() == ["train0", "train1"]
    assert kept.validation.ids.tolist() == ["val0", "val1", "val2"]
    assert kept.test is data.test
