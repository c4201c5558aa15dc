"""Every loader passes the contract of datasets; each registered one has its class here."""

import numpy as np
import pytest
import test_mura
import test_pcam
from conformance.datasets import DatasetContract
from PIL import Image

from imaging_core.datasets import names


def _write_images(folder, count, size=(12, 10)):
    rng = np.random.default_rng(0)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"i{i:02d}.png")


class TestIhcColon(DatasetContract):
    name = "ihc-colon"


class TestPhantomXray(DatasetContract):
    name = "phantom-xray"


class TestFolder(DatasetContract):
    name = "folder"

    @pytest.fixture(scope="class")
    @classmethod
    def path(cls, tmp_path_factory):
        root = tmp_path_factory.mktemp("folder")
        _write_images(root, 40)
        rows = [f"i{i:02d}.png,{'ab'[i % 2]},p{i // 2}" for i in range(40)]
        (root / "manifest.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
        return f"{root}?size=8"


class TestMura(DatasetContract):
    name = "mura"

    @pytest.fixture(scope="class")
    @classmethod
    def path(cls, tmp_path_factory):
        root = tmp_path_factory.mktemp("mura") / "MURA-v1.1"
        test_mura.build(root, dict.fromkeys(test_mura.VALID, 8))
        return f"{root}?part=XR_ELBOW&size=8"


class TestVoc(DatasetContract):
    name = "voc"

    @pytest.fixture(scope="class")
    @classmethod
    def path(cls, tmp_path_factory):
        root = tmp_path_factory.mktemp("voc")
        for folder in ("Annotations", "JPEGImages"):
            (root / folder).mkdir()
        _write_images(root / "JPEGImages", 40, size=(30, 40))
        box = "<xmin>5</xmin><ymin>5</ymin><xmax>20</xmax><ymax>20</ymax>"
        for i in range(40):
            (root / f"Annotations/i{i:02d}.xml").write_text(
                f"<annotation><filename>i{i:02d}.png</filename><size><width>40</width>"
                "<height>30</height><depth>1</depth></size>"
                + f"<object><name>lesion</name><bndbox>{box}</bndbox></object>" * (i % 2)
                + "</annotation>"
            )
        return f"{root}?task=image&object=lesion&size=15x20"


class TestMedmnist(DatasetContract):
    name = "medmnist"

    @pytest.fixture(scope="class")
    @classmethod
    def path(cls, tmp_path_factory):
        rng = np.random.default_rng(0)
        arrays = {}
        for part, n in (("train", 30), ("val", 10), ("test", 12)):
            arrays[f"{part}_images"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
            arrays[f"{part}_labels"] = (np.arange(n) % 3)[:, None].astype(np.uint8)
        file = tmp_path_factory.mktemp("medmnist") / "mine.npz"
        np.savez(file, **arrays)
        return str(file)


class TestPcam(DatasetContract):
    name = "pcam"

    @pytest.fixture(scope="class")
    @classmethod
    def path(cls, tmp_path_factory):
        root = tmp_path_factory.mktemp("pcam")
        test_pcam.build(root)
        return f"{root}?crop=16&subset=0.2&evaluate=0.5"


def test_every_loader_is_here():
    held = {c.name for c in DatasetContract.__subclasses__() if hasattr(c, "name")}
    assert held >= set(names())
