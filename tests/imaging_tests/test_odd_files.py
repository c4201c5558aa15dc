"""Text files and arrays that are slightly off: the file, the line and the rule are named."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from imaging_core.datasets import DataError, load
from imaging_core.datasets.cache import cache_folder
from imaging_core.datasets.folder import read_manifest
from imaging_core.datasets.text import read_csv, read_rows_of

ROWS = [["a.png", "x", "p1"], ["b.png", "y", "p2"], ["c.png", "x", "p3"]]


def manifest(folder: Path, text: str | bytes) -> Path:
    content = text if isinstance(text, bytes) else text.encode()
    (folder / "manifest.csv").write_bytes(content)
    return folder


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "bars")])
def test_other_separators_are_named_with_the_remedy(tmp_path, mark, name):
    lines = [mark.join(row) for row in (["path", "label", "group"], *ROWS)]
    with pytest.raises(DataError) as refusal:
        read_manifest(manifest(tmp_path, "\n".join(lines)))
    assert f"must have commas between its columns, it has {name}; export it as CSV with" in str(
        refusal.value
    )


def test_a_backslash_is_named_with_the_path_to_write(tmp_path):
    with pytest.raises(DataError) as refusal:
        read_manifest(manifest(tmp_path, "path,label,group\nimages\\a.png,x,p1\nb.png,y,p2\n"))
    assert (
        'line 2: path must have / between folders, got "images\\a.png"; write "images/a.png"'
        in str(refusal.value)
    )
    assert "1 of 2 rows" in str(refusal.value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_are_numbered_as_an_editor_numbers_them(tmp_path, end):
    text = end.join(
        ["path,label,group", "", "a.png,x,p1", "", "", "b.png,,p2", 'c.png,"y', 'z",', ""]
    )
    with pytest.raises(DataError) as refusal:
        read_manifest(manifest(tmp_path, text))
    named = re.findall(r"line (\d+): (\w+)", str(refusal.value))
    assert named == [("6", "label"), ("8", "group")]
    assert [line for line, _ in read_rows_of(tmp_path / "manifest.csv")] == [1, 3, 6, 8]


def test_a_row_that_breaks_three_rules_is_one_row(tmp_path):
    rows = "".join(",,,\n" for _ in range(20))
    with pytest.raises(DataError) as refusal:
        read_manifest(manifest(tmp_path, "path,label,group,split\n" + rows))
    assert ": 20 of 20 rows break a rule" in str(refusal.value)
    assert str(refusal.value).count("must not be empty") == 60


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"path,label,group\na.png,x,p1\nb.png,caf\xe9,p2\n", "line 3 is not"),
        ("path,label,group\na.png,x,p1\n".encode("utf-16"), "line 1 is not"),
        (b"", 'must have a column "path", got nothing'),
        (b'path,label,group\n"a.png,x,p1' + b"x" * 200_000, "line"),
    ],
)
def test_what_is_no_csv_in_utf8_is_refused(tmp_path, content, rule):
    with pytest.raises(DataError, match=re.escape(rule)):
        read_manifest(manifest(tmp_path, content))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "manifest.csv").mkdir()
    with pytest.raises(DataError, match=r"must be a file that can be read: Is a directory"):
        read_csv(tmp_path / "manifest.csv", ("path",))


def test_mura_in_latin_1_is_refused_with_its_line(tmp_path):
    row = b"MURA-v1.1/%s/XR_ELBOW/patient00001/study1_n\xe9gative/image1.png\n"
    for word in (b"train", b"valid"):
        (tmp_path / f"{word.decode()}_image_paths.csv").write_bytes(row % word)
    with pytest.raises(DataError, match=r"image_paths.csv must be text in UTF-8, line 1 is not"):
        load("mura", f"{tmp_path}?size=16")


def test_a_voc_list_in_latin_1_is_refused(tmp_path):
    from imaging_core.datasets.voc import LIST_OF_PART, Options, _parts

    folder = tmp_path / "ImageSets" / "Main"
    folder.mkdir(parents=True)
    for name in LIST_OF_PART.values():
        (folder / name).write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match="must be text in UTF-8"):
        _parts(tmp_path, [], [], Options())


# PatchCamelyon --------------------------------------------------------------------------------


def camelyon(folder: Path, *, meta=lambda word, lines: lines, y=None, encoding="utf-8") -> str:
    h5py = pytest.importorskip("h5py", reason="pcam is an extra")
    for seed, (word, count) in enumerate((("train", 8), ("valid", 4), ("test", 4))):
        stem = f"camelyonpatch_level_2_split_{word}"
        pixels = np.random.default_rng(seed).integers(0, 255, (count, 96, 96, 3))
        with h5py.File(folder / f"{stem}_x.h5", "w") as file:
            file["x"] = pixels.astype(np.uint8)
        with h5py.File(folder / f"{stem}_y.h5", "w") as file:
            if y is not None and word == "valid":
                y(file)
            else:
                file["y"] = (np.arange(count) % 2).astype(np.uint8).reshape(-1, 1, 1, 1)
        lines = ["i,wsi", *(f"{i},{word}_{i // 2}" for i in range(count))]
        text = "\n".join(meta(word, lines)) + "\n"
        (folder / f"{stem}_meta.csv").write_bytes(text.encode(encoding))
    return f"{folder}?crop=32"


def test_the_helper_makes_files_that_are_in_order(tmp_path):
    assert len(load("pcam", camelyon(tmp_path)).train) == 8


@pytest.mark.parametrize(
    ("meta", "rule"),
    [
        (lambda lines: [*lines[:-1], lines[-1].partition(",")[0]], "line 5: wsi"),
        (lambda lines: [*lines[:-1], lines[-1].partition(",")[0] + ", "], "line 5: wsi"),
        (lambda lines: [lines[0], "", lines[1].partition(",")[0] + ",", *lines[2:]], "line 3: wsi"),
        (lambda lines: ["i,slide", *lines[1:]], 'must have a column "wsi"'),
        (lambda lines: [line.replace(",", ";") for line in lines], "it has semicolons"),
    ],
)
def test_a_slide_that_is_missing_is_refused_with_its_line(tmp_path, meta, rule):
    path = camelyon(tmp_path, meta=lambda word, lines: meta(lines) if word == "test" else lines)
    with pytest.raises(DataError, match=re.escape(rule)) as refusal:
        load("pcam", path)
    assert "split_test_meta.csv" in str(refusal.value)


def test_a_meta_file_in_latin_1_is_refused(tmp_path):
    path = camelyon(
        tmp_path, meta=lambda word, lines: [*lines[:-1], lines[-1] + "é"], encoding="latin-1"
    )
    with pytest.raises(DataError, match="must be text in UTF-8, line"):
        load("pcam", path)


@pytest.mark.parametrize(
    ("y", "rule"),
    [
        (lambda file: file.create_group("y"), "y is no array"),
        (lambda file: file.create_dataset("y", data=np.uint8(1)), "y is no array"),
        (lambda file: file.create_dataset("y", data=np.ones(4)), "y of .* must be integers"),
        (lambda file: file.create_dataset("y", data=[b"a"] * 4), "y of .* must be integers"),
        (lambda file: file.create_dataset("y", data=[0, 1, 2, 3]), "labels .* outside"),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path, y, rule):
    with pytest.raises(DataError, match=rule):
        load("pcam", camelyon(tmp_path, y=y))


# MedMNIST -------------------------------------------------------------------------------------


def npz(path: Path, shapes: dict[str, tuple[int, ...]]) -> str:
    content = {}
    for seed, (key, shape) in enumerate(shapes.items()):
        content[f"{key}_images"] = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
        content[f"{key}_labels"] = (np.arange(shape[0]) % 2)[:, None]
    np.savez(path, **content)
    return str(path)


@pytest.mark.parametrize("test", [(6, 32, 32), (6, 28, 28, 3)])
def test_parts_of_other_sizes_or_channels_are_refused(tmp_path, test):
    shapes = {"train": (20, 28, 28), "val": (6, 28, 28), "test": test}
    with pytest.raises(DataError, match=r"images of all parts must have one size and one kind"):
        load("medmnist", npz(tmp_path / "some.npz", shapes))


@pytest.mark.parametrize("kind", [(), (3,)])
def test_medmnist_images_are_stretched_where_a_size_is_named(tmp_path, kind):
    shapes = {key: (n, 28, 28, *kind) for key, n in (("train", 20), ("val", 6), ("test", 6))}
    path = npz(tmp_path / "some.npz", shapes)
    as_it_is = load("medmnist", path)
    same = load("medmnist", f"{path}?size=28")
    larger = load("medmnist", f"{path}?size=32x64")
    assert as_it_is.size == (28, 28)
    assert same.fingerprint == as_it_is.fingerprint
    assert larger.size == (32, 64)
    assert larger.channels == as_it_is.channels
    # Stretched, not padded: each image keeps its brightness.
    before, after = (d.train.images.mean(axis=(1, 2, 3)) for d in (as_it_is, larger))
    assert np.abs(before - after).max() < 4


# The cache of decoded images ------------------------------------------------------------------


@pytest.mark.parametrize("value", ["off", "OFF", "Off ", "", "  "])
def test_no_cache_where_none_is_wanted(value, monkeypatch):
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", value)
    assert cache_folder() is None


def test_the_cache_is_in_one_place_wherever_the_process_stands(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    for value, place in (("/x/y", "/x/y"), ("~/y", "/home/me/y"), ("y/z", "/home/me/y/z")):
        monkeypatch.setenv("MEDRL_IMAGE_CACHE", value)
        assert str(cache_folder()) == place
    monkeypatch.delenv("MEDRL_IMAGE_CACHE")
    assert str(cache_folder()) == "/home/me/.cache/medrl-sweeps/images"
    assert os.listdir(tmp_path) == []


def test_without_a_home_there_is_no_cache(monkeypatch):
    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", unknown)
    monkeypatch.delenv("MEDRL_IMAGE_CACHE", raising=False)
    assert cache_folder() is None
