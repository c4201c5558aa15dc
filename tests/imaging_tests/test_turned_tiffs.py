"""Pillow turns a TIFF as it loads it: the pixels must be right, boxes be refused all the same."""

import numpy as np
import pytest
from PIL import Image

from imaging_core.datasets import DataError, load
from imaging_core.datasets.images import read_images

STORED_AS = {
    1: lambda upright: upright,
    3: lambda upright: upright[::-1, ::-1],
    6: lambda upright: np.rot90(upright, 1),
    8: lambda upright: np.rot90(upright, -1),
}


def tiff(path, upright, orientation, compression=None):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(STORED_AS[orientation](upright).copy())
    image.save(path, exif=exif, compression=compression)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("orientation", STORED_AS)
def test_a_turned_tiff_is_read_upright(tmp_path, orientation, compression):
    upright = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)
    tiff(tmp_path / "x.tif", upright, orientation, compression)
    read = read_images(tmp_path, ["x.tif"], size=(30, 40), resize="nearest", colour="grey")
    assert np.array_equal(read[0, 0], upright)


@pytest.mark.parametrize("orientation", [1, 3])
def test_boxes_on_a_turned_tiff_are_refused(tmp_path, orientation):
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder).mkdir()
    cell = (
        "<object><name>cell</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>12</xmax>"
        "<ymax>12</ymax></bndbox></object>"
    )
    for i in range(20):
        upright = np.random.default_rng(i).integers(0, 256, (30, 40), dtype=np.uint8)
        tiff(tmp_path / f"JPEGImages/{i:02d}.tif", upright, orientation)
        (tmp_path / f"Annotations/{i:02d}.xml").write_text(
            "<annotation><size><width>40</width><height>30</height></size>"
            f"{cell if i % 2 else ''}</annotation>"
        )
    path = f"{tmp_path}?object=cell&size=30x40"
    if orientation == 1:
        assert len(load("voc", path).train) == 14
        return
    with pytest.raises(DataError) as refusal:
        load("voc", path)
    assert "10 of 20 images break a rule" in str(refusal.value)
    assert "01.tif: its EXIF orientation must be 1 where there are boxes" in str(refusal.value)
