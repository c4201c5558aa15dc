"""`mura`: MURA v1.1 (Rajpurkar et al. 2018) in its public layout, one body part or all of them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydantic.dataclasses
from pydantic import Field

from imaging_core.datasets.base import DataError, ImageDataset, Split
from imaging_core.datasets.images import decode_images, refuse
from imaging_core.datasets.options import ImageOptions, existing, split_query
from imaging_core.datasets.parts import PART_NAMES, drop_shared_images, in_part_order, in_share
from imaging_core.datasets.text import read_rows_of
from imaging_core.fields import ConfigError, did_you_mean

CLASSES = ("normal", "abnormal")
PARTS = (
    "XR_ELBOW",
    "XR_FINGER",
    "XR_FOREARM",
    "XR_HAND",
    "XR_HUMERUS",
    "XR_SHOULDER",
    "XR_WRIST",
)
ALL_PARTS, EACH_PART = "all", "each"
IMAGE = re.compile(
    r"MURA-v1\.1/(?P<split>train|valid)/(?P<part>XR_[A-Z]+)/(?P<patient>patient\d{5})/"
    r"(?P<study>study\d+_(?P<label>positive|negative))/image\d+\.png"
)

CARD = """\
# mura
**What it is.** MURA v1.1, musculoskeletal radiographs (Rajpurkar et al. 2018): 36,808 training and
3,197 validation images of seven body parts, labelled normal or abnormal per study. The folder is
the one the public archive unpacks to; names come from its CSV files, so files that macOS leaves
behind (`._image1.png`) are not read.

    --data mura:MURA-v1.1?part=XR_ELBOW&size=224      (or mura:MURA-v1.1/XR_ELBOW)

**Parts.** The test set of MURA is not public. Protocol `held-out`: its `valid` is our test part,
and validation is a tenth of the training patients, chosen by a hash of the patient, so that a
patient is in the same part whichever body part is read (1,467 training patients occur in several).
Protocol `paper`: `valid` both selects and reports, as in Cheng et al. 2019.

**Licence.** Stanford's research use agreement; images may not be passed on.

**What it may not be used to claim.** Labels are per study, not per image, and known to hold errors
(a public relabelling changes about 550 studies). Accuracy per image is what Cheng et al. print; it
is not MURA's own score, which is per study. Numbers of the `paper` protocol are optimistic.
"""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ImageOptions):
    """Options of `mura`.

    Attributes:
        part: a body part (`XR_ELBOW`, also `elbow`), or `all`; on a command line also `each`, which
            makes the seven body parts the levels of the factor "data".
        validation_share: of the training patients (held-out protocol).
    """

    part: str = ""
    validation_share: float = Field(0.1, gt=0, lt=1)
    split_seed: int = Field(0, ge=0)


@dataclass(frozen=True, kw_only=True)
class Row:
    file: str  # relative to the MURA-v1.1 folder
    part: str
    patient: str
    study: str  # relative folder
    label: int


def load(
    path: str | None, *, protocol: str = "held-out", options: Options | None = None
) -> ImageDataset:
    """MURA from the folder MURA-v1.1 (whatever it is called now).

    Raises:
        ConfigError: no such folder or body part, or an unknown protocol.
        DataError: a CSV row or an image breaks a rule; all of them are listed.
    """
    if protocol not in ("held-out", "paper"):
        raise ConfigError(f'protocol must be held-out or paper, got "{protocol}"')
    options = options or Options()
    root, part = _folder_and_part(path, options.part)
    rows, parts = [], []
    for name in ("train", "valid"):
        for row in _chosen(read_rows(root, name), part):
            rows.append(row)
            parts.append(_part_of(row, name, protocol, options))
    parts = np.array(parts)
    whole = _split(root, [rows[i] for i in in_part_order(parts)], options)
    parts = parts[in_part_order(parts)]
    train, validation, test = (whole.take(parts == name) for name in PART_NAMES)
    if protocol == "paper":
        validation = test
    data = ImageDataset(
        name="mura" if part == ALL_PARTS else f"mura-{part}",
        classes=CLASSES,
        train=train,
        validation=validation,
        test=test,
        protocol=protocol,
    )
    return drop_shared_images(data) if options.duplicates == "drop" else data


def _part_of(row: Row, name: str, protocol: str, options: Options) -> str:
    """The part of an image of the list `name`; the `paper` protocol reads `valid` twice."""
    if name == "valid":
        return "test"
    if protocol == "paper":
        return "train"
    carved = in_share(row.patient, options.validation_share, options.split_seed)
    return "validation" if carved else "train"


def body_part(word: str) -> str:
    """`elbow` or `XR_ELBOW` → `XR_ELBOW`; `all` → `all`.

    Raises:
        ConfigError: no body part of MURA.
    """
    name = word.upper() if word.upper().startswith("XR_") else f"XR_{word.upper()}"
    if word.lower() == ALL_PARTS:
        return ALL_PARTS
    if name not in PARTS:
        allowed = ", ".join((*PARTS, ALL_PARTS))
        raise ConfigError(f'part must be one of {allowed}, got "{word}"{did_you_mean(name, PARTS)}')
    return name


def _folder_and_part(path: str | None, option: str) -> tuple[Path, str]:
    """The folder and the body part, which may be the option or the path's last component."""
    suffix = ""
    if path is not None and Path(path).name.startswith("XR_"):
        path, suffix = str(Path(path).parent), Path(path).name
    root = existing("mura", path, "folder")
    named = {body_part(word) for word in (suffix, option) if word}
    if len(named) > 1:
        raise ConfigError(f'part must be named once, got "{suffix}" and "{option}"')
    return root, named.pop() if named else ALL_PARTS


def at_uri(uri: str, values: Mapping[str, str]) -> tuple[str, str, Callable[[str], bool]]:
    """The folder at a URI, where the data lie in it, and the files that a body part needs."""
    root, _, last = uri.rstrip("/").rpartition("/")
    inside = last if last.startswith("XR_") else ""
    part = body_part(inside or values.get("part") or ALL_PARTS)
    return (
        root if inside else uri,
        inside,
        lambda name: part == ALL_PARTS or "/XR_" not in name or f"/{part}/" in name,
    )


def read_rows(root: Path, name: str) -> list[Row]:
    """The rows of `{name}_image_paths.csv`, in file order; a header is recognised and skipped.

    Raises:
        DataError: no such file, rows that are no MURA path or come twice, or study labels in
            `{name}_labeled_studies.csv` that contradict the folder names (all listed).
    """
    records = _records(root / f"{name}_image_paths.csv")
    rows, problems = [], []
    seen: set[str] = set()
    for number, record in records:
        match = IMAGE.fullmatch(record[0].strip())
        if match is None or match["split"] != name:
            wanted = f"MURA-v1.1/{name}/XR_*/patientNNNNN/studyN_positive|negative/imageN.png"
            problems.append(f'line {number}: must be {wanted}, got "{record[0]}"')
            continue
        file = match[0].removeprefix("MURA-v1.1/")
        if file in seen:
            problems.append(f"line {number}: {file} must come once")
        seen.add(file)
        rows.append(
            Row(
                file=file,
                part=match["part"],
                patient=match["patient"],
                study=file.rpartition("/")[0],
                label=int(match["label"] == "positive"),
            )
        )
    refuse(root / f"{name}_image_paths.csv", problems, len(records), "rows")
    _check_study_labels(root / f"{name}_labeled_studies.csv", rows)
    return rows


def _records(path: Path) -> list[tuple[int, list[str]]]:
    """Line numbers and fields; the official files have no header, some copies have one."""
    if not path.is_file():
        raise DataError(f"{path.parent} must hold {path.name}, as the MURA v1.1 archive does")
    records = [(line, record) for line, record in read_rows_of(path) if any(record)]
    if records and not records[0][1][0].startswith("MURA"):
        records = records[1:]
    if not records:
        raise DataError(f"{path} must have at least one row")
    return records


def _check_study_labels(path: Path, rows: list[Row]) -> None:
    if not path.is_file():
        return  # folder names carry the same labels
    label_of = {row.study: row.label for row in rows}
    problems = []
    records = _records(path)
    for number, record in records:
        study = record[0].strip().removeprefix("MURA-v1.1/").rstrip("/")
        if study not in label_of:
            problems.append(f"line {number}: {study} must have images in the image list")
        elif record[1:] != [str(label_of[study])]:
            problems.append(
                f"line {number}: the label of {study} must be {label_of[study]} as its name says, "
                f"got {','.join(record[1:])}"
            )
    refuse(path, problems, len(records), "rows")


def _chosen(rows: list[Row], part: str) -> list[Row]:
    return sorted((row for row in rows if part in (ALL_PARTS, row.part)), key=lambda row: row.file)


def _split(root: Path, rows: list[Row], options: Options) -> Split:
    read = decode_images(
        root,
        [row.file for row in rows],
        size=options.size,
        resize=options.resize,
        colour=options.colour,
    )
    return Split(
        images=read.pixels,
        hashes=read.hashes,
        labels=np.array([row.label for row in rows], dtype=np.int64),
        groups=np.array([row.patient for row in rows]),
        ids=np.array([row.file for row in rows]),
        studies=np.array([row.study for row in rows]),
    )


def expand(path: str | None) -> tuple[str, ...] | None:
    """`PATH?part=each` → the path of each body part; None where there is nothing to expand."""
    where, values = split_query(path)
    if values.get("part", "").lower() != EACH_PART:
        return None
    others = "".join(f"&{name}={value}" for name, value in values.items() if name != "part")
    return tuple(f"{where}?part={part}{others}" for part in PARTS)
