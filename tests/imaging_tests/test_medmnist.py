import zipfile

import numpy as np
import pytest

from imaging_core.datasets import DataError, load, medmnist, registry
from imaging_core.datasets.decoding import place_of
from imaging_core.datasets.kept import of_fingerprint, settled
from imaging_core.datasets.npz_rows import RowStream, header_of
from imaging_core.fields import ConfigError


def arrays(counts=(30, 10, 12), classes=3, colour=True, seed=0):
    rng = np.random.default_rng(seed)
    out = {}
    for key, n in zip(("train", "val", "test"), counts, strict=True):
        shape = (n, 28, 28, 3) if colour else (n, 28, 28)
        out[f"{key}_images"] = rng.integers(0, 256, shape, dtype=np.uint8)
        out[f"{key}_labels"] = (np.arange(n) % classes)[:, None].astype(np.uint8)
    return out


def save(path, **content):
    np.savez_compressed(path, **content)
    return path


@pytest.mark.parametrize("colour", [True, False])
def test_images_and_labels(tmp_path, colour):
    content = arrays(colour=colour)
    data = load("medmnist", str(save(tmp_path / "organmnist_64.npz", **content)))
    assert data.name == "medmnist-organmnist_64"
    assert data.classes == ("0", "1", "2")
    assert [len(p) for p in (data.train, data.validation, data.test)] == [30, 10, 12]
    image = content["val_images"][4]
    image = np.moveaxis(image, 2, 0) if colour else image[None]
    assert np.array_equal(data.validation.images[4], image)
    assert data.validation.labels.tolist() == [i % 3 for i in range(10)]


def test_an_altered_copy_of_a_known_set_is_refused(tmp_path):
    path = save(tmp_path / "pneumoniamnist.npz", **arrays(classes=2, colour=False))
    with pytest.raises(DataError, match=r"\(4708, 524, 624\) images .* got \(30, 10, 12\): an alt"):
        load("medmnist", str(path))
    assert load("medmnist", f"{path}?official=no").name == "medmnist-altered"


def test_a_copy_of_the_right_size_and_the_wrong_content_is_refused(tmp_path):
    path = save(tmp_path / "breastmnist.npz", **arrays((546, 78, 156), classes=2, colour=False))
    with pytest.raises(DataError, match=r"MD5 of .* must be 750601b1f35ba3300ea97c75c52ff8f6, got"):
        load("medmnist", str(path))


def test_shared_images_are_refused_or_dropped(tmp_path):
    content = arrays()
    content["train_images"][3] = content["test_images"][5]
    path = save(tmp_path / "toy.npz", **content)
    with pytest.raises(DataError, match="image test-000005 of test is also in train"):
        load("medmnist", str(path))
    data = load("medmnist", f"{path}?duplicates=drop")
    assert "train-000003" not in data.train.ids
    assert len(data.train) == 29


def test_files_that_are_no_medmnist(tmp_path):
    content = arrays()
    multi = {**content, "train_labels": np.zeros((30, 14), dtype=np.uint8)}
    with pytest.raises(DataError, match=r"train_labels must be \(N, 1\) integers .*got \(30, 14\)"):
        load("medmnist", str(save(tmp_path / "chestmnist.npz", **multi)))
    volume = {**content, "val_images": np.zeros((10, 28, 28, 28), dtype=np.uint8)}
    with pytest.raises(DataError, match=r"val_images must be \(N, H, W\)"):
        load("medmnist", str(save(tmp_path / "organmnist3d.npz", **volume)))
    del content["test_labels"]
    with pytest.raises(DataError, match="test_labels missing"):
        load("medmnist", str(save(tmp_path / "part.npz", **content)))
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match="must be a MedMNIST npz file"):
        load("medmnist", str(tmp_path / "text.npz"))
    with pytest.raises(ConfigError, match="must be a file"):
        load("medmnist", str(tmp_path))


class Trap:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_pickled_objects_are_refused(tmp_path, capsys):
    content = arrays()
    content["train_labels"] = np.array([[Trap()]] * 30, dtype=object)
    path = tmp_path / "trap.npz"
    np.savez(path, **content)
    with pytest.raises(DataError, match=r"must be a MedMNIST npz file: .*allow_pickle"):
        load("medmnist", str(path))
    assert "must not run" not in capsys.readouterr().out


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of its own, where any number of images is worth keeping."""
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("options", ["", "?size=20", "?size=20&duplicates=drop"])
@pytest.mark.parametrize("colour", [True, False])
def test_mapped_from_the_cache_it_is_what_it_was_in_memory(tmp_path, cache, monkeypatch,
                                                           options, colour):  # fmt: skip
    content = arrays((300, 60, 70), colour=colour)
    if "drop" in options:
        content["train_images"][3] = content["test_images"][6]
    path = f"{save(tmp_path / 'toy.npz', **content)}{options}"
    monkeypatch.setattr(medmnist, "BLOCK", 64)
    mapped = load("medmnist", path)
    assert place_of(mapped.train.images), "workers share these pixels"
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", "off")
    registry._loaded.clear()
    own = load("medmnist", path)
    assert place_of(own.train.images) is None
    assert mapped.fingerprint == own.fingerprint
    for name in ("train", "validation", "test"):
        one, other = getattr(mapped, name), getattr(own, name)
        assert np.array_equal(one.images, other.images)
        assert one.ids.tolist() == other.ids.tolist()
        assert one.labels.tolist() == other.labels.tolist()


def test_a_worker_that_knows_the_fingerprint_reads_no_file(tmp_path, cache, monkeypatch):
    path = str(save(tmp_path / "toy.npz", **arrays((300, 60, 70))))
    there = settled(load("medmnist", path))
    found = of_fingerprint(there.fingerprint)
    assert found is not None
    assert np.array_equal(found.test.images, there.test.images)
    assert place_of(found.test.images)[0].parent == cache


def test_pixels_that_end_early_are_named_with_the_file(tmp_path, cache):
    path = save(tmp_path / "toy.npz", **arrays((300, 60, 70)))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        middle = archive.getinfo("val_images.npy")
    at = middle.header_offset + 200
    content[at : at + 2000] = bytes(2000)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"toy\.npz must be a MedMNIST npz file: "):
        load("medmnist", str(path))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("saving", [np.savez, np.savez_compressed])
def test_blocks_come_in_whatever_order_they_are_asked_for(tmp_path, monkeypatch, order, saving):
    whole = np.random.default_rng(0).integers(0, 256, (53, 4, 5), dtype=np.uint8)
    file = tmp_path / "rows.npz"
    saving(file, x=np.array(whole, order=order))
    header = header_of(file, "x")
    assert (header.shape, header.dtype, header.by_column) == ((53, 4, 5), np.uint8, order == "F")
    monkeypatch.setattr("imaging_core.datasets.npz_rows.AHEAD", 2)
    stream = RowStream(file, "x", header, rows=10)
    for number in (1, 0, 5, 4, 3, 0, 2, 5):
        assert np.array_equal(stream.block(number), whole[10 * number : 10 * number + 10]), number
