"""Decoding a dataset once per node: in parallel, with progress, to be gone on with after a kill.

The pixels of all parts lie one after the other in one file of the cache, which every worker of the
node maps: the kernel holds them once, and a worker's own memory does not grow with the dataset.
"""

import contextlib
import errno
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imaging_core.datasets.base import hashes_of
from imaging_core.datasets.cache import CACHE_FROM, alone, cache_folder, key_of
from imaging_core.task import Progress, no_progress

SHA = hashlib.sha256().digest_size
MOST_THREADS = 64
COPIED_AT_ONCE = 256  # images
SAVE_EVERY_S = 5.0  # what a kill may lose
PROGRESS: ContextVar[Progress] = ContextVar("PROGRESS", default=no_progress)
"""Who hears how far decoding is: set for the time of one `load`, so that loaders need not know."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Pixels of a dataset.

    Attributes:
        pixels: (N, C, H, W) uint8, mapped where there is a cache.
        hashes: (N, 32) uint8, SHA-256 of the pixels of each image.
    """

    pixels: np.ndarray
    hashes: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What is to be decoded.

    Attributes:
        counts: how many images each job yields; its rows follow those of the jobs before it.
        read: number of a job → its images, (count, C, H, W) uint8; called from many threads.
        refused: exceptions of `read` that are collected, so that all bad files are named at once.
        refuse: raises an error that names what was refused: [(job, exception), …], in order.
    """

    counts: Sequence[int]
    read: Callable[[int], np.ndarray]
    refused: type[Exception]
    refuse: Callable[[list[tuple[int, Exception]]], None]

    @property
    def rows(self) -> int:
        return sum(self.counts)


def decoded(
    root: Path,
    names: Sequence[str],
    recipe: object,
    *,
    shape: tuple[int, int, int],
    jobs: Jobs,
    kept_from: int = CACHE_FROM,
) -> Decoded:
    """What `jobs` make of the files `names` in `root`, or what they made before.

    One process of a node decodes while the others wait; one that is killed has lost seconds.

    Args:
        recipe: everything beside the files that the pixels depend on.
        shape: (C, H, W) of an image.
        kept_from: fewer images are decoded in memory, in every process.

    Raises:
        Exception: what `jobs.refuse` raises.
    """
    folder = cache_folder()
    key = None if folder is None or jobs.rows < kept_from else key_of(root, names, recipe)
    if key is None:  # no cache, or a file is missing: decoding says which
        return _in_memory(jobs, shape)
    files = _Files(folder, key, jobs.rows, shape)
    try:
        found = files.load()
        if found is None:
            folder.mkdir(parents=True, exist_ok=True)
            with alone(files.lock, _waiting) as locked:
                found = files.load() or files.make(jobs, alone=locked)
        return found
    except OSError as error:
        # A read-only home or a full disk costs time and memory, not results.
        PROGRESS.get()(
            0.0, f"decoded pixels cannot be kept in {folder} ({error.strerror}): every process "
            "decodes for itself",
        )  # fmt: skip
        return _in_memory(jobs, shape)


_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def _waiting() -> None:
    PROGRESS.get()(0.0, "waiting for the process of this machine that decodes the same images")


def map_file(file: Path, rows: int, shape: tuple[int, ...], *, offset: int = 0) -> np.ndarray:
    """(rows, *shape) uint8 of a file, which every process that maps it shares.

    Writing to the array changes neither the file nor another process's array.
    """
    if not rows:
        return np.empty((0, *shape), dtype=np.uint8)
    return np.memmap(file, np.uint8, "c", offset=offset, shape=(rows, *shape))


def place_of(array: np.ndarray) -> tuple[Path, int] | None:
    """The file that a contiguous `array` is a view of, and its first byte there; None: of none."""
    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    if not isinstance(whole, np.memmap) or not array.flags.c_contiguous:
        return None
    first = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
    return Path(whole.filename), whole.offset + first


def chosen(images: np.ndarray, hashes: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The `images` (N, C, H, W) that `keep` (N,) bool, in a file of the cache if they come of one.

    Args:
        hashes: (N, 32) of the images; those that are kept name the file.
    """
    folder = cache_folder()
    if folder is None or place_of(images) is None or not keep.any():
        return images[keep]
    shape, rows = images.shape[1:], np.flatnonzero(keep)
    name = hashlib.sha256(repr(shape).encode() + hashes[rows].tobytes()).hexdigest()
    file = folder / f"{name}.u8"
    size = len(rows) * int(np.prod(shape))
    try:
        with alone(folder / f"{name}.lock", _waiting):
            if not (file.is_file() and file.stat().st_size == size):
                part = folder / f"{name}.{uuid.uuid4().hex}.part"
                try:
                    with part.open("wb") as stream:
                        _reserve(stream.fileno(), size)
                        for start in range(0, len(rows), COPIED_AT_ONCE):
                            stream.write(images[rows[start : start + COPIED_AT_ONCE]].data)
                    part.replace(file)
                finally:
                    part.unlink(missing_ok=True)
        return map_file(file, len(rows), shape)
    except OSError:  # no room: costs memory, not results
        return images[keep]


class _Files:
    """The files of one decoded dataset: pixels (`.u8`), the hash of each image (`.sha256`).

    While it is decoded the pixels are in `.part`, and a hash of zeros says: not yet.
    """

    def __init__(self, folder: Path, key: str, rows: int, shape: tuple[int, int, int]) -> None:
        self.rows, self.shape = rows, shape
        self.row_bytes = int(np.prod(shape))
        self.pixels, self.part, self.hashes, self.lock = (
            folder / f"{key}.{ending}" for ending in ("u8", "part", "sha256", "lock")
        )

    def load(self) -> Decoded | None:
        """What is there, whole; else None."""
        try:
            sizes = self.pixels.stat().st_size, self.hashes.stat().st_size
            if sizes == (self.rows * self.row_bytes, self.rows * SHA):
                return Decoded(
                    pixels=map_file(self.pixels, self.rows, self.shape),
                    hashes=map_file(self.hashes, self.rows, (SHA,)),
                )
        except (OSError, ValueError):
            pass
        return None

    def make(self, jobs: Jobs, *, alone: bool) -> Decoded:
        """Decode what is missing, and keep it."""
        part = self.part if alone else self.part.with_suffix(f".{uuid.uuid4().hex}.part")
        if alone and not (self.part.is_file() and self.hashes.is_file()):
            self.hashes.unlink(missing_ok=True)
        handle = os.open(part, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            try:
                _reserve(handle, self.rows * self.row_bytes)
                hashes = self._begun() if alone else np.zeros((self.rows, SHA), np.uint8)
                self._fill(jobs, handle, hashes, saved=alone)
            finally:
                os.close(handle)
            self._keep(hashes)
            part.replace(self.pixels)
        except (OSError, jobs.refused, ValueError):
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        found = self.load()
        if found is None:
            raise OSError(errno.EIO, "what was written cannot be read", str(self.pixels))
        return found

    def _begun(self) -> np.ndarray:
        """(N, 32): the hashes of what a killed process left; zeros where it left nothing."""
        try:
            found = np.fromfile(self.hashes, np.uint8)
        except OSError:
            found = np.zeros(0, np.uint8)
        if found.size != self.rows * SHA:
            found = np.zeros(self.rows * SHA, np.uint8)
        return found.reshape(self.rows, SHA)

    def _keep(self, hashes: np.ndarray) -> None:
        whole = self.hashes.with_suffix(f".{uuid.uuid4().hex}.tmp")
        whole.write_bytes(hashes.tobytes())
        whole.replace(self.hashes)

    def _fill(self, jobs: Jobs, handle: int, hashes: np.ndarray, *, saved: bool) -> None:
        def write(first: int, images: np.ndarray) -> None:
            content = memoryview(np.ascontiguousarray(images)).cast("B")
            at = first * self.row_bytes
            while content:
                done = os.pwrite(handle, content, at)
                content, at = content[done:], at + done

        def save(seen: np.ndarray) -> None:
            os.fdatasync(handle)  # the pixels are there before a hash says so
            self._keep(seen)

        _run(jobs, write, hashes, save if saved else None)


def _reserve(handle: int, size: int) -> None:
    """Take the room at once: a disk that is too small says so before hours of work."""
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise
        os.ftruncate(handle, size)


def _in_memory(jobs: Jobs, shape: tuple[int, int, int]) -> Decoded:
    pixels = np.empty((jobs.rows, *shape), dtype=np.uint8)
    hashes = np.zeros((jobs.rows, SHA), dtype=np.uint8)

    def write(first: int, images: np.ndarray) -> None:
        pixels[first : first + len(images)] = images

    _run(jobs, write, hashes, None)
    return Decoded(pixels=pixels, hashes=hashes)


def _run(
    jobs: Jobs,
    write: Callable[[int, np.ndarray], None],
    hashes: np.ndarray,
    save: Callable[[np.ndarray], None] | None,
) -> None:
    """Every job that has no hash yet, on all cores; `save` is called from time to time."""
    firsts = np.concatenate([[0], np.cumsum(jobs.counts, dtype=np.int64)]).tolist()
    there = [
        jobs.counts[job] and hashes[firsts[job] : firsts[job + 1]].any(axis=1).all()
        for job in range(len(jobs.counts))
    ]
    missing = [job for job, found in enumerate(there) if not found]
    failed: list[tuple[int, Exception]] = []
    todo, over = _shared(missing), threading.Event()
    crashed: list[BaseException] = []
    done = threading.Semaphore(0)
    count = 0

    def work() -> None:
        try:
            for job in todo:
                if over.is_set():
                    return
                try:
                    images = jobs.read(job)
                    if len(images):
                        write(firsts[job], images)
                        hashes[firsts[job] : firsts[job + 1]] = hashes_of(images)
                except jobs.refused as error:
                    failed.append((job, error))
                done.release()
        except BaseException as error:
            crashed.append(error)
            over.set()
            done.release()

    threads = [
        threading.Thread(target=work, name="decoding", daemon=True)
        for _ in range(min(len(missing), _threads()))
    ]
    saved = time.monotonic()
    rows_left = sum(jobs.counts[job] for job in missing)
    try:
        for thread in threads:
            thread.start()
        while count < len(missing) and not crashed:
            count += done.acquire(timeout=0.5)
            while count < len(missing) and done.acquire(blocking=False):
                count += 1
            now = time.monotonic()
            share = count / len(missing)
            ready = jobs.rows - round(rows_left * (1 - share))
            PROGRESS.get()(ready / jobs.rows, f"decoding: {ready:,} of {jobs.rows:,} images")
            if save is not None and now - saved > SAVE_EVERY_S:
                save(hashes.copy())
                saved = time.monotonic()
    finally:
        over.set()
        for thread in threads:
            thread.join()
        if save is not None and (crashed or count < len(missing)):  # Ctrl+C loses nothing
            with contextlib.suppress(OSError):
                save(hashes)
    if crashed:
        raise crashed[0]
    jobs.refuse(sorted(failed, key=lambda pair: pair[0]))


def _threads() -> int:
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


def _shared(items: list[int]) -> Iterator[int]:
    """An iterator that threads may take turns at: a list's own is one step of the interpreter."""
    return iter(items)
