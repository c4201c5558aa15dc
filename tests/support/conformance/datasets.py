"""What every loader promises, as tests: sound parts, the same ones every time, options by name."""

import importlib
from typing import ClassVar
from unittest import mock

import numpy as np
import pytest

from imaging_core.datasets import card, load, registry
from imaging_core.datasets.base import DataError, ImageDataset
from imaging_core.datasets.registry import LOADERS, PLACES
from imaging_core.fields import ConfigError

PARTS = ("train", "validation", "test")


def fresh(name: str, path: str | None) -> ImageDataset:
    """The dataset, read again: what `load` keeps in memory is set aside."""
    with mock.patch.object(registry, "_loaded", type(registry._loaded)()):
        return load(name, path)


class DatasetContract:
    """Inherit as `Test...`; set `name`, and override the fixture `path` where it needs one."""

    name: ClassVar[str]
    """As in `--data NAME`."""

    @pytest.fixture(scope="class")
    @classmethod
    def path(cls) -> str | None:
        """Where the data is, with options: what stands behind `NAME:`."""
        return None

    @pytest.fixture(scope="class")
    @classmethod
    def data(cls, path: str | None) -> ImageDataset:
        return load(cls.name, path)

    def test_the_parts_are_sound(self, data):
        """`check` looks at ids, labels, sizes, and at patients and pixels in two parts."""
        assert data.check() is data
        assert len(data.classes) >= 2
        for name in PARTS:
            part = getattr(data, name)
            n = len(part)
            assert part.images.dtype == np.uint8, name
            assert part.images.shape == (n, data.channels, *data.size), name
            assert part.labels.dtype.kind == "i", name
            for words in (part.groups, part.ids):
                assert words.shape == (n,), name
                assert all(isinstance(word, str) and word for word in words.tolist()), name
            if part.masks is not None:
                assert part.masks.shape == (n, *data.size), name
                assert part.masks.dtype == bool, name
            if part.anatomy is not None:
                assert part.anatomy.shape == (n, *data.size), name
                assert part.anatomy.dtype == bool, name
            if part.studies is not None:
                assert part.studies.shape == (n,), name

    def test_it_says_its_own_name(self, data):
        """A variant may follow."""
        assert data.name.startswith(self.name)

    def test_it_is_the_same_every_time(self, data, path):
        again = fresh(self.name, path)
        assert again.fingerprint == data.fingerprint
        for name in PARTS:
            assert np.array_equal(getattr(again, name).images, getattr(data, name).images), name

    def test_it_has_a_card_with_licence_and_limits(self):
        text = card(self.name)
        assert "icence" in text
        assert "claim" in text

    def test_a_protocol_that_it_lacks_is_refused(self, path):
        with pytest.raises(ConfigError, match="protocol"):
            load(self.name, path, "no-such-protocol")

    def test_an_unknown_option_is_refused_by_name(self, path):
        where = (path or "").partition("?")[0]
        with pytest.raises(ConfigError, match=r"no_such_option|takes no options"):
            load(self.name, f"{where}?no_such_option=1")

    def test_a_place_that_is_not_there_is_named(self, tmp_path):
        if self.name not in PLACES:
            pytest.skip("its path names no place")
        with pytest.raises(ConfigError, match=f"--data {self.name}:"):
            load(self.name)
        with pytest.raises((ConfigError, DataError), match="nowhere"):
            load(self.name, str(tmp_path / "nowhere"))

    def test_its_module_is_registered_and_imports_no_torch(self):
        module = importlib.import_module(LOADERS[self.name])
        assert module.load
        assert module.CARD
        assert not any(name == "torch" for name in vars(module))
