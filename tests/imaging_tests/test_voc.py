import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from imaging_core.datasets import DataError, load
from imaging_core.datasets.voc_annotations import Box, read_annotations, square_around
from imaging_core.fields import ConfigError

BCCD = Path(os.environ.get("MEDRL_BCCD", Path(__file__).parents[2].parent / "shared/data/bccd"))
needs_bccd = pytest.mark.skipif(
    not (BCCD / "Annotations").is_dir(), reason="BCCD is not here; set MEDRL_BCCD to its folder"
)


def annotation(stem, boxes, width=40, height=30):
    objects = "".join(
        f"<object><name>{name}</name><pose>Unspecified</pose><bndbox><xmin>{b[0]}</xmin>"
        f"<ymin>{b[1]}</ymin><xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for name, *b in boxes
    )
    return (
        f"<annotation><folder>JPEGImages</folder><filename>{stem}.png</filename><size><width>"
        f"{width}</width><height>{height}</height><depth>3</depth></size>{objects}</annotation>"
    )


@pytest.fixture
def tree(tmp_path, write_image):
    (tmp_path / "Annotations").mkdir()
    for i in range(60):
        stem = f"Blood_{i:03d}"
        write_image(tmp_path / f"JPEGImages/{stem}.png", i, size=(40, 30), colour="RGB")
        boxes = [("RBC", 1, 1, 12, 12), ("WBC", 11, 11, 30, 30)]
        if i % 2:
            boxes.append(("Platelets", 21, 11, 30, 20))
        if i == 0:
            boxes.append(("RBC", 5, 5, 6, 30))  # degenerate
        (tmp_path / f"Annotations/{stem}.xml").write_text(annotation(stem, boxes))
    return tmp_path


def test_is_the_object_in_the_image(tree):
    data = load("voc", f"{tree}?object=Platelets&size=30x40")
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [42, 6, 12]
    assert data.classes == ("no Platelets", "Platelets")
    for part in parts:
        assert [int(x[-3:]) % 2 for x in part.ids] == part.labels.tolist()
        assert part.masks.sum(axis=(1, 2)).tolist() == (100 * part.labels).tolist()
    row = data.train.labels.argmax()
    inside = np.argwhere(data.train.masks[row])
    assert inside.min(axis=0).tolist() == [10, 20]
    assert inside.max(axis=0).tolist() == [19, 29]


def test_masks_shrink_with_the_image(tree):
    data = load("voc", f"{tree}?object=Platelets&size=15x20")
    row = data.train.labels.argmax()
    assert np.argwhere(data.train.masks[row]).min(axis=0).tolist() == [5, 10]
    assert data.train.masks[row].sum() == 25


def test_which_object_is_in_the_box(tree, write_image):
    data = load("voc", f"{tree}?task=crops&size=12&resize=nearest")
    assert data.classes == ("Platelets", "RBC", "WBC")
    parts = (data.train, data.validation, data.test)
    assert sum(len(part) for part in parts) == 60 + 60 + 30
    pixels = write_image(tree / "again.png", 1, size=(40, 30), colour="RGB")
    for part in parts:
        found = np.flatnonzero(part.ids == "Blood_001#0")
        if len(found):  # the first box: rows and columns 0 to 11, no resizing
            assert np.array_equal(np.moveaxis(part.images[found[0]], 0, 2), pixels[:12, :12])
            assert part.labels[found[0]] == 1
            break
    else:
        pytest.fail("Blood_001#0 is in no part")


def test_lists_decide_where_they_are_there(tree):
    lists = tree / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    stems = [f"Blood_{i:03d}" for i in range(60)]
    for name, chosen in (("train", stems[:30]), ("val", stems[30:40]), ("test", stems[40:55])):
        (lists / f"{name}.txt").write_text("\n".join(chosen))
    data = load("voc", f"{tree}?object=Platelets&size=30x40")
    assert [len(p) for p in (data.train, data.validation, data.test)] == [30, 10, 15]
    (lists / "test.txt").write_text("Blood_001\nBlood_999")
    with pytest.raises(DataError) as error:
        load("voc", f"{tree}?object=Platelets&size=30x40&colour=rgb")
    assert "test.txt: Blood_001 must be in one list, is in train" in str(error.value)
    assert "test.txt: Blood_999 must have an annotation" in str(error.value)


def test_an_unknown_object_gets_the_nearest_spelling(tree):
    with pytest.raises(ConfigError, match='got "Platelet"; did you mean "Platelets"'):
        load("voc", f"{tree}?object=Platelet")
    with pytest.raises(ConfigError, match="object must be one of Platelets, RBC, WBC"):
        load("voc", str(tree))
    with pytest.raises(ConfigError, match="object belongs to task=image"):
        load("voc", f"{tree}?task=crops&object=RBC")


def test_every_bad_annotation_and_image_is_listed(tree):
    names = [tree / f"Annotations/Blood_{i:03d}.xml" for i in range(4)]
    names[0].write_text("<annotation>")
    names[1].write_text("<annotation></annotation>")
    (tree / "JPEGImages/Blood_002.png").unlink()
    with pytest.raises(DataError) as error:
        load("voc", f"{tree}?object=Platelets")
    assert "3 of 60 annotations break a rule" in str(error.value)
    for i in range(3):
        assert f"Blood_00{i}.xml: " in str(error.value)
    for i in range(3):
        (tree / f"Annotations/Blood_00{i}.xml").unlink()
        (tree / f"JPEGImages/Blood_00{i}.png").unlink(missing_ok=True)
    names[3].write_text(annotation("Blood_003", [("RBC", 1, 1, 9, 9)], width=41))
    with pytest.raises(DataError, match=r"its size must be the annotation's .41×30., it is 40×30"):
        load("voc", f"{tree}?object=Platelets")


@pytest.mark.parametrize(
    ("box", "wanted"),
    [
        ((10, 10, 20, 14), (10, 7, 20, 17)),
        ((0, 0, 4, 10), (0, 0, 10, 10)),
        ((36, 25, 40, 30), (35, 25, 40, 30)),
        ((0, 0, 40, 4), (5, 0, 35, 30)),
    ],
)
def test_squares_stay_inside_the_image(box, wanted):
    left, top, right, bottom = box
    found = square_around(Box(name="x", left=left, top=top, right=right, bottom=bottom), 40, 30)
    assert found == pytest.approx(wanted)


@pytest.mark.long
@needs_bccd
def test_bccd_holds_what_its_authors_count():
    data = load("voc", f"{BCCD}?object=Platelets&size=16&degenerate=drop")
    parts = (data.train, data.validation, data.test)
    assert [len(part) for part in parts] == [205, 87, 72]
    assert sum(int(part.labels.sum()) for part in parts) == 201
    boxes = Counter(
        box.name for image in read_annotations(BCCD, degenerate="drop") for box in image.boxes
    )
    assert boxes == {"Platelets": 361, "RBC": 4153, "WBC": 372}
