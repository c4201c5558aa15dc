import numpy as np
import pytest

from imaging_core.datasets import DataError, load
from imaging_core.datasets.pcam import stratified_rows

h5py = pytest.importorskip("h5py", reason="pcam is an extra")
COUNTS = {"train": 200, "valid": 40, "test": 40}


def build(root, seed=0):
    """The public files: x (N, 96, 96, 3), y (N, 1, 1, 1), and the meta CSV with its odd index."""
    rng = np.random.default_rng(seed)
    pixels = {}
    for word, count in COUNTS.items():
        stem = root / f"camelyonpatch_level_2_split_{word}"
        x = rng.integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
        y = (rng.permutation(count) % 2).astype(np.uint8)
        with h5py.File(f"{stem}_x.h5", "w") as file:
            file.create_dataset("x", data=x, chunks=(16, 96, 96, 3))
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file.create_dataset("y", data=y.reshape(-1, 1, 1, 1))
        lines = [",coord_y,coord_x,tumor_patch,center_tumor_patch,wsi"]
        lines += [
            f"{i},{i * 7},{i * 5},True,{bool(y[i])},camelyon16_{word}_{i % 9:03d}"
            for i in range(count)
        ]
        (root / f"{stem.name}_meta.csv").write_text("\n".join(lines) + "\n")
        pixels[word] = x
    return pixels


@pytest.fixture
def tree(tmp_path):
    return tmp_path, build(tmp_path)


def test_patches_labels_and_slides(tree):
    root, pixels = tree
    data = load("pcam", str(root))
    assert [len(p) for p in (data.train, data.validation, data.test)] == [200, 40, 40]
    assert np.array_equal(np.moveaxis(data.test.images, 1, 3), pixels["test"])
    assert data.train.groups[12] == "camelyon16_train_003"
    assert data.classes == ("normal", "tumour")
    with h5py.File(root / "camelyonpatch_level_2_split_valid_y.h5") as file:
        assert data.validation.labels.tolist() == file["y"][:, 0, 0, 0].tolist()


def test_a_stratified_subset_and_the_central_crop(tree):
    root, pixels = tree
    data = load("pcam", f"{root}?subset=0.1&evaluate=0.5&crop=32")
    assert np.bincount(data.train.labels).tolist() == [10, 10]
    assert np.bincount(data.validation.labels).tolist() == [10, 10]
    assert len(data.test) == 40
    row = int(data.train.ids[7].split("-")[1])
    assert np.array_equal(
        np.moveaxis(data.train.images[7], 0, 2), pixels["train"][row, 32:64, 32:64]
    )


def test_the_folder_above_is_found(tmp_path):
    (tmp_path / "pcam").mkdir()
    build(tmp_path / "pcam")
    assert len(load("pcam", f"{tmp_path}?crop=8").train) == 200


def test_subsets_are_nested_and_keep_the_classes_shares():
    labels = np.array([0] * 700 + [1] * 300)
    small, large = (set(stratified_rows(labels, share, 0).tolist()) for share in (0.03, 0.1))
    assert small < large
    rows = stratified_rows(labels, 0.03, 0)
    assert np.bincount(labels[rows]).tolist() == [21, 9]
    assert rows.tolist() == sorted(rows.tolist())
    assert set(stratified_rows(labels, 0.03, 1).tolist()) != small


def test_missing_files_are_all_named(tree):
    root, _ = tree
    lost = ["valid_x.h5", "test_meta.csv"]
    for name in lost:
        (root / f"camelyonpatch_level_2_split_{name}").unlink()
    (root / "camelyonpatch_level_2_split_valid_x.h5.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"lacks 2 files .*unpack the .gz files") as error:
        load("pcam", str(root))
    for name in lost:
        assert name in str(error.value)


def test_a_slide_in_two_parts_is_refused(tree):
    root, _ = tree
    meta = root / "camelyonpatch_level_2_split_valid_meta.csv"
    meta.write_text(meta.read_text().replace("camelyon16_valid_002", "camelyon16_train_002"))
    with pytest.raises(DataError, match='group "camelyon16_train_002" is in train and validation'):
        load("pcam", str(root))


def test_files_that_do_not_fit_are_refused(tree):
    root, _ = tree
    meta = root / "camelyonpatch_level_2_split_test_meta.csv"
    meta.write_text("\n".join(meta.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match="40 labels, 39 meta rows"):
        load("pcam", str(root))
    meta.write_text("coord_y,slide\n1,2\n")
    with pytest.raises(DataError, match='must have a column "wsi"'):
        load("pcam", str(root))
    (root / "camelyonpatch_level_2_split_train_x.h5").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=r"split_train_\*.h5 must hold the arrays x and y"):
        load("pcam", str(root))
