"""Images as files: single ones, and a dataset that `--data folder:` reads again."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imaging_core.datasets import ImageDataset
from imaging_core.datasets.base import Split
from imaging_core.fields import ConfigError
from imaging_core.splits import k_shot
from imaging_core.task import Arrays
from sweeps.engine.applied import options

PARTS = ("train", "validation", "test")
MANIFEST = ("path", "label", "group", "split")


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image of a dataset to be.

    Attributes:
        name: what its file is called after; need not be unique.
        pixels: (C, H, W) uint8, one channel or three.
        label, group, part: its columns in the manifest.
    """

    name: str
    pixels: np.ndarray
    label: str
    group: str
    part: str


def file_name(number: int, name: str) -> str:
    """`7`, `"a/b c.png"` → `"000007_b-c.png"`: unique by its number, fit for any file system."""
    stem = Path(name).stem if Path(name).suffix.lower() in (".png", ".jpg", ".jpeg") else name
    return f"{number:06d}_{re.sub(r'[^A-Za-z0-9._-]+', '-', stem.rpartition('/')[2])[:80]}.png"


def write_png(path: Path, pixels: np.ndarray) -> None:
    """(C, H, W) or (H, W) uint8 as PNG, without loss.

    Raises:
        ConfigError: neither one channel nor three.
    """
    plain = pixels[0] if pixels.ndim == 3 and len(pixels) == 1 else pixels
    if plain.ndim == 3 and len(plain) != 3:
        raise ConfigError(f"a PNG must have 1 or 3 channels, got {len(plain)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plain if plain.ndim == 2 else np.moveaxis(plain, 0, 2)).save(path)


def write_dataset(folder: Path, pictures: Sequence[Picture]) -> None:
    """The pictures and their `manifest.csv`, which goes last, to a new or empty `folder`.

    Raises:
        ConfigError: the folder holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"a dataset must be written to an empty folder, {folder} holds files")
    rows = []
    for number, picture in enumerate(pictures):
        name = f"{picture.part}/{file_name(number, picture.name)}"
        write_png(folder / name, picture.pixels)
        rows.append((name, picture.label, picture.group, picture.part))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as text:
        out = csv.writer(text, lineterminator="\n")
        out.writerow(MANIFEST)
        out.writerows(rows)


def of_part(part: str, split: Split, classes: tuple[str, ...], pixels: np.ndarray) -> list[Picture]:
    """The images of one part, with `pixels` (N, C, H, W) in place of its own."""
    return [
        Picture(name=str(name), pixels=image, label=classes[label], group=str(group), part=part)
        for name, image, label, group in zip(
            split.ids, pixels, split.labels.tolist(), split.groups, strict=True
        )
    ]


def selected_pictures(
    config: Any, seed: int, data: ImageDataset, pool: Arrays, keep: np.ndarray
) -> list[Picture]:
    """What a cell's final classifier was trained on, and the parts that judged it.

    Training: the k-shot images, then the kept candidates with the labels that they claim. A
    candidate is its own group, or that of the training image that it is; validation and test are
    the data's own.

    Args:
        config, seed, data: the cell's own; the configuration is that of `selection_core`.
        keep: (N,) bool over `pool`.
    """
    real = k_shot(data.train, config.k_shot, seed)
    found = of_part("train", real, data.classes, real.images)
    planted = config.pool in ("real", "duplicates", "collapsed")
    for row in np.flatnonzero(keep):
        source = pool["source"][row]
        found.append(
            Picture(
                name=f"candidate-{row}",
                pixels=pool["images"][row],
                label=data.classes[pool["labels"][row]],
                group=str(data.train.groups[source]) if planted else f"candidate-{row}",
                part="train",
            )
        )
    for part in PARTS[1:]:
        split = getattr(data, part)
        found += of_part(part, split, data.classes, split.images)
    return found


def how_to_read(data: ImageDataset, folder: Path) -> str:
    """The option that reads a folder of `write_dataset` as `data` is, pixel for pixel."""
    how = options(data.channels, data.size)
    return f"--data 'folder:{folder}{how}&classes={','.join(data.classes)}'"
