"""`pcam`: PatchCamelyon (Veeling et al. 2018), the HDF5 files and their meta CSVs."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic.dataclasses
from pydantic import Field

from imaging_core.datasets.base import DataError, ImageDataset, Split
from imaging_core.datasets.decoding import Decoded, Jobs, decoded
from imaging_core.datasets.images import refuse
from imaging_core.datasets.options import Duplicates, existing, held_out_only
from imaging_core.datasets.parts import drop_shared_images
from imaging_core.datasets.text import Spellings, read_csv
from imaging_core.fields import ConfigError

WORD_OF_PART = {"train": "train", "validation": "valid", "test": "test"}
STEM = "camelyonpatch_level_2_split_{}"
CLASSES = ("normal", "tumour")
BLOCK = 1024  # images that are read at once
SIDE = 96  # pixels; the label is about the central 32

CARD = """\
# pcam
**What it is.** PatchCamelyon: 96×96 patches of lymph-node slides (262,144 / 32,768 / 32,768, half
of them with tumour in the central 32×32 pixels). The folder holds the unpacked
`camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5` and `…_meta.csv`, whose `wsi` column, the
slide, is the group. Needs h5py (`pip install ".[pcam]"`).

    --data pcam:PATH?subset=0.03&evaluate=0.03&crop=32

`subset` is the share of training images, `evaluate` that of validation images (a subset of matched
size, or a claim about scarce data fails); both keep the classes' shares and are drawn by a hash,
nested: 3 % is contained in 10 %. `evaluate_test` is the share of test images, all by default.

Ye et al. 2020 print 3,931 + 2,757 images as "3 %", which fits 3 % of Kaggle's de-duplicated copy
and not of PatchCamelyon, which is half and half; ours is the official set.

**Licence.** CC0.

**What it may not be used to claim.** A label says tumour in the centre of a patch, nothing about
the slide or the patient. PatchCamelyon holds identical patches; `?duplicates=drop` removes those
that training shares with validation or test.
"""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `pcam`.

    Attributes:
        subset, evaluate, evaluate_test: shares of train, validation and test that are read.
        crop: side of the central square that is kept, in pixels.
        subset_seed: of the hash that draws the subsets.
    """

    subset: float = Field(1.0, gt=0, le=1)
    evaluate: float = Field(1.0, gt=0, le=1)
    evaluate_test: float = Field(1.0, gt=0, le=1)
    crop: int = Field(SIDE, ge=1, le=SIDE)
    subset_seed: int = Field(0, ge=0)
    duplicates: Duplicates = "refuse"


def load(
    path: str | None, *, protocol: str = "held-out", options: Options | None = None
) -> ImageDataset:
    """PatchCamelyon from the folder of its HDF5 files (or the one above, named `pcam` in it).

    Raises:
        ConfigError: no such folder, h5py is missing, or a protocol other than held-out.
        DataError: a file is missing or does not hold what it should (all of them are listed).
    """
    held_out_only("pcam", protocol)
    options = options or Options()
    root = existing("pcam", path, "folder")
    root = root / "pcam" if (root / "pcam").is_dir() else root
    try:
        import h5py  # an extra: nobody else needs it
    except ImportError:
        raise ConfigError('pcam needs h5py; install it with pip install ".[pcam]"') from None
    _check_files(root)
    share = {
        "train": options.subset,
        "validation": options.evaluate,
        "test": options.evaluate_test,
    }
    found = [_part(h5py, root, word, share[part], options) for part, word in WORD_OF_PART.items()]
    read = _decoded(h5py, root, found, options)
    splits, first = {}, 0
    for name, part in zip(WORD_OF_PART, found, strict=True):
        rows = slice(first, first + len(part.rows))
        first = rows.stop
        splits[name] = Split(
            images=read.pixels[rows],
            hashes=read.hashes[rows],
            labels=part.labels[part.rows],
            groups=part.slides[part.rows],
            ids=np.array([f"{part.word}-{row:06d}" for row in part.rows.tolist()]),
        )
    data = ImageDataset(name="pcam", classes=CLASSES, **splits)
    return drop_shared_images(data) if options.duplicates == "drop" else data


def _check_files(root: Path) -> None:
    wanted = [
        STEM.format(word) + ending
        for word in WORD_OF_PART.values()
        for ending in ("_x.h5", "_y.h5", "_meta.csv")
    ]
    missing = [name for name in wanted if not (root / name).is_file()]
    if missing:
        packed = any((root / f"{name}.gz").is_file() for name in missing)
        remedy = "; unpack the .gz files" if packed else ""
        listed = "\n  ".join(missing)
        raise DataError(f"{root} lacks {len(missing)} files of PatchCamelyon{remedy}:\n  {listed}")


def stratified_rows(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Ascending row numbers of a share of each class, drawn by a hash of the row: nested."""
    if share == 1:
        return np.arange(len(labels))
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        order = sorted(rows.tolist(), key=lambda row: _hash(seed, row))
        chosen += order[: max(round(share * len(rows)), 1)]
    return np.sort(np.array(chosen, dtype=np.int64))


def _hash(seed: int, row: int) -> bytes:
    return hashlib.sha256(f"{seed}/pcam/{row}".encode()).digest()


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is read of train, valid or test.

    Attributes:
        rows: ascending, of the images that are read.
        labels, slides: of every image in the files, (M,).
    """

    word: str
    rows: np.ndarray
    labels: np.ndarray
    slides: np.ndarray

    @property
    def blocks(self) -> list[np.ndarray]:
        """`rows`, as they lie in one block of the file: HDF5 is very slow at single rows."""
        starts = range(0, len(self.labels), BLOCK)
        cuts = np.searchsorted(self.rows, [*starts, len(self.labels)])
        return [self.rows[a:b] for a, b in itertools.pairwise(cuts.tolist()) if b > a]


def _part(h5py: Any, root: Path, word: str, share: float, options: Options) -> Part:
    stem = STEM.format(word)
    slides = _slides(root / f"{stem}_meta.csv")
    try:
        with h5py.File(root / f"{stem}_y.h5") as file:
            y = _array(h5py, file, "y")
            if y.dtype.kind not in "biu":
                raise DataError(f"{root}: y of {stem}_y.h5 must be integers, got {y.dtype}")
            labels = y[:].reshape(-1).astype(np.int64)
        with h5py.File(root / f"{stem}_x.h5") as file:
            x = _array(h5py, file, "x")
            shape, kind = x.shape, x.dtype
    except (OSError, KeyError, RuntimeError) as error:
        raise _unreadable(root, word, error) from None
    if kind != np.uint8 or shape != (len(labels), SIDE, SIDE, 3) or len(slides) != len(labels):
        raise DataError(
            f"{stem}: x, y and the meta file must have a row per image and x must be "
            f"(N, {SIDE}, {SIDE}, 3) uint8, got x {shape} {kind}, {len(labels)} labels, "
            f"{len(slides)} meta rows"
        )
    rows = stratified_rows(labels, share, options.subset_seed)
    return Part(word=word, rows=rows, labels=labels, slides=np.array(slides))


def _unreadable(root: Path, word: str, error: Exception) -> DataError:
    return DataError(f"{root}: {STEM.format(word)}_*.h5 must hold the arrays x and y: {error}")


def _decoded(h5py: Any, root: Path, parts: list[Part], options: Options) -> Decoded:
    """The central squares of the rows of all parts, (N, 3, crop, crop), and their hashes."""
    margin = (SIDE - options.crop) // 2
    window = slice(margin, margin + options.crop)
    blocks = [(part.word, rows) for part in parts for rows in part.blocks]

    def read(job: int) -> np.ndarray:
        word, rows = blocks[job]
        first = rows[0]
        try:
            with h5py.File(root / f"{STEM.format(word)}_x.h5") as file:
                block = file["x"][first : rows[-1] + 1, window, window]
        except (OSError, KeyError, RuntimeError) as error:
            raise _unreadable(root, word, error) from None
        return np.moveaxis(block[rows - first], 3, 1)

    def refused(problems: Sequence[tuple[int, Exception]]) -> None:
        for _, error in problems:
            raise error

    names = [f"{STEM.format(part.word)}{end}" for part in parts for end in ("_x.h5", "_y.h5")]
    recipe = ("pcam", options.crop, [hashlib.sha256(p.rows.tobytes()).hexdigest() for p in parts])
    return decoded(
        root,
        names,
        recipe,
        shape=(3, options.crop, options.crop),
        jobs=Jobs(
            counts=[len(rows) for _, rows in blocks],
            read=read,
            refused=DataError,
            refuse=refused,
        ),
    )


def _array(h5py: Any, file: Any, name: str) -> Any:
    """The array `name` of an open file, which may hold a group of that name instead.

    Raises:
        KeyError: there is none.
    """
    found = file[name]
    if not isinstance(found, h5py.Dataset) or not found.shape:
        raise KeyError(f"{name} is no array")
    return found


def _slides(path: Path) -> list[str]:
    """The `wsi` column of a meta file.

    Raises:
        DataError: no UTF-8, no such column, or rows without a slide (all listed).
    """
    slides, problems, spellings = [], [], Spellings("wsi")
    for line, record in read_csv(path, ("wsi",)):
        slide = (record["wsi"] or "").strip()
        if not slide:
            problems.append(f"line {line}: wsi (the slide) must not be empty")
        elif problem := spellings.problem(slide, line):
            problems.append(f"line {line}: {problem}")
        slides.append(slide)
    refuse(path, problems, len(slides), "rows")
    return slides
