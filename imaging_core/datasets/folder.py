"""`folder`: images and a manifest.csv with the columns path, label, group and, if known, split."""

import os
import posixpath
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pydantic
import pydantic.dataclasses
from PIL import Image
from pydantic import BeforeValidator

from imaging_core.datasets.base import DataError, ImageDataset, Split
from imaging_core.datasets.deep import Scale, hashed, is_dicom, open_deep, range_of
from imaging_core.datasets.images import (
    FORMAT_OF_SUFFIX,
    decode_images,
    open_image,
    refuse,
    upright,
)
from imaging_core.datasets.options import (
    CarveOptions,
    ImageOptions,
    Names,
    existing,
    held_out_only,
)
from imaging_core.datasets.parts import PART_NAMES, carve, drop_shared_images, in_part_order
from imaging_core.datasets.text import MISSING, Spellings, one_form, read_csv
from imaging_core.fields import ConfigError, did_you_mean

MANIFEST = "manifest.csv"
COLUMNS = ("path", "label", "group")
PART_OF_WORD = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}

Range = Annotated[tuple[float, float], BeforeValidator(range_of)]

CARD = """\
# folder
**What it is.** Your own images: a folder with `manifest.csv` (UTF-8, with a header) whose columns
are `path` (relative, `/` between folders), `label` (a word), `group` (the patient, accession or
slide) and, if you have it, `split` (train, validation or test; for all rows or none). Without
`split` the groups are dealt out 7:1:2, stratified by class, by a hash: the order of rows does not
matter. PNG, JPEG, TIFF and BMP with 8 bits per channel are read, and turned upright where EXIF says
how they were taken. Grey PNG and TIFF of 16 bits are read where `window=LOW:HIGH` or
`percentile=LOW:HIGH` says what becomes black and white; DICOM (needs pydicom) by these, or by its
own window. With either, groups are kept as hashes: rows hold no patient's identifier.

    --data folder:PATH?size=256x128&colour=rgb&classes=normal,fracture&shares=7:1:2&split_seed=0

Classes are sorted by name unless `classes` orders them; of two, the second is the positive one.

**Licence.** Yours to know. Nothing is copied into results but ids, labels, groups and small
thumbnails of candidates.

**What it may not be used to claim.** That parts are independent if `group` is not the patient: the
check refuses a group or an identical image in two parts, and can see no more than that.
"""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ImageOptions, CarveOptions):
    """Options of `folder`.

    Attributes:
        classes: orders the labels (empty: sorted).
        window, percentile: what becomes black and white of images of more than 8 bits.
    """

    classes: Names = ()
    window: Range | None = None
    percentile: Range | None = None

    @pydantic.model_validator(mode="after")
    def _one_scale(self) -> "Options":
        if self.window and self.percentile:
            raise ValueError("give window or percentile, not both")
        if self.percentile and not 0 <= self.percentile[0] < self.percentile[1] <= 100:
            raise ValueError(f"percentile must lie within 0:100, got {self.percentile}")
        return self

    def reading(self, names: Sequence[str]) -> dict[str, Any]:
        """How `decode_images` opens `names`, where it is not as ever: deep images, or DICOM."""
        scale = Scale(window=self.window, percentile=self.percentile)
        if not scale and not any(map(is_dicom, names)):
            return {}

        def opened(root: Path, name: str) -> Image.Image:
            if scale or is_dicom(name):
                return open_deep(root, name, scale)
            return upright(open_image(root, name))

        return {"opened": opened, "how": ("deep", scale.window, scale.percentile)}


@dataclass(frozen=True, kw_only=True)
class Row:
    path: str
    label: str
    group: str
    part: str  # "" where the manifest has no split column


def load(
    path: str | None, *, protocol: str = "held-out", options: Options | None = None
) -> ImageDataset:
    """The images of a manifest.

    Raises:
        ConfigError: no such folder, a protocol other than held-out, `classes` that do not fit.
        DataError: the manifest or an image breaks a rule; all of them are listed.
    """
    held_out_only("folder", protocol)
    options = options or Options()
    root = existing("folder", path, "folder")
    rows = sorted(read_manifest(root), key=lambda row: row.path)
    classes = _classes(rows, options.classes)
    labels = [classes.index(row.label) for row in rows]
    if rows[0].part:
        parts = np.array([row.part for row in rows])
    else:
        parts = carve([row.group for row in rows], labels, options.shares, options.split_seed)
    order = in_part_order(parts)
    parts, rows = parts[order], [rows[i] for i in order]
    ids = [row.path for row in rows]
    how = options.reading(ids)
    read = decode_images(
        root, ids, size=options.size, resize=options.resize, colour=options.colour, **how
    )
    whole = Split(
        images=read.pixels,
        labels=np.array(labels, dtype=np.int64)[order],
        groups=np.array([hashed(row.group) if how else row.group for row in rows]),
        ids=np.array(ids),
        hashes=read.hashes,
    )
    splits = {part: whole.take(parts == part) for part in PART_NAMES}
    data = ImageDataset(name="folder", classes=classes, notes=_unused(root, ids), **splits)
    return drop_shared_images(data) if options.duplicates == "drop" else data


def _unused(root: Path, names: list[str]) -> tuple[str, ...]:
    """A line on the images in `root` that the manifest does not name, if there are any."""
    named = {posixpath.normpath(name) for name in names}
    left = sorted(
        found
        for folder, _, files in os.walk(root)
        for file in files
        if Path(file).suffix.lower() in FORMAT_OF_SUFFIX and not file.startswith(".")
        if (found := (Path(folder) / file).relative_to(root).as_posix()) not in named
    )
    if not left:
        return ()
    some = ", ".join(left[:3]) + (", …" if len(left) > 3 else "")
    return (f"not used: {len(left)} images in the folder that {MANIFEST} does not name ({some})",)


def _classes(rows: list[Row], wanted: tuple[str, ...]) -> tuple[str, ...]:
    found = sorted({row.label for row in rows})
    if wanted and sorted(wanted) != found:
        raise ConfigError(
            f"classes must be the labels of the manifest in some order ({', '.join(found)}), "
            f"got {', '.join(wanted)}"
        )
    if len(found) < 2:
        raise DataError(f'a dataset needs at least 2 classes, the manifest has only "{found[0]}"')
    return wanted or tuple(found)


def read_manifest(root: Path) -> list[Row]:
    """The rows of `manifest.csv` in `root`.

    Raises:
        DataError: no manifest, no rows, a missing column, or rows that break a rule (all listed).
    """
    path = root / MANIFEST
    if not path.is_file():
        raise DataError(f"{root} must hold a {MANIFEST} (columns path, label, group[, split])")
    records = read_csv(path, COLUMNS)
    if not records:
        raise DataError(f"{path} must have at least one row under its header")
    rows, problems, bad = [], [], 0
    seen: set[str] = set()
    spellings = {column: Spellings(column) for column in ("label", "group")}
    for number, record in records:
        row, broken = _row(record, "split" in record)
        file = unicodedata.normalize("NFC", posixpath.normpath(row.path))
        if row.path and file in seen:
            broken.append(f'path "{row.path}" must come once')
        seen.add(file)
        for column, value in (("label", row.label), ("group", row.group)):
            if problem := spellings[column].problem(value, number):
                broken.append(problem)
        rows.append(row)
        problems += [f"line {number}: {rule}" for rule in broken]
        bad += bool(broken)
    refuse(path, problems, len(records), "rows", broken=bad)
    return rows


def _row(record: dict[str, str], has_split: bool) -> tuple[Row, list[str]]:
    """One manifest row, and the rules it breaks."""
    values = {name: record.get(name, "").strip() for name in (*COLUMNS, "split")}
    broken = [f"{name} must not be empty" for name in COLUMNS if not values[name]]
    for name in ("label", "group"):
        # "none" is a fair name for the class without a finding, and no patient's.
        if one_form(values[name]) in MISSING - ({"none"} if name == "label" else set()):
            broken.append(
                f'{name} must be known, "{values[name]}" stands for a missing value; name it or '
                "leave the row out"
            )
    if "\\" in values["path"]:
        whole = values["path"].replace("\\", "/")
        broken.append(f'path must have / between folders, got "{values["path"]}"; write "{whole}"')
    part = ""
    if has_split:
        word = values["split"].lower()
        part = PART_OF_WORD.get(word, "")
        if not part:
            hint = did_you_mean(word, PART_OF_WORD)
            broken.append(f'split must be train, validation or test, got "{word}"{hint}')
    return Row(path=values["path"], label=values["label"], group=values["group"], part=part), broken
