"""Decoded pixels kept between commands: decoding 10,000 radiographs takes a minute each time."""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

VARIABLE = "MEDRL_IMAGE_CACHE"  # a folder; "off" or nothing: none
DEFAULT_FOLDER = "~/.cache/medrl-sweeps/images"
CACHE_FROM = 256  # images; fewer are decoded sooner than they are worth keeping
LAYOUT = 3  # goes up when the same file gives other pixels; 2: turned upright; 3: TIFFs too


def cached(
    root: Path, names: Sequence[str], recipe: object, decode: Callable[[], np.ndarray]
) -> np.ndarray:
    """`decode()`, or what it gave before for the same files (by size and time) and recipe.

    The cache may be deleted at any moment. Where its folder cannot be written, there is none.
    """
    folder = cache_folder()
    if folder is None or len(names) < CACHE_FROM:
        return decode()
    key = _key(root, names, recipe)
    if key is None:
        return decode()  # a file is missing: decode() says which
    file = folder / f"{key}.npy"
    try:
        if file.is_file():
            return np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        with contextlib.suppress(OSError):  # a folder that we may not enter
            file.unlink(missing_ok=True)  # torn by a full disk: decode again
    pixels = decode()
    _keep(file, pixels)
    return pixels


def cache_folder() -> Path | None:
    """Where the cache is; None where VARIABLE is "off" or empty, or no home is known.

    A path that is not whole is one below the home directory: workers run in folders of their own.
    """
    where = os.environ.get(VARIABLE, DEFAULT_FOLDER).strip()
    if where.lower() in ("", "off"):
        return None
    try:
        return Path(where if where.startswith(("/", "~")) else f"~/{where}").expanduser()
    except RuntimeError:
        return None


def _key(root: Path, names: Sequence[str], recipe: object) -> str | None:
    digest = hashlib.sha256(repr((LAYOUT, str(root.resolve()), recipe)).encode())
    for name in names:
        try:
            status = (root / name).stat()
        except OSError:
            return None
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _keep(file: Path, pixels: np.ndarray) -> None:
    temporary = file.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            np.save(stream, pixels, allow_pickle=False)
        temporary.replace(file)
    except OSError:
        # A read-only home or a full disk costs time, not results.
        if temporary.is_file():
            temporary.unlink()
