"""Decoding once per node: resumed, shared, and the same data as without a cache."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imaging_core.datasets import DataError, decoding, load, registry
from imaging_core.datasets.cache import alone
from imaging_core.datasets.decoding import Jobs, decoded, place_of
from imaging_core.datasets.kept import of_fingerprint
from imaging_core.datasets.parts import PART_NAMES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def forgotten(monkeypatch):
    """forgotten(): as in a process that has loaded nothing yet."""
    monkeypatch.setattr(registry, "_loaded", type(registry._loaded)())
    return lambda: registry._loaded.clear()


def refuse_first(problems):
    for _, error in problems:
        raise error


def numbered(seen, counts, pause_s=0.0, fail_at=None):
    """Jobs whose images hold the number of the job."""

    def read(job):
        time.sleep(pause_s)
        if job == fail_at:
            raise KeyboardInterrupt
        seen.append(job)
        return np.full((counts[job], 1, 4, 4), job, dtype=np.uint8)

    return Jobs(counts=counts, read=read, refused=DataError, refuse=refuse_first)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("x")
    return tmp_path / "data"


def decode(source, jobs):
    return decoded(source, ["x"], "recipe", shape=(1, 4, 4), jobs=jobs, kept_from=1)


def test_what_was_interrupted_goes_on_where_it_stood(cache, source, monkeypatch):
    monkeypatch.setattr(decoding, "_threads", lambda: 1)
    counts, first, second = [2, 0, 3, 1, 4], [], []
    with pytest.raises(KeyboardInterrupt):
        decode(source, numbered(first, counts, fail_at=3))
    assert first == [0, 1, 2]
    found = decode(source, numbered(second, counts))
    assert second == [1, 3, 4]  # a job without images leaves nothing behind
    assert found.pixels[:, 0, 0, 0].tolist() == np.repeat(range(5), counts).tolist()
    third = []
    again = decode(source, numbered(third, counts))
    assert third == []
    assert np.array_equal(again.hashes, found.hashes)
    assert place_of(again.pixels[4:])[1] == 4 * 16


def test_one_decodes_while_the_others_wait(cache, source):
    seen, told, found = [], [], []

    def one():
        token = decoding.PROGRESS.set(lambda done, note="": told.append(note))
        found.append(decode(source, numbered(seen, [1] * 20, pause_s=0.02)))
        decoding.PROGRESS.reset(token)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(20))
    assert len({place_of(each.pixels)[0] for each in found}) == 1
    assert any("waiting for the process" in note for note in told)
    assert any(note == "decoding: 20 of 20 images" for note in told)


def test_a_lock_of_the_dead_keeps_nobody_out(cache, source):
    """Two processes: the first is killed in the block."""
    cache.mkdir()
    code = (
        "import time; from pathlib import Path; from imaging_core.datasets.cache import alone\n"
        f"with alone(Path({str(cache / 'lock')!r}), lambda: None):\n"
        "    print('in', flush=True); time.sleep(60)"
    )
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert first.stdout.readline() == b"in\n"
    waits = []

    def waiting():
        waits.append(1)
        first.kill()

    with alone(cache / "lock", waiting) as locked:
        assert locked
        assert waits
    first.wait()


def test_a_bad_job_leaves_no_pixels_and_every_one_is_told(cache, source):
    def read(job):
        if job in (3, 5):
            raise DataError(f"job {job}")
        return np.zeros((1, 1, 4, 4), dtype=np.uint8)

    def refuse(problems):
        if problems:
            raise DataError(", ".join(str(error) for _, error in problems))

    jobs = Jobs(counts=[1] * 8, read=read, refused=DataError, refuse=refuse)
    with pytest.raises(DataError, match=r"^job 3, job 5$"):
        decode(source, jobs)
    assert {file.suffix for file in cache.iterdir()} == {".lock"}


def test_a_full_disk_costs_no_result(cache, source, monkeypatch):
    def full(handle, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoding, "_reserve", full)
    told = []
    token = decoding.PROGRESS.set(lambda done, note="": told.append(note))
    found = decode(source, numbered([], [1] * 3))
    decoding.PROGRESS.reset(token)
    assert found.pixels[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert place_of(found.pixels) is None
    assert "cannot be kept" in told[0]


def tree(root, copies=3):
    """300 images of two classes without a split; `copies` of test images stand in training."""
    rng = np.random.default_rng(0)
    lines = ["path,label,group,split"]
    for i in range(300):
        part = ("train", "val", "test")[(i % 10 == 8) + 2 * (i % 10 == 9)]
        image = rng.integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(image).save(root / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i // 10 % 2]},g{i},{part}")
        if part == "test" and (copies := copies - 1) >= 0:
            Image.fromarray(image).save(root / f"copy{i}.png")
            lines.append(f"copy{i}.png,{'ab'[i // 10 % 2]},h{i},train")
    (root / "manifest.csv").write_text("\n".join(lines) + "\n")
    return f"{root}?size=8&duplicates=drop"


def same(one, other):
    assert one.fingerprint == other.fingerprint
    assert (one.name, one.classes, one.notes) == (other.name, other.classes, other.notes)
    for name in PART_NAMES:
        a, b = getattr(one, name), getattr(other, name)
        for field in ("images", "labels", "groups", "ids"):
            assert np.array_equal(getattr(a, field), getattr(b, field)), (name, field)
    for a, b in zip(one.train.mean_std, other.train.mean_std, strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_dataset_is_the_same_decoded_kept_and_by_its_fingerprint(
    tmp_path, monkeypatch, forgotten
):
    (tmp_path / "data").mkdir()
    path = tree(tmp_path / "data")
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", "off")
    plain = load("folder", path)
    assert len(plain.train) == 240
    assert place_of(plain.train.images) is None
    monkeypatch.setenv("MEDRL_IMAGE_CACHE", str(tmp_path / "cache"))
    forgotten()
    made = load("folder", path)
    checked = []
    monkeypatch.setattr(type(made), "check", lambda self: checked.append(1) or self)
    monkeypatch.setattr("imaging_core.datasets.base.hashes_of", None)
    forgotten()
    again = load("folder", path)
    by_content = of_fingerprint(plain.fingerprint)
    for found in (made, again, by_content):
        same(found, plain)
        for name in PART_NAMES:
            assert place_of(getattr(found, name).images) is not None, name
    assert checked == []
    forgotten()
    for file in (tmp_path / "data").iterdir():
        file.unlink()
    same(load("folder", path, fingerprint=plain.fingerprint), plain)
    forgotten()
    with pytest.raises(DataError, match=r"must hold a manifest\.csv"):
        load("folder", path, fingerprint="0" * 64)


def test_pixels_that_were_touched_are_not_taken_for_those_of_a_fingerprint(
    tmp_path, cache, forgotten
):
    (tmp_path / "data").mkdir()
    path = tree(tmp_path / "data", copies=0)
    made = load("folder", path)
    file, _ = place_of(made.train.images)
    os.utime(file, ns=(1, 1))
    assert of_fingerprint(made.fingerprint) is None
    forgotten()
    same(load("folder", path, fingerprint=made.fingerprint), made)  # decoded pixels are still whole
    assert of_fingerprint(made.fingerprint) is not None


@pytest.mark.slow
def test_killed_again_and_again_it_comes_to_its_end_with_the_same_pixels(tmp_path, write_image):
    root = tmp_path / "data"
    for i in range(2000):  # so many that no machine is at the end before the third kill
        if i < 200:
            write_image(root / f"{i:04d}.png", i, size=(256, 200))
        else:
            os.link(root / f"{i % 200:04d}.png", root / f"{i:04d}.png")
    code = (
        "import os, sys; from pathlib import Path; from imaging_core.datasets import decoding\n"
        "from imaging_core.datasets.images import decode_images\n"
        "decoding.SAVE_EVERY_S = 0.05\n"
        "names = sorted(os.listdir(sys.argv[1]))\n"
        "found = decode_images(Path(sys.argv[1]), names, size=(224, 224), resize='bilinear',"
        " colour='grey')\n"
        "import hashlib; print(hashlib.sha256(found.pixels.tobytes()).hexdigest())"
    )

    def start(cache):
        return subprocess.Popen(
            [sys.executable, "-c", code, str(root)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "MEDRL_IMAGE_CACHE": str(cache)},
        )

    undisturbed = start("off").communicate()[0]
    assert len(undisturbed) == 65
    rng, done = np.random.default_rng(0), [0]
    for _ in range(3):
        run = start(tmp_path / "cache")
        while run.poll() is None and kept(tmp_path / "cache") <= done[-1]:
            time.sleep(0.02)
        time.sleep(rng.random() * 0.2)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        done.append(kept(tmp_path / "cache"))
    assert 0 < done[1] < done[2] < done[3] < 2000
    assert start(tmp_path / "cache").communicate()[0] == undisturbed


def kept(cache):
    """How many images a killed process has left."""
    found = list(cache.glob("*.sha256"))
    return np.fromfile(found[0], np.uint8).reshape(-1, 32).any(axis=1).sum() if found else 0
