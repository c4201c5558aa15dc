from dataclasses import replace

import numpy as np
import pytest

from imaging_core.datasets import DataError, ImageDataset, Split, card, load, names
from imaging_core.fields import ConfigError


def make_part(name, offset):
    return Split(
        images=(offset + np.arange(4, dtype=np.uint8)).reshape(4, 1, 1, 1) * np.ones((1, 1, 2, 2)),
        labels=np.array([0, 1, 0, 1]),
        groups=np.array([f"{name}-p{i // 2}" for i in range(4)]),
        ids=np.array([f"{name}-{i}" for i in range(4)]),
    )


@pytest.fixture
def data():
    parts = {name: make_part(name, 10 * i) for i, name in enumerate(("train", "validation"))}
    return ImageDataset(name="toy", classes=("a", "b"), test=make_part("test", 50), **parts)


def changed(data, part, **arrays):
    return replace(data, **{part: replace(getattr(data, part), **arrays)})


def test_a_sound_dataset_passes(data):
    assert data.check() is data
    assert data.channels == 1
    assert data.size == (2, 2)


def test_a_patient_in_two_parts_is_refused(data):
    groups = np.array(["train-p0", *data.test.groups[1:]])
    with pytest.raises(DataError, match='group "train-p0" is in train and test'):
        changed(data, "test", groups=groups).check()


def test_an_identical_image_in_two_parts_is_refused(data):
    images = data.validation.images.copy()
    images[2] = data.train.images[1]
    with pytest.raises(DataError, match="image validation-2 of validation is also in train"):
        changed(data, "validation", images=images).check()


def test_the_paper_protocol_may_select_and_report_on_one_part(data):
    shared = replace(data, validation=data.test)
    with pytest.raises(DataError, match="rules"):
        shared.check()
    assert replace(shared, protocol="paper").check().protocol == "paper"


def test_images_per_class_are_of_all_parts_and_count_once(data):
    assert data.class_sizes == {"a": 6, "b": 6}
    assert replace(data, validation=data.test, protocol="paper").class_sizes == {"a": 4, "b": 4}


def test_the_paper_protocol_still_keeps_training_apart(data):
    leaky = replace(data, validation=data.train, test=data.train, protocol="paper")
    with pytest.raises(DataError, match=r'group "train-p0" is in train and validation') as error:
        leaky.check()
    assert 'group "train-p0" is in train and test' in str(error.value)


def test_every_broken_rule_is_listed_at_once(data):
    broken = changed(data, "test", labels=np.array([0, 0, 0, 5]), ids=np.array(["x"] * 4))
    with pytest.raises(DataError) as error:
        broken.check()
    for text in ("breaks 3 rules", "labels [5] outside 0..1", "no image of class ['b']", "duplic"):
        assert text in str(error.value)


def test_the_fingerprint_sees_every_part_of_the_data(data):
    pixels = data.test.images.copy()
    pixels[3, 0, 1, 1] += 1
    masks = np.zeros((4, 2, 2), dtype=bool)
    variants = [
        replace(data, name="other"),
        replace(data, protocol="paper"),
        replace(data, classes=("b", "a")),
        replace(data, train=data.validation, validation=data.train),
        changed(data, "test", images=pixels),
        changed(data, "train", labels=data.train.labels[::-1]),
        changed(data, "train", groups=data.train.groups[::-1]),
        changed(data, "validation", ids=data.validation.ids[::-1]),
        changed(data, "train", masks=masks),
    ]
    prints = [variant.fingerprint for variant in [data, *variants]]
    assert len(set(prints)) == len(prints)
    assert replace(data).fingerprint == data.fingerprint


def test_mean_and_std_are_those_of_the_pixels():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (300, 3, 4, 5), dtype=np.uint8)
    images[:, 2] = 7
    ids = np.array([str(i) for i in range(300)])
    split = Split(images=images, labels=np.arange(300) % 2, groups=ids, ids=ids)
    mean, std = split.mean_std
    scaled = images / 255
    assert mean == pytest.approx(scaled.mean(axis=(0, 2, 3)), rel=1e-12)
    assert std[:2] == pytest.approx(scaled.std(axis=(0, 2, 3))[:2], rel=1e-12)
    assert std[2] == 1e-6  # a constant channel is not divided by zero


def test_an_unknown_name_gets_the_nearest_spelling():
    with pytest.raises(ConfigError, match='unknown dataset "ihc-colom"; did you mean "ihc-colon"'):
        load("ihc-colom")


def test_every_dataset_has_a_card():
    for name in names():
        text = card(name)
        assert "icence" in text
        assert "claim" in text, name
