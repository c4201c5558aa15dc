"""`medmnist`: one npz file of MedMNIST v2 / v3 (Yang et al. 2023), two-dimensional."""

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pydantic.dataclasses
from PIL import Image

from imaging_core.datasets.base import DataError, ImageDataset, Split
from imaging_core.datasets.decoding import Decoded, Jobs, decoded
from imaging_core.datasets.images import to_array
from imaging_core.datasets.npz_rows import UNREADABLE, Header, RowStream, header_of
from imaging_core.datasets.options import Duplicates, Resize, Size, existing, held_out_only
from imaging_core.datasets.parts import drop_shared_images

BLOCK = 1024  # images that are read at once
KEY_OF_PART = {"train": "train", "validation": "val", "test": "test"}
# Images in train, val, test of the official files, at every resolution.
OFFICIAL_SIZES = {
    "bloodmnist": (11_959, 1_712, 3_421),
    "breastmnist": (546, 78, 156),
    "dermamnist": (7_007, 1_003, 2_005),
    "pathmnist": (89_996, 10_004, 7_180),
    "pneumoniamnist": (4_708, 524, 624),
}
OFFICIAL_MD5 = {
    "bloodmnist": "7053d0359d879ad8a5505303e11de1dc",
    "breastmnist": "750601b1f35ba3300ea97c75c52ff8f6",
    "pathmnist": "a8b06965200029087d5bd730944a56c1",
    "pneumoniamnist": "28209eda62fecd6e6a2d98b1501bb15f",
    "pneumoniamnist_64": "8f4eceb4ccffa70c672198ea285246c6",
}

CARD = """\
# medmnist
**What it is.** One of the two-dimensional single-label MedMNIST files (`pneumoniamnist.npz`,
`bloodmnist_64.npz`, …), downloaded by you; parts are the official ones. Altered copies circulate
under the official names: for the sets whose sizes and MD5 we know, a file that differs is refused
(`?official=no` accepts it, under the name medmnist-altered).

    --data medmnist:pneumoniamnist.npz?size=32&duplicates=drop

Images keep the size that they have in the file unless `size` names another.

Classes are the numbers in the file. In BreastMNIST class 0 is malignant, so that sensitivity, which
is the recall of class 1, is about normal or benign.

**Licence.** CC BY 4.0; DermaMNIST CC BY-NC 4.0.

**What it may not be used to claim.** The files hold no patient ids: images of one patient may be in
two parts, and only identical images can be found. Images are 28 to 224 pixels: no clinical claim.
"""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of `medmnist`.

    Attributes:
        official: insist on the official file.
        size: (height, width) that every image is stretched to; as in the file where none is named.
        resize: the filter, pinned because results depend on it.
        duplicates: what happens to an image whose pixels are in two parts.
    """

    official: Literal["yes", "no"] = "yes"
    size: Size | None = None
    resize: Resize = "bilinear"
    duplicates: Duplicates = "refuse"


def load(
    path: str | None, *, protocol: str = "held-out", options: Options | None = None
) -> ImageDataset:
    """A MedMNIST npz file.

    Raises:
        ConfigError: no such file, or a protocol other than held-out.
        DataError: no MedMNIST file, a multi-label or 3D one, or an altered copy.
    """
    held_out_only("medmnist", protocol)
    options = options or Options()
    file = existing("medmnist", path, "file")
    labels, headers = _read(file)
    if options.official == "yes":
        _check_official(file, {part: len(labels[key]) for part, key in KEY_OF_PART.items()})
    count = max(int(of_part.max()) for of_part in labels.values()) + 1
    read = _decoded(file, headers, options)
    splits, first = {}, 0
    for part, key in KEY_OF_PART.items():
        rows = slice(first, first + len(labels[key]))
        first = rows.stop
        ids = np.array([f"{key}-{row:06d}" for row in range(len(labels[key]))])
        splits[part] = Split(
            images=read.pixels[rows],
            hashes=read.hashes[rows],
            labels=labels[key][:, 0].astype(np.int64),
            groups=ids,
            ids=ids,
        )
    data = ImageDataset(
        name=f"medmnist-{file.stem if options.official == 'yes' else 'altered'}",
        classes=tuple(str(c) for c in range(count)),
        **splits,
    )
    return drop_shared_images(data) if options.duplicates == "drop" else data


def _read(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Header]]:
    """Key of a part → its labels, and what its images' header says; no pixel is read.

    Raises:
        DataError: no MedMNIST file; every rule that it breaks is listed.
    """
    wanted = [f"{key}_{what}" for key in KEY_OF_PART.values() for what in ("images", "labels")]
    if not zipfile.is_zipfile(file):
        raise DataError(f"{file} must be a MedMNIST npz file (a zip archive), it is none")
    try:
        with np.load(file, allow_pickle=False) as archive:
            there = [name for name in wanted if name in archive.files]
            labels = {name: archive[name] for name in there if name.endswith("labels")}
            headers = {name: header_of(file, name) for name in there if name.endswith("images")}
    except UNREADABLE as error:
        raise _no_medmnist(file, error) from None
    missing = [name for name in wanted if name not in there]
    if missing:
        raise DataError(f"{file} must hold {', '.join(wanted)}; {', '.join(missing)} missing")
    problems = []
    for key in KEY_OF_PART.values():
        images, of_part = headers[f"{key}_images"], labels[f"{key}_labels"]
        pictures = len(images.shape) in (3, 4) and images.shape[3:] in ((), (3,))
        if images.dtype != np.uint8 or not pictures:
            problems.append(
                f"{key}_images must be (N, H, W) or (N, H, W, 3) uint8, got {images.shape} "
                f"{images.dtype}"
            )
        if of_part.ndim != 2 or of_part.shape[1] != 1 or of_part.dtype.kind not in "iu":
            problems.append(
                f"{key}_labels must be (N, 1) integers (one label an image), got {of_part.shape} "
                f"{of_part.dtype}"
            )
        elif len(of_part) == 0 or len(of_part) != images.shape[0]:
            problems.append(
                f"{key} must have a label per image, got {len(of_part)}, {images.shape[0]}"
            )
        elif 0 in images.shape:
            problems.append(f"{key}_images must have pixels, got {images.shape}")
    sizes = {key: headers[f"{key}_images"].shape[1:] for key in KEY_OF_PART.values()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{key} {size}" for key, size in sizes.items())
        problems.append(f"images of all parts must have one size and one kind, got {listed}")
    if problems:
        raise DataError(f"{file} breaks {len(problems)} rules:\n  " + "\n  ".join(problems))
    return (
        {key: labels[f"{key}_labels"] for key in KEY_OF_PART.values()},
        {key: headers[f"{key}_images"] for key in KEY_OF_PART.values()},
    )


def _no_medmnist(file: Path, error: Exception) -> DataError:
    return DataError(f"{file} must be a MedMNIST npz file: {error}")


def _check_official(file: Path, sizes: dict[str, int]) -> None:
    flag = file.stem.partition("_")[0]
    if flag in OFFICIAL_SIZES and tuple(sizes.values()) != OFFICIAL_SIZES[flag]:
        raise DataError(
            f"{file} must have {OFFICIAL_SIZES[flag]} images in train, val, test as the official "
            f"{flag}, got {tuple(sizes.values())}: an altered copy (?official=no reads it)"
        )
    if file.stem in OFFICIAL_MD5:
        with file.open("rb") as stream:
            md5 = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
        if md5.hexdigest() != OFFICIAL_MD5[file.stem]:
            raise DataError(
                f"the MD5 of {file} must be {OFFICIAL_MD5[file.stem]}, got {md5.hexdigest()}: an "
                "altered copy (?official=no reads it)"
            )


def _decoded(file: Path, headers: dict[str, Header], options: Options) -> Decoded:
    """The images of all parts, (N, C, H, W) in the size that was asked for, and their hashes."""
    any_part = next(iter(headers.values()))
    size = options.size or any_part.shape[1:3]
    channels = any_part.shape[3] if len(any_part.shape) == 4 else 1
    blocks = [
        (key, first, min(BLOCK, header.shape[0] - first))
        for key, header in headers.items()
        for first in range(0, header.shape[0], BLOCK)
    ]
    streams = {key: RowStream(file, f"{key}_images", headers[key], BLOCK) for key in headers}

    def read(job: int) -> np.ndarray:
        key, first, _ = blocks[job]
        try:
            images = streams[key].block(first // BLOCK)
        except UNREADABLE as error:
            raise _no_medmnist(file, error) from None
        return _resized(images, size, options)

    def refused(problems: Sequence[tuple[int, Exception]]) -> None:
        for _, error in problems:
            raise error

    recipe = ("medmnist", size, options.resize)
    jobs = Jobs(
        counts=[count for _, _, count in blocks], read=read, refused=DataError, refuse=refused
    )
    return decoded(file.parent, [file.name], recipe, shape=(channels, *size), jobs=jobs)


def _resized(images: np.ndarray, size: tuple[int, int], options: Options) -> np.ndarray:
    """(N, C, *size) of (N, H, W) or (N, H, W, 3)."""
    if images.shape[1:3] != size:
        look = {"size": size, "resize": options.resize}
        colour = "grey" if images.ndim == 3 else "rgb"
        pictures = (Image.fromarray(pixels) for pixels in images)
        return np.stack([to_array(picture, **look, colour=colour) for picture in pictures])
    return images[:, None] if images.ndim == 3 else np.moveaxis(images, 3, 1)
