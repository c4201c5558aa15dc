"""More than 8 bits: what becomes black and white is said, never guessed; DICOM as PS3.3 has it."""

import numpy as np
import pytest
from PIL import Image

from imaging_core import datasets
from imaging_core.datasets.base import DataError
from imaging_core.datasets.deep import Scale, hashed, open_deep, to_grey
from imaging_core.datasets.images import BadImage
from imaging_core.fields import ConfigError

VALUES = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64  # 0 … 4032


def folder(root, write, count=12):
    """A dataset of `count` images, one group each; `write(path, values)` makes one."""
    lines = ["path,label,group,split"]
    parts = ["train", "validation", "test"] * (count // 3)
    for i, part in enumerate(parts):
        name = write(root / f"i{i}", np.roll(VALUES, i))
        lines.append(f"{name},{'ab'[(i // 3) % 2]},Müller {i},{part}")
    (root / "manifest.csv").write_text("\n".join(lines), encoding="utf-8")
    return root


def png(path, values):
    Image.fromarray(values).save(path.with_suffix(".png"))
    return f"{path.name}.png"


def tiff(path, values):
    Image.fromarray(values).save(path.with_suffix(".tiff"))
    return f"{path.name}.tiff"


@pytest.mark.parametrize("write", [png, tiff])
def test_sixteen_bits_are_read_by_a_window_that_is_named(write, tmp_path):
    folder(tmp_path, write)
    with pytest.raises(DataError, match=r"\?window=LOW:HIGH or \?percentile"):
        datasets.load("folder", f"{tmp_path}?size=8")
    data = datasets.load("folder", f"{tmp_path}?size=8&window=1000:3000")
    row = data.train.ids.tolist().index(write(tmp_path / "i0", VALUES))
    expected = np.clip(np.rint((VALUES.astype(float) - 1000) * 255 / 2000), 0, 255)
    np.testing.assert_array_equal(data.train.images[row, 0], expected)
    assert data.train.groups[row] == hashed("Müller 0")
    assert "Müller" not in str(data.train.groups)


def test_percentiles_are_of_each_image(tmp_path):
    folder(tmp_path, png)
    data = datasets.load("folder", f"{tmp_path}?size=8&percentile=0:100")
    for image in data.test.images:
        assert (image.min(), image.max()) == (0, 255)


def test_what_cannot_be_right_is_refused(tmp_path):
    png(tmp_path / "deep", VALUES)
    Image.fromarray(VALUES.astype(np.uint8)).save(tmp_path / "flat.png")
    Image.fromarray(np.full((8, 8), 7, np.uint16)).save(tmp_path / "even.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "deep.png").read_bytes()[:60])
    for name, scale, message in (
        ("flat.png", Scale(window=(0, 9)), "every image must be grey and have 16 bits, this one"),
        ("even.png", Scale(percentile=(1, 99)), "must differ, both are 7"),
        ("torn.png", Scale(window=(0, 9)), "must decode without errors"),
    ):
        with pytest.raises(BadImage, match=message):
            open_deep(tmp_path, name, scale)
    folder(tmp_path / "d" if (tmp_path / "d").mkdir() is None else None, png)
    for query, message in (
        ("window=5", "it must be two numbers, LOW:HIGH"),
        ("window=9:2", "with LOW below HIGH"),
        ("window=0:9&percentile=1:99", "give window or percentile, not both"),
        ("percentile=1:101", "percentile must lie within 0:100"),
    ):
        with pytest.raises(ConfigError, match=message):
            datasets.load("folder", f"{tmp_path}/d?size=8&{query}")


def dicom(path, values, **tags):
    pydicom = pytest.importorskip("pydicom", reason="the extra dicom is not installed")
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    made = pydicom.Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.PatientName, made.PatientID = "Müller^Anna", "4711"
    made.Rows, made.Columns = values.shape
    made.SamplesPerPixel, made.PixelRepresentation = 1, 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 12, 11
    made.PhotometricInterpretation = "MONOCHROME2"
    made.WindowCenter, made.WindowWidth = 2000, 1001
    for name, value in tags.items():
        setattr(made, name, value)
    made.PixelData = values.astype(np.uint16).tobytes()
    made.save_as(path.with_suffix(".dcm"), enforce_file_format=True)
    return f"{path.name}.dcm"


def test_dicom_is_read_by_its_own_window(tmp_path):
    name = dicom(tmp_path / "a", VALUES)
    found = np.asarray(open_deep(tmp_path, name, Scale()))
    # PS3.3 C.11.2.1.2.1: at or below c − 0.5 − (w − 1)/2 black, above c − 0.5 + (w − 1)/2 white.
    assert set(found[VALUES <= 1499.5]) == {0}
    assert set(found[VALUES > 2499.5]) == {255}
    inside = (VALUES > 1499.5) & (VALUES <= 2499.5)
    expected = ((VALUES[inside] - 1999.5) / 1000 + 0.5) * 255
    np.testing.assert_allclose(found[inside], expected, atol=0.51)


def test_monochrome1_is_turned_over_and_rescaled_values_are_windowed(tmp_path):
    plain = dicom(tmp_path / "a", VALUES)
    turned = dicom(tmp_path / "b", VALUES, PhotometricInterpretation="MONOCHROME1")
    moved = dicom(tmp_path / "c", VALUES, RescaleSlope="2", RescaleIntercept="-1000")
    window = Scale(window=(1000.0, 3000.0))
    first, second = (np.asarray(open_deep(tmp_path, n, window)) for n in (plain, turned))
    np.testing.assert_array_equal(second, 255 - first)
    third = np.asarray(open_deep(tmp_path, moved, window))
    np.testing.assert_array_equal(third, to_grey(VALUES * 2.0 - 1000, (1000, 3000)))


def test_dicom_that_cannot_be_right_is_refused(tmp_path):
    for number, (tags, message) in enumerate(
        (
            ({"PhotometricInterpretation": "RGB"}, "must be grey .* it is RGB"),
            ({"NumberOfFrames": 2}, "must hold one frame, it holds 2"),
            ({"WindowCenter": None}, "names no window of its own; add "),
            ({"VOILUTFunction": "SIGMOID"}, "must be LINEAR, it is SIGMOID"),
            ({"WindowWidth": 1}, "must be wider than 1"),
        )
    ):
        name = dicom(tmp_path / f"x{number}", VALUES, **tags)
        with pytest.raises(BadImage, match=message):
            open_deep(tmp_path, name, Scale())
    (tmp_path / "no.dcm").write_bytes(b"not at all" * 50)
    with pytest.raises(BadImage, match="must be what the name says, DICOM"):
        open_deep(tmp_path, "no.dcm", Scale())


def test_a_dataset_of_dicom_holds_no_identifier(tmp_path):
    pytest.importorskip("pydicom")
    data = datasets.load("folder", f"{folder(tmp_path, dicom)}?size=8")
    assert data.train.groups[0].startswith("patient-")
    assert len(set(data.train.groups.tolist())) == 4
    assert data.train.images.max() == 255
