import numpy as np
import pytest

from imaging_core.datasets import DataError, load
from imaging_core.fields import ConfigError

QUERY = "?size=10x12"


@pytest.fixture
def tree(tmp_path, write_image):
    """240 images of 80 patients in three classes, with a manifest."""
    rows = []
    for i in range(240):
        patient = i // 3
        label = ("normal", "benign", "cancer")[patient % 3]
        name = f"images/{label}/{i:04d}.png"
        write_image(tmp_path / name, i, colour="RGB" if i % 2 else "L")
        rows.append([name, label, f"patient-{patient}"])
    write_manifest(tmp_path, rows)
    return tmp_path, rows


def write_manifest(root, rows, header=("path", "label", "group")):
    lines = [",".join(header), *(",".join(row) for row in rows)]
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")


def test_patients_are_dealt_out(tree):
    root, rows = tree
    data = load("folder", f"{root}{QUERY}")
    assert data.classes == ("benign", "cancer", "normal")
    parts = (data.train, data.validation, data.test)
    assert sum(len(part) for part in parts) == 240
    assert [len(part) for part in parts] == pytest.approx([168, 24, 48], abs=12)
    assert data.train.images.shape[1:] == (1, 10, 12)
    truth = {row[0]: (row[1], row[2]) for row in rows}
    for part in parts:
        for identity, label, group in zip(part.ids, part.labels, part.groups, strict=True):
            assert truth[identity] == (data.classes[label], group)


def test_four_grades_of_tissue_are_split_seven_to_one_to_two_by_patient(tmp_path, write_image):
    """The cervical set of Ye et al. 2020: four classes, 256 × 128 pixels."""
    grades = ("normal", "CIN1", "CIN2", "CIN3")
    rows = []
    for i in range(200):
        name = f"{grades[i % 4]}/{i:03d}.png"
        write_image(tmp_path / name, i, colour="RGB")
        rows.append([name, grades[i % 4], f"patient-{i // 2}"])
    write_manifest(tmp_path, rows)
    data = load("folder", f"{tmp_path}?size=256x128&colour=rgb&classes={','.join(grades)}")
    assert data.classes == grades
    assert data.train.images.shape[1:] == (3, 256, 128)
    patients = [set(part.groups) for part in (data.train, data.validation, data.test)]
    assert [len(p) for p in patients] == pytest.approx([70, 10, 20], abs=4)
    assert len(set.union(*patients)) == sum(map(len, patients)) == 100
    for part in (data.train, data.validation, data.test):
        assert set(part.labels) == {0, 1, 2, 3}


def test_the_order_of_the_manifest_does_not_matter(tree):
    root, rows = tree
    before = load("folder", f"{root}{QUERY}").fingerprint
    write_manifest(root, rows[::-1])
    assert load("folder", f"{root}{QUERY}&split_seed=0").fingerprint == before
    assert load("folder", f"{root}{QUERY}&split_seed=1").fingerprint != before


def test_the_split_column_decides(tree):
    root, rows = tree
    words = ["Train"] * 150 + ["val"] * 30 + ["test"] * 60
    write_manifest(
        root,
        [[*row, word] for row, word in zip(rows, words, strict=True)],
        ("path", "label", "group", "split"),
    )
    data = load("folder", f"{root}{QUERY}&colour=rgb&classes=normal,benign,cancer")
    assert [len(p) for p in (data.train, data.validation, data.test)] == [150, 30, 60]
    assert data.classes == ("normal", "benign", "cancer")
    assert data.channels == 3


def test_a_patient_in_two_parts_is_refused(tree):
    root, rows = tree
    words = ["train"] * 151 + ["val"] * 29 + ["test"] * 60
    write_manifest(
        root,
        [[*row, word] for row, word in zip(rows, words, strict=True)],
        ("path", "label", "group", "split"),
    )
    with pytest.raises(DataError, match='group "patient-50" is in train and validation'):
        load("folder", f"{root}{QUERY}")


def test_every_bad_row_is_listed(tree):
    root, rows = tree
    bad = [[*row, "train"] for row in rows]
    bad[0][1], bad[3][2], bad[5][3], bad[7][0] = "", " ", "tset", bad[6][0]
    write_manifest(root, bad, ("path", "label", "group", "split"))
    with pytest.raises(DataError) as error:
        load("folder", f"{root}{QUERY}")
    lines = str(error.value).splitlines()
    assert "4 of 240 rows break a rule" in lines[0]
    assert lines[1:] == [
        "  line 2: label must not be empty",
        "  line 5: group must not be empty",
        '  line 7: split must be train, validation or test, got "tset"; did you mean "test"?',
        f'  line 9: path "{bad[6][0]}" must come once',
    ]


def test_bad_images_are_all_listed(tree):
    root, rows = tree
    (root / rows[4][0]).write_bytes(b"")
    (root / rows[9][0]).unlink()
    with pytest.raises(DataError) as error:
        load("folder", f"{root}{QUERY}")
    assert "2 of 240 images break a rule" in str(error.value)
    assert f"{rows[4][0]}: the file must not be empty" in str(error.value)
    assert f"{rows[9][0]}: the file must exist" in str(error.value)


def test_a_manifest_that_is_none(tmp_path):
    with pytest.raises(DataError, match=r"must hold a manifest.csv \(columns path, label, group"):
        load("folder", f"{tmp_path}{QUERY}")
    write_manifest(tmp_path, [["x.png", "a", "p"]], ("path", "lable", "group"))
    with pytest.raises(DataError, match='must have a column "label"; did you mean "lable"'):
        load("folder", f"{tmp_path}{QUERY}")
    write_manifest(tmp_path, [])
    with pytest.raises(DataError, match="at least one row under its header"):
        load("folder", f"{tmp_path}{QUERY}")
    (tmp_path / "manifest.csv").write_bytes(b"path,label,group\nx.png,\xff\xfe,p\n")
    with pytest.raises(DataError, match="must be text in UTF-8, line 2 is not"):
        load("folder", f"{tmp_path}{QUERY}")


def test_classes_must_be_the_labels(tree):
    root, _ = tree
    with pytest.raises(ConfigError, match=r"classes must be the labels .*benign, cancer, normal"):
        load("folder", f"{root}{QUERY}&classes=normal,cancer")
    with pytest.raises(ConfigError, match='folder knows protocol "held-out" only, got "paper"'):
        load("folder", f"{root}{QUERY}", "paper")


def test_identical_images_are_refused_or_dropped(tree):
    root, _ = tree
    data = load("folder", f"{root}{QUERY}")
    copy, original = data.train.ids[0], data.test.ids[0]
    (root / copy).write_bytes((root / original).read_bytes())
    query = f"{root}{QUERY}&resize=bilinear"
    with pytest.raises(DataError, match=f"image {original} of test is also in train"):
        load("folder", query)
    kept = load("folder", f"{query}&duplicates=drop")
    assert set(data.train.ids) - set(kept.train.ids) == {copy}
    assert np.array_equal(kept.test.ids, data.test.ids)
