"""Data that cannot be right is refused by name, where it used to load without a word."""

import struct
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image

from imaging_core.datasets import DataError, load
from imaging_core.datasets.folder import read_manifest
from imaging_core.datasets.images import BadImage, open_image
from imaging_core.datasets.text import one_form

LABELS = ("normal", "fracture")


def manifest(folder, rows, head="path,label,group"):
    (folder / "manifest.csv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return folder


NFD = unicodedata.normalize("NFD", "José")


@pytest.mark.parametrize(
    ("rows", "head", "rule"),
    [
        (["a.png,x,case 1, visit 2"], "path,label,group", "line 2: a row must have the header's 3"),
        (["a.png,x"], "path,label,group", "line 2: group must be there; a row must have"),
        (["a.png,x,p"], "path,label,group,note", "line 2: note must be there"),
        (["a.png,x,p,y"], "path,label,group,Label ", "must name each column once"),
        (["a.png,x,p", "./a.png,x,p"], "path,label,group", 'line 3: path "./a.png" must come once'),
        (["a.png,x,José", f"b.png,x,{NFD}"], "path,label,group", "line 3: group"),
        (["a.png,x,p 1", "b.png,x,P  1"], "path,label,group", 'spelled as in line 2 ("p 1")'),
        (["a.png,x,p", "b.png,X,q"], "path,label,group", 'label "X" must be spelled as in line 2'),
        (["a.png,x,p", "b.png,x\u200b,q"], "path,label,group", "line 3: label"),
        (["a.png,x,12.0", "b.png,x,12"], "path,label,group", "both are the number 12, as a"),
        (["a.png,x,12", "b.png,x,012"], "path,label,group", "line 3: group"),
        (["a.png,x,12", "b.png,x,+12."], "path,label,group", "before numbers that are names (P12)"),
        (["a.png,x,120000", "b.png,x,1.2E+05"], "path,label,group", "both are the number 120000"),
        (["a.png,x,１２", "b.png,x,12"], "path,label,group", "more than case, spaces or Unicode"),
        (["a.png,0,p", "b.png,0.0,q"], "path,label,group", 'label "0.0" must be spelled as in'),
        (["a.png,x,nan"], "path,label,group", 'group must be known, "nan" stands for a missing'),
        (["a.png,N/A,p"], "path,label,group", "line 2: label must be known"),
    ],
)
def test_rows_that_cannot_be_right_are_named(tmp_path, rows, head, rule):
    with pytest.raises(DataError) as refusal:
        read_manifest(manifest(tmp_path, rows, head))
    assert rule in str(refusal.value)


def test_names_that_are_no_numbers_or_other_numbers_are_apart(tmp_path):
    names = ["1e3", "1000", "00e5", "0e1", "12", "12a", "1.2", "1.20.3", "-12", "9" * 40, "9" * 39]
    rows = [f"{i}.png,x,{name}" for i, name in enumerate(names)]
    assert [row.group for row in read_manifest(manifest(tmp_path, rows))] == names


def test_none_is_a_fair_label(tmp_path):
    assert [r.label for r in read_manifest(manifest(tmp_path, ["a.png,none,p", "b.png,x,q"]))] == [
        "none",
        "x",
    ]
    assert one_form("Ｐ\u00a01 ") == "p 1"


def test_the_same_pixels_carry_one_label(tmp_path, write_image):
    for i in range(48):
        write_image(tmp_path / f"i{i:02d}.png", i // 2 if i < 4 else i)
    write_image(tmp_path / "extra.png", 99)
    rows = [f"i{i:02d}.png,{LABELS[i % 2]},p{i // 2}" for i in range(48)]
    path = f"{manifest(tmp_path, rows)}?size=10x12"
    with pytest.raises(DataError) as refusal:
        load("folder", path)
    assert "image i01.png of" in str(refusal.value)
    assert "must have one label, the same pixels have another as i00.png" in str(refusal.value)
    kept = load("folder", f"{path}&duplicates=drop")
    assert sum(len(p) for p in (kept.train, kept.validation, kept.test)) == 44
    assert kept.notes == (
        "not used: 1 images in the folder that manifest.csv does not name (extra.png)",
    )


def deep_png(path, kind):
    """A 16-bit PNG of a colour type (0 grey, 2 RGB, 4 grey and alpha, 6 RGBA), by the standard."""

    def chunk(name, body):
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    rows = b"".join(b"\0" + bytes(2 * 4 * {0: 1, 2: 3, 4: 2, 6: 4}[kind]) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("kind", [0, 2, 4, 6])
def test_a_png_of_16_bits_is_refused_whatever_its_colours(tmp_path, kind):
    deep_png(tmp_path / "a.png", kind)
    with pytest.raises(BadImage, match="8 bits per channel"):
        open_image(tmp_path, "a.png")


def deep_tiff(path):
    """A 16-bit RGB TIFF of 2 × 2 pixels, uncompressed, by TIFF 6.0."""
    tags = [
        *((256, 3, 1, 2), (257, 3, 1, 2), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2)),
        *((273, 4, 1, 14), (277, 3, 1, 3), (278, 3, 1, 2), (279, 4, 1, 24)),
    ]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 38) + struct.pack("<HHH", 16, 16, 16) + bytes(24)
        + struct.pack("<H", len(tags)) + entries + bytes(4)
    )  # fmt: skip


def test_a_colour_tiff_of_16_bits_is_refused(tmp_path):
    deep_tiff(tmp_path / "a.tif")
    with pytest.raises(BadImage, match=r"8 bits per channel, it has 16"):
        open_image(tmp_path, "a.tif")


@pytest.mark.parametrize("turn", range(1, 9))
def test_photos_of_a_folder_are_turned_upright(tmp_path, write_image, turn):
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    rows = []
    for i in range(20):
        upright = Image.fromarray(np.random.default_rng(i).integers(0, 99, (10, 12)).astype("u1"))
        upright.paste(250, (0, 0, 3, 3))
        stored, tag = (upright.transpose(back[turn]) if turn > 1 else upright), Image.Exif()
        tag[0x0112] = turn
        stored.save(tmp_path / f"i{i:02d}.png", exif=tag)
        rows.append(f"i{i:02d}.png,{LABELS[i % 2]},p{i}")
    data = load("folder", f"{manifest(tmp_path, rows)}?size=10x12")
    assert (data.train.images[:, 0, :3, :3] == 250).all()


def xml(boxes, size=(40, 30)):
    objects = "".join(
        f"<object><name>{n}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for n, a, b, c, d in boxes
    )
    width, height = size
    return (
        f"<annotation><size><width>{width}</width><height>{height}</height></size>{objects}"
        "</annotation>"
    )


@pytest.fixture
def voc(tmp_path, write_image):
    (tmp_path / "Annotations").mkdir()
    for i in range(20):
        write_image(tmp_path / f"JPEGImages/im {i:02d}.png", i, size=(40, 30), colour="RGB")
        boxes = [("RBC", 3, 3, 15, 15)] + [("Cell", 20, 20, 30, 28)] * (i % 2)
        (tmp_path / f"Annotations/im {i:02d}.xml").write_text(xml(boxes))
    return tmp_path


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (xml([], (0, 0)), "its size must be at least 1 × 1, got 0 × 0"),
        (xml([("Cell", "nan", 2, 3, 4)]), 'xmin and xmax of "Cell" must be finite'),
        (xml([("Cell", 1, 2, 3, "1e400")]), 'ymin and ymax of "Cell" must be finite'),
        (xml([("Cell", 30, 28, 20, 20)]), '0 ≤ xmin < xmax ≤ 40 must hold for each box, "Cell"'),
        (xml([("RBC", 1, 9, 20, 31)]), '0 ≤ ymin < ymax ≤ 30 must hold for each box, "RBC"'),
        (xml([("RBC", 5, 9, 5, 30)]), "xmin < xmax must hold for each box"),
        (xml([("RBC", -1, 9, 20, 30)]), "has -1 and 20"),
        (xml([("", 1, 2, 3, 4)]), "each object must have a name, one has none"),
        (xml([("cell", 1, 2, 3, 4)]), 'object "cell" must be spelled as in im 01.xml ("Cell")'),
        ('<?xml version="1.0" encoding="nobodys"?><a/>', "it must be a Pascal VOC annotation"),
    ],
)
def test_annotations_that_cannot_be_right_are_named(voc, text, rule):
    (voc / "Annotations/im 03.xml").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as refusal:
        load("voc", f"{voc}?object=Cell&size=16")
    assert "im 03.xml: " in str(refusal.value)
    assert rule in str(refusal.value)


def test_upper_case_suffixes_lists_with_a_mark_and_names_with_spaces_are_read(voc):
    for i in range(0, 20, 4):
        (voc / f"Annotations/im {i:02d}.xml").rename(voc / f"Annotations/im {i:02d}.XML")
    lists = voc / "ImageSets/Main"
    lists.mkdir(parents=True)
    names = [f"im {i:02d}" for i in range(20)]
    for part, own in {"train": names[:11], "val": names[12:16], "test": names[16:]}.items():
        (lists / f"{part}.txt").write_text("\n".join(own) + "\n", encoding="utf-8-sig")
    data = load("voc", f"{voc}?object=Cell&size=16")
    assert [len(p) for p in (data.train, data.validation, data.test)] == [11, 4, 4]
    assert data.notes == ("not used: images in none of the lists of ImageSets/Main: 1 (im 11)",)
    (lists / "test.txt").unlink()
    with pytest.raises(DataError, match=r"test.txt is not there; add it, or move the others"):
        load("voc", f"{voc}?object=Cell&size=17")


def test_an_image_without_an_annotation_is_refused_or_skipped_by_name(voc):
    (voc / "Annotations/im 04.xml").unlink()
    with pytest.raises(DataError, match=r"im 04.png: it must have an annotation"):
        load("voc", f"{voc}?object=Cell&size=16")
    data = load("voc", f"{voc}?object=Cell&size=16&unannotated=skip")
    assert data.notes == ("not used: images without an annotation: 1 (im 04.png)",)


def test_an_annotation_means_one_image(voc, write_image):
    write_image(voc / "JPEGImages/im 02.jpg", 2, size=(40, 30), colour="RGB")
    with pytest.raises(DataError, match=r"im 02.png: an annotation must mean one image, im 02.jpg"):
        load("voc", f"{voc}?object=Cell&size=16")


def test_a_turned_picture_with_boxes_is_refused(voc):
    tag = Image.Exif()
    tag[0x0112] = 3
    with Image.open(voc / "JPEGImages/im 05.png") as image:
        image.load()
    image.save(voc / "JPEGImages/im 05.png", exif=tag)
    with pytest.raises(DataError, match=r"im 05.png: its EXIF orientation must be 1 where there"):
        load("voc", f"{voc}?object=Cell&size=16")
