import dataclasses
import shutil

import numpy as np
import pytest
from PIL import Image

from imaging_core.datasets import DataError, expand, load, mura
from imaging_core.fields import ConfigError

# Images of the public validation set, body part by body part: 3,197 in all.
VALID = {
    "XR_ELBOW": 465,
    "XR_FINGER": 461,
    "XR_FOREARM": 301,
    "XR_HAND": 460,
    "XR_HUMERUS": 288,
    "XR_SHOULDER": 563,
    "XR_WRIST": 659,
}
TRAIN = 40  # images of each body part


def build(root, valid, train=TRAIN, header=False):
    """A tree in the exact public layout; patients occur in several body parts."""
    rng = np.random.default_rng(0)
    rows = {"train": [], "valid": []}
    studies = {"train": {}, "valid": {}}
    for split, first in (("train", 1), ("valid", 11_185)):
        for part in VALID:
            count = train if split == "train" else valid[part]
            for i in range(count):
                patient = f"patient{first + i // 4:05d}"  # the same patients in every part
                label = "positive" if (i // 2) % 2 else "negative"
                study = f"MURA-v1.1/{split}/{part}/{patient}/study{1 + i % 4 // 2}_{label}/"
                name = f"{study}image{1 + i % 2}.png"
                file = root.parent / name
                file.parent.mkdir(parents=True, exist_ok=True)
                shape = (9, 8) if i % 3 else (9, 8, 3)
                Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(file)
                rows[split].append(name)
                studies[split][study] = int(label == "positive")
        (file.parent / "._image1.png").write_bytes(b"\x00\x05\x16\x07 Mac OS X resource fork")
    for split in rows:
        images = ["Img_Path"] * header + rows[split]
        labels = ["Img_Path,Label"] * header + [f"{s},{y}" for s, y in studies[split].items()]
        (root / f"{split}_image_paths.csv").write_text("\n".join(images) + "\n")
        (root / f"{split}_labeled_studies.csv").write_text("\n".join(labels) + "\n")
    return rows


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    root = tmp_path_factory.mktemp("mura") / "MURA-v1.1"
    return root, build(root, VALID)


@pytest.fixture
def small(tmp_path):
    root = tmp_path / "MURA-v1.1"
    return root, build(root, dict.fromkeys(VALID, 8), train=24)


@pytest.mark.long
def test_all_3197_validation_images_are_read_the_first_row_too(public):
    root, rows = public
    data = load("mura", f"{root}?size=8")
    assert len(data.test) == 3_197
    assert {f"MURA-v1.1/{x}" for x in data.test.ids} == set(rows["valid"])
    assert len(data.train) + len(data.validation) == 7 * TRAIN
    assert data.train.images.shape[1:] == (1, 8, 8)
    assert data.classes == ("normal", "abnormal")
    assert all(("positive" in x) == y for x, y in zip(data.test.ids, data.test.labels, strict=True))


@pytest.mark.long
def test_patients_are_grouped_across_body_parts(public):
    root, _ = public
    whole = load("mura", f"{root}?size=8")
    assert not set(whole.train.groups) & set(whole.validation.groups)
    in_validation = set(whole.validation.groups)
    assert in_validation
    for part in ("XR_ELBOW", "XR_WRIST"):
        one = load("mura", f"{root}?size=8&part={part}")
        assert set(one.validation.groups) == in_validation
        assert all(part in x for x in one.train.ids)
        assert len(one.test) == VALID[part]


def test_the_body_part_may_end_the_path(small):
    root, _ = small
    by_option = load("mura", f"{root}?size=8&part=elbow")
    by_path = load("mura", f"{root}/XR_ELBOW?size=8")
    assert by_path.fingerprint == by_option.fingerprint
    assert by_path.name == "mura-XR_ELBOW"
    with pytest.raises(ConfigError, match='part must be named once, got "XR_ELBOW" and "wrist"'):
        load("mura", f"{root}/XR_ELBOW?part=wrist")
    with pytest.raises(ConfigError, match='got "XR_ELBWO"; did you mean "XR_ELBOW"'):
        load("mura", f"{root}?part=XR_ELBWO")


def test_the_paper_protocol_selects_and_reports_on_valid(small):
    root, rows = small
    paper = load("mura", f"{root}?size=8", "paper")
    assert paper.protocol == "paper"
    assert paper.validation is paper.test
    assert len(paper.train) == len(rows["train"])
    held_out = load("mura", f"{root}?size=8")
    assert held_out.fingerprint != paper.fingerprint
    assert len(held_out.train) + len(held_out.validation) == len(rows["train"])


def test_a_header_is_recognised(tmp_path, small):
    with_header = tmp_path / "copy" / "MURA-v1.1"
    build(with_header, dict.fromkeys(VALID, 8), train=24, header=True)
    before, after = (load("mura", f"{root}?size=8") for root in (small[0], with_header))
    assert after.fingerprint == before.fingerprint


def test_the_folder_may_have_another_name(small, tmp_path):
    root, _ = small
    before = load("mura", f"{root}?size=8").fingerprint
    renamed = shutil.move(root, tmp_path / "radiographs")
    assert load("mura", f"{renamed}?size=8").fingerprint == before


def test_every_bad_image_is_listed(small):
    root, rows = small
    bad = [root.parent / rows["valid"][i] for i in (0, 5)]
    bad[0].write_bytes(b"")
    bad[1].write_bytes((root / "valid_image_paths.csv").read_bytes())
    with pytest.raises(DataError) as error:
        load("mura", f"{root}?size=8")
    assert "2 of 224 images break a rule" in str(error.value)
    assert "image1.png: the file must not be empty" in str(error.value)
    assert "image2.png: the content must be a PNG, JPEG, TIFF or BMP image" in str(error.value)


def test_every_bad_row_is_listed(small):
    root, rows = small
    names = list(rows["valid"])
    names[1] = names[1].replace("image", "._image")
    names[2] = names[2].replace("valid", "train")
    names[3] = names[0]
    (root / "valid_image_paths.csv").write_text("\n".join(names))
    with pytest.raises(DataError) as error:
        load("mura", f"{root}?size=8")
    lines = str(error.value).splitlines()
    assert "3 of 56 rows break a rule" in lines[0]
    assert [line[:8] for line in lines[1:]] == ["  line 2", "  line 3", "  line 4"]


def test_study_labels_must_agree_with_the_folders(small):
    root, _ = small
    file = root / "train_labeled_studies.csv"
    lines = file.read_text().splitlines()
    lines[2] = lines[2][:-1] + str(1 - int(lines[2][-1]))
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"line 3: the label of train/XR_ELBOW/.* as its name says"):
        load("mura", f"{root}?size=8")


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(DataError, match=r"must hold train_image_paths.csv, as the MURA v1.1 arch"):
        load("mura", str(tmp_path))


@pytest.mark.parametrize(
    "path",
    [
        "MURA-v1.1/train/XR_SHOULDER/patient00001/study1_positive/image1.png",
        "MURA-v1.1/valid/XR_WRIST/patient11185/study1_positive/image11.png",
    ],
)
def test_published_paths_match(path):
    assert mura.IMAGE.fullmatch(path)


def test_images_know_their_study_and_the_fingerprint_does_not_change(small):
    data = load("mura", f"{small[0]}?size=8")
    studies = data.test.studies
    assert len(studies) == len(data.test)
    assert len(set(studies)) == len(data.test) // 2
    assert all(i.startswith(f"{s}/") for i, s in zip(data.test.ids, studies, strict=True))
    bare = dataclasses.replace(data, test=dataclasses.replace(data.test, studies=None))
    assert bare.fingerprint == data.fingerprint


def test_each_body_part_by_one_name():
    assert expand("mura:/d/MURA-v1.1?part=each&size=64") == tuple(
        f"mura:/d/MURA-v1.1?part={part}&size=64" for part in VALID
    )
    for text in ("mura:/d/MURA-v1.1?part=XR_HAND", "mura:/d", "ihc-colon", "folder:/d?size=64"):
        assert expand(text) == (text,)


def test_table_1_is_one_command(small, capsys):
    from studies import here

    import sweeps.apga_methods as study

    answer = here(
        study, "--data", f"mura:{small[0]}?part=each&size=32&duplicates=drop", "--plan",
        "--seeds", 2, "--results", small[0].parent / "results",
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    assert "70 arms × 2 seeds = 140 cells" in answer.stdout
