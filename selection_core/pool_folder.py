"""A pool that the user brings: a folder with one folder of images per class, named as the classes.

A path is stamped with a hash of its files (`PATH#0123456789abcdef`) when a configuration is made,
so that results belong to the images and not to a place whose contents may change. No torch.
"""

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from imaging_core.datasets.images import FORMAT_OF_SUFFIX, read_images
from imaging_core.fields import ConfigError, did_you_mean
from imaging_core.places import absolute


def split_stamp(path: str) -> tuple[Path, str]:
    """`"a/b#0f…"` → (/…/a/b, "0f…"); the stamp is empty where there is none.

    The folder is absolute: a worker may run elsewhere than the command line.
    """
    place, _, stamp = path.partition("#")
    return absolute(place, "pool"), stamp


def is_path(text: str) -> bool:
    """Whether `text` names a folder: one that is there, or anything with a path separator."""
    if any(s in text for s in (os.sep, os.altsep) if s):
        return True
    try:
        return split_stamp(text)[0].is_dir()
    except OSError:  # a name that is too long for a file
        return False


@lru_cache(maxsize=8)
def _digest(root: Path) -> str:
    digest = hashlib.sha256()
    for name in _images(root):
        digest.update(f"{name}\0".encode())
        digest.update((root / name).read_bytes())
    return digest.hexdigest()[:16]


def _images(root: Path) -> list[str]:
    return sorted(
        path.relative_to(root).as_posix()
        for path in root.glob("*/*")
        if path.suffix.lower() in FORMAT_OF_SUFFIX
    )


def stamped(path: str) -> str:
    """`path` with the stamp of the images that are there now.

    Raises:
        ValueError: no such folder, one that cannot be read, or images other than those of the stamp
            that `path` carries.
    """
    root, stamp = split_stamp(path)
    try:
        if not root.is_dir():
            raise ValueError(f'must be a folder, "{root}" is none')
        now = _digest(root)
    except OSError as error:  # a name that is too long, a file that we may not read
        raise ValueError(
            f'must be a folder that can be read, "{root}" is none ({error.strerror})'
        ) from None
    if stamp not in ("", now):
        raise ValueError(
            f"must hold the images it held before ({root}#{stamp}), got #{now}; give "
            "changed images a folder of their own"
        )
    return f"{root}#{now}"


def by_class(path: str, classes: tuple[str, ...], per_class: int) -> list[list[str]]:
    """The image files of each class, as paths inside the folder, sorted.

    Raises:
        ConfigError: a folder that is no class, or a class with fewer than `per_class` images, or
            none.
    """
    root, _ = split_stamp(path)
    names = _images(root)
    found = sorted({name.split("/")[0] for name in names})
    for name in found:
        if name not in classes:
            raise ConfigError(
                f'pool: the folders in {root} must be classes of the data, got "{name}"'
                f"{did_you_mean(name, classes)} (classes: {', '.join(classes)})"
            )
    listed = [[n for n in names if n.split("/")[0] == label] for label in classes]
    for label, own in zip(classes, listed, strict=True):
        if not own:
            raise ConfigError(f"pool: {root} must hold images of every class, got none of {label}")
        if len(own) < per_class:
            raise ConfigError(
                f"pool_per_class must be at most {len(own)} (images of {label} in {root}), got "
                f"{per_class}"
            )
    return listed


def read_pool(
    path: str,
    classes: tuple[str, ...],
    *,
    per_class: int,
    channels: int,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """`per_class` images of each class drawn by `rng`, or with 0 all of them.

    Returns:
        images (N, C, H, W) uint8, labels (N,), and their N paths inside the folder.

    Raises:
        ConfigError: see `by_class`.
        DataError: an image breaks a rule; all of them are listed.
    """
    drawn = [
        [own[row] for row in np.sort(rng.permutation(len(own))[: per_class or None])]
        for own in by_class(path, classes, per_class)
    ]
    names = [name for own in drawn for name in own]
    images = read_images(
        split_stamp(path)[0],
        names,
        size=size,
        resize="bilinear",
        colour="grey" if channels == 1 else "rgb",
    )
    return images, np.repeat(np.arange(len(classes)), [len(own) for own in drawn]), names
