"""What is known of a decoded dataset, kept beside its pixels: fingerprint, checks, statistics.

Whoever has a fingerprint (a worker, from the controller) maps the dataset of that content without
reading, hashing or checking anything again. Everything is mapped, so that a worker's own memory is
the same for ten thousand images and for a million.
"""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from imaging_core.datasets.base import ImageDataset, Split
from imaging_core.datasets.cache import LAYOUT, cache_folder
from imaging_core.datasets.decoding import map_file, place_of
from imaging_core.datasets.parts import PART_NAMES

SETS, BOOK = "sets", "dataset.json"


def settled(data: ImageDataset) -> ImageDataset:
    """`data`, checked, with its fingerprint and the statistics of its training images.

    Taken from the cache where it knows this content; else computed and, if the pixels are mapped
    from the cache, kept there.

    Raises:
        DataError: see `ImageDataset.check`.
    """
    folder = cache_folder()
    if folder is None or any(place_of(_part(data, name).images) is None for name in PART_NAMES):
        return data.check()
    names = folder / SETS / f"{_content(data)}.json"
    known = _read(names)
    if known is not None and (found := of_fingerprint(known.get("fingerprint"))) is not None:
        return _with_notes(found, data)
    data.check()
    _remember(data, data.fingerprint, *data.train.mean_std)
    with contextlib.suppress(OSError):  # no room: it is computed again
        _keep(data, folder / SETS)
        _write(names, {"fingerprint": data.fingerprint})
    return data


def of_fingerprint(fingerprint: str | None) -> ImageDataset | None:
    """The dataset of this content, mapped from the cache; None where it is not there, whole."""
    folder = cache_folder()
    if folder is None or fingerprint is None:
        return None
    home = folder / SETS / fingerprint
    book = _read(home / BOOK)
    if book is None or book.get("layout") != LAYOUT:
        return None
    try:
        parts = {name: _mapped(home, name, book["parts"][name]) for name in PART_NAMES}
        data = ImageDataset(
            name=book["name"],
            classes=tuple(book["classes"]),
            protocol=book["protocol"],
            notes=tuple(book["notes"]),
            **parts,
        )
        _remember(data, book["fingerprint"], np.array(book["mean"]), np.array(book["std"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a file was deleted or is torn
    return data


def _part(data: ImageDataset, name: str) -> Split:
    return getattr(data, name)


def _with_notes(found: ImageDataset, data: ImageDataset) -> ImageDataset:
    """`found` with the notes of `data`: they are of the folder, not of the content."""
    if found.notes == data.notes:
        return found
    object.__setattr__(found, "notes", data.notes)
    return found


def _remember(data: ImageDataset, fingerprint: str, mean: np.ndarray, std: np.ndarray) -> None:
    """Put what is known where `functools.cached_property` would put it."""
    vars(data)["fingerprint"] = fingerprint
    vars(data.train)["mean_std"] = (mean, std)


def _content(data: ImageDataset) -> str:
    """A hash of everything in `data`, which reads no pixel: images by their own hashes."""
    digest = hashlib.sha256(repr((LAYOUT, data.name, data.classes, data.protocol)).encode())
    for name in PART_NAMES:
        part = _part(data, name)
        digest.update(f"{name}{part.images.shape}".encode())
        for f in fields(part):
            value = getattr(part, f.name)
            if value is None or f.name == "images":
                continue
            digest.update(f"{f.name}{value.shape}{value.dtype}".encode())
            digest.update(np.ascontiguousarray(value).data.cast("B") if len(value) else b"")
    return digest.hexdigest()


def _keep(data: ImageDataset, sets: Path) -> None:
    """Write the folder of the dataset, whole or not at all."""
    home, making = sets / data.fingerprint, sets / f".{uuid.uuid4().hex}.tmp"
    making.mkdir(parents=True)
    try:
        mean, std = data.train.mean_std
        book = {
            "layout": LAYOUT,
            "fingerprint": data.fingerprint,
            "name": data.name,
            "classes": data.classes,
            "protocol": data.protocol,
            "notes": data.notes,
            "mean": mean.tolist(),
            "std": std.tolist(),
            "parts": {name: _store(_part(data, name), making, name) for name in PART_NAMES},
        }
        _write(making / BOOK, book)
        if home.exists():  # of files that are gone
            shutil.rmtree(home, ignore_errors=True)
        with contextlib.suppress(OSError):  # another process was first
            making.rename(home)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _store(part: Split, folder: Path, name: str) -> dict[str, Any]:
    """Write the arrays of a part; where its pixels are, and what else there is."""
    file, offset = place_of(part.images) or (Path(), 0)
    status = file.stat()
    stored = {
        "pixels": {
            "file": str(file),
            "offset": offset,
            "shape": part.images.shape,
            "size": status.st_size,
            "time": status.st_mtime_ns,
        },
        "arrays": [],
    }
    for f in fields(part):
        value = getattr(part, f.name)
        if value is not None and f.name != "images":
            np.save(folder / f"{name}.{f.name}.npy", np.asarray(value), allow_pickle=False)
            stored["arrays"].append(f.name)
    return stored


def _mapped(home: Path, name: str, stored: dict[str, Any]) -> Split:
    """The part of this name, every array of it mapped.

    Raises:
        OSError, ValueError: the pixels, or an array, are not what they were.
    """
    pixels = stored["pixels"]
    file = Path(pixels["file"])
    status = file.stat()
    if (status.st_size, status.st_mtime_ns) != (pixels["size"], pixels["time"]):
        raise ValueError(f"{file} is another one")
    rows, *shape = pixels["shape"]
    arrays = {
        f: np.load(home / f"{name}.{f}.npy", mmap_mode="c", allow_pickle=False)
        for f in stored["arrays"]
    }
    images = map_file(file, rows, tuple(shape), offset=pixels["offset"])
    return Split(images=images, **arrays)


def _write(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(json.dumps(values))
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
