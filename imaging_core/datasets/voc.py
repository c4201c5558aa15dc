"""`voc`: images with Pascal VOC boxes, as image-level labels or as crops (BCCD is one such set)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import PIL
import pydantic.dataclasses
from pydantic import Field

from imaging_core.datasets.base import DataError, ImageDataset, Split
from imaging_core.datasets.decoding import Decoded, Jobs, decoded
from imaging_core.datasets.images import (
    BadImage,
    open_image,
    orientation,
    refuse,
    to_array,
    upright,
)
from imaging_core.datasets.options import (
    CarveOptions,
    Colour,
    ImageOptions,
    existing,
    held_out_only,
)
from imaging_core.datasets.parts import PART_NAMES, carve, drop_shared_images, in_part_order
from imaging_core.datasets.text import read_text
from imaging_core.datasets.voc_annotations import (
    Annotated,
    Square,
    images_without,
    read_annotations,
    square_around,
)
from imaging_core.fields import ConfigError, did_you_mean

LIST_OF_PART = {"train": "train.txt", "validation": "val.txt", "test": "test.txt"}

CARD = """\
# voc
**What it is.** Images with boxes in the Pascal VOC layout (`JPEGImages`, `Annotations`, and, if it
is there, `ImageSets/Main/{train,val,test}.txt`, which then decide the parts; else images are dealt
out 7:1:2). Two tasks:

    --data voc:PATH?task=image&object=Platelets&size=64     is such an object in the image?
    --data voc:PATH?task=crops&size=64                      which object is this box?

`task=image` carries the boxes of the object as masks, so that a mask policy can be scored; `object`
may be left out where there is one kind. `task=crops` cuts the square around each box (at least
`min_side` pixels long); boxes of one image stay in one part.

BCCD (blood smears, MIT licence): 364 images, 4,888 boxes; platelets in 201 images, none in 163.

**Licence.** That of the set you point at.

**What it may not be used to claim.** The image is the group: where several images come from one
patient or smear (BCCD does not say), the parts are not independent of each other.
"""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ImageOptions, CarveOptions):
    """Options of `voc`: the task, the object it asks for, the smallest box of `crops`, and whether
    images without an annotation, and boxes without an area, are refused or left out."""

    task: Literal["image", "crops"] = "image"
    object: str = ""
    min_side: int = Field(8, ge=1)
    unannotated: Literal["refuse", "skip"] = "refuse"
    degenerate: Literal["refuse", "drop"] = "refuse"
    colour: Colour = "rgb"


def load(
    path: str | None, *, protocol: str = "held-out", options: Options | None = None
) -> ImageDataset:
    """A folder of images with VOC boxes.

    Raises:
        ConfigError: no such folder, an unknown object, or a protocol other than held-out.
        DataError: an annotation or an image breaks a rule; all of them are listed.
    """
    held_out_only("voc", protocol)
    options = options or Options()
    root = existing("voc", path, "folder")
    images = read_annotations(root, unannotated=options.unannotated, degenerate=options.degenerate)
    names = sorted({box.name for image in images for box in image.boxes})
    if options.task == "image":
        target = _target(options.object, names)
        labels = [int(any(box.name == target for box in image.boxes)) for image in images]
        part_of = _parts(root, images, labels, options)
        whole = _image_split(root, _in_order(images, part_of), target, options)
        classes: tuple[str, ...] = (f"no {target}", target)
    else:
        if options.object:
            raise ConfigError("object belongs to task=image; task=crops reads every object")
        part_of = _parts(root, images, [0] * len(images), options)
        whole = _crop_split(root, _in_order(images, part_of), names, options)
        classes = tuple(names)
    rows = np.array([part_of.get(str(group), "") for group in whole.groups])
    splits = {part: whole.take(rows == part) for part in PART_NAMES}
    notes = _unused(root, images, part_of)
    data = ImageDataset(name=f"voc-{options.task}", classes=classes, notes=notes, **splits)
    return drop_shared_images(data) if options.duplicates == "drop" else data


def _in_order(images: list[Annotated], part_of: dict[str, str]) -> list[Annotated]:
    """The images of train, then those of validation, of test, and of no part."""
    parts = np.array([part_of.get(image.stem, "") for image in images])
    return [images[i] for i in in_part_order(parts)]


def _unused(root: Path, images: list[Annotated], part_of: dict[str, str]) -> tuple[str, ...]:
    """What lies in the folder and is not used."""
    found = {
        "not used: images without an annotation": images_without(root, images),
        "not used: images in none of the lists of ImageSets/Main": [
            image.stem for image in images if image.stem not in part_of
        ],
    }
    return tuple(
        f"{what}: {len(names)} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in found.items()
        if names
    )


def _target(wanted: str, names: list[str]) -> str:
    if not wanted and len(names) == 1:
        return names[0]
    if wanted not in names:
        raise ConfigError(
            f'object must be one of {", ".join(names)}, got "{wanted}"{did_you_mean(wanted, names)}'
        )
    return wanted


def _parts(
    root: Path, images: list[Annotated], labels: list[int], options: Options
) -> dict[str, str]:
    """Image name → part: from ImageSets/Main if all three lists are there, else dealt out."""
    lists = {part: root / "ImageSets" / "Main" / name for part, name in LIST_OF_PART.items()}
    stems = [image.stem for image in images]
    missing = [file.name for file in lists.values() if not file.is_file()]
    if 0 < len(missing) < len(lists):
        raise DataError(
            f"{root}/ImageSets/Main must hold {', '.join(LIST_OF_PART.values())} or none of them, "
            f"{', '.join(missing)} is not there; add it, or move the others away"
        )
    if missing:
        parts = carve(stems, labels, options.shares, options.split_seed)
        return dict(zip(stems, parts.tolist(), strict=True))
    part_of: dict[str, str] = {}
    problems, known, listed = [], set(stems), 0
    for part, file in lists.items():
        for line in read_text(file).splitlines():
            stem = line.strip()  # a name may have spaces in it
            if not stem:
                continue
            listed += 1
            if stem not in known:
                problems.append(f"{file.name}: {stem} must have an annotation")
            elif part_of.setdefault(stem, part) != part:
                problems.append(f"{file.name}: {stem} must be in one list, is in {part_of[stem]}")
    refuse(root / "ImageSets", problems, listed, "names")
    return part_of


def _image_split(root: Path, images: list[Annotated], target: str, options: Options) -> Split:
    """One row per image; the mask is the union of the target's boxes at the new size."""
    height, width = options.size
    masks = np.zeros((len(images), height, width), dtype=bool)
    for mask, image in zip(masks, images, strict=True):
        x, y = width / image.width, height / image.height
        for box in image.boxes:
            if box.name == target:
                top, bottom = _pixels(box.top * y, box.bottom * y, height)
                left, right = _pixels(box.left * x, box.right * x, width)
                mask[top:bottom, left:right] = True
    stems = np.array([image.stem for image in images])
    labels = [int(any(box.name == target for box in image.boxes)) for image in images]
    read = _read(root, images, options)
    return Split(
        images=read.pixels,
        hashes=read.hashes,
        labels=np.array(labels, dtype=np.int64),
        groups=stems,
        ids=stems,
        masks=masks,
    )


def _pixels(first: float, last: float, side: int) -> tuple[int, int]:
    """The rounded pixel range of a box side: at least one pixel, inside the image."""
    start = min(max(round(first), 0), side - 1)
    return start, min(max(round(last), start + 1), side)


def _crop_split(root: Path, images: list[Annotated], names: list[str], options: Options) -> Split:
    """One row per box that is large enough."""
    chosen = [
        [
            (number, box)
            for number, box in enumerate(image.boxes)
            if min(box.right - box.left, box.bottom - box.top) >= options.min_side
        ]
        for image in images
    ]
    squares = [
        [square_around(box, image.width, image.height) for _, box in boxes]
        for image, boxes in zip(images, chosen, strict=True)
    ]
    if not any(squares):
        raise DataError(f"{root} must have a box of at least {options.min_side} pixels a side")
    rows = [
        (image.stem, number, box)
        for image, boxes in zip(images, chosen, strict=True)
        for number, box in boxes
    ]
    read = _read(root, images, options, squares)
    return Split(
        images=read.pixels,
        hashes=read.hashes,
        labels=np.array([names.index(box.name) for _, _, box in rows], dtype=np.int64),
        groups=np.array([stem for stem, _, _ in rows]),
        ids=np.array([f"{stem}#{number}" for stem, number, _ in rows]),
    )


def _read(
    root: Path,
    images: list[Annotated],
    options: Options,
    squares: list[list[Square]] | None = None,
) -> Decoded:
    """(N, C, H, W): the images, or image by image their crops where `squares` are given."""

    def read(job: int) -> np.ndarray:
        image = images[job]
        opened = open_image(root, image.file)
        if orientation(opened) != 1 and image.boxes:
            raise BadImage(
                "its EXIF orientation must be 1 where there are boxes (they could mean the "
                f"picture as stored or as shown), it is {orientation(opened)}; save it "
                "upright, without the tag"
            )
        opened = upright(opened)
        if opened.size != (image.width, image.height):
            raise BadImage(
                f"its size must be the annotation's ({image.width}×{image.height}), "
                f"it is {opened.width}×{opened.height}"
            )
        boxes = [None] if squares is None else squares[job]
        return np.array([to_array(opened, **look, box=box) for box in boxes], dtype=np.uint8)

    def refused(problems: Sequence[tuple[int, Exception]]) -> None:
        lines = [f"{images[job].file}: {error}" for job, error in problems]
        refuse(root, lines, len(images), "images")

    look = {"size": options.size, "resize": options.resize, "colour": options.colour}
    sizes = [(image.width, image.height) for image in images]
    return decoded(
        root,
        [image.file for image in images],
        (look, sizes, squares, PIL.__version__),
        shape=(1 if options.colour == "grey" else 3, *options.size),
        jobs=Jobs(
            counts=[1] * len(images) if squares is None else [len(own) for own in squares],
            read=read,
            refused=BadImage,
            refuse=refused,
        ),
    )
