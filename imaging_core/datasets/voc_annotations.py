"""Reading Pascal VOC annotations: which boxes an image has."""

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from imaging_core.datasets.base import DataError
from imaging_core.datasets.images import FORMAT_OF_SUFFIX, BadImage, refuse
from imaging_core.datasets.text import one_form

MAX_XML_BYTES = 1_000_000  # an annotation is a few kilobytes

Square = tuple[float, float, float, float]
"""left, top, right, bottom in pixels; right and bottom are exclusive."""


@dataclass(frozen=True, kw_only=True)
class Box:
    name: str
    left: float  # pixels; right and bottom are exclusive
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, kw_only=True)
class Annotated:
    """One image: its name without suffix, its file relative to the root, its boxes."""

    stem: str
    file: str
    width: int
    height: int
    boxes: tuple[Box, ...]


def read_annotations(
    root: Path, *, unannotated: str = "refuse", degenerate: str = "refuse"
) -> list[Annotated]:
    """Every annotation of `Annotations`, sorted by name.

    Args:
        root: of the VOC layout.
        unannotated: "refuse" images that have no annotation, or "skip" them.
        degenerate: "refuse" boxes whose ends are equal, or "drop" them (BCCD has two).

    Raises:
        DataError: an annotation or an image's name breaks a rule; all of them are listed.
    """
    folder = root / "Annotations"
    files = sorted(f for f in folder.glob("[!.]*") if f.suffix.lower() == ".xml" and f.is_file())
    if not files:
        raise DataError(f"{root} must hold Annotations/*.xml and JPEGImages (Pascal VOC layout)")
    found = _images_of(root)
    images, problems, stems = [], [], set()
    spelled: dict[str, tuple[str, str]] = {}
    for file in files:
        try:
            if file.stem in stems:
                raise BadImage("an image must have one annotation, this one has several")
            stems.add(file.stem)
            images.append(_read_annotation(file, found, drop=degenerate == "drop"))
            _same_spelling(file, images[-1], spelled)
        except BadImage as error:
            problems.append(f"{file.name}: {error}")
    refuse(folder, problems, len(files), "annotations")
    without = sorted(name for stem, name in found.items() if stem not in stems)
    if without and unannotated == "refuse":
        rule = (
            "it must have an annotation (one without objects, if it shows none); "
            "?unannotated=skip leaves it out"
        )
        refuse(root / "JPEGImages", [f"{name}: {rule}" for name in without], len(found), "images")
    return images


def images_without(root: Path, images: list[Annotated]) -> list[str]:
    """The names of the images in `JPEGImages` that none of `images` is."""
    known = {image.stem for image in images}
    return sorted(name for stem, name in _images_of(root).items() if stem not in known)


def _images_of(root: Path) -> dict[str, str]:
    """Name without suffix → the one image file of `JPEGImages` that has it."""
    found: dict[str, str] = {}
    problems, total = [], 0
    for file in sorted((root / "JPEGImages").glob("[!.]*")):
        if file.suffix.lower() in FORMAT_OF_SUFFIX:
            total += 1
            if (other := found.setdefault(file.stem, file.name)) != file.name:
                problems.append(
                    f"{file.name}: an annotation must mean one image, {other} has the same name; "
                    "remove or rename one"
                )
    refuse(root / "JPEGImages", problems, total, "images")
    return found


def _same_spelling(file: Path, image: Annotated, spelled: dict[str, tuple[str, str]]) -> None:
    for box in image.boxes:
        first, where = spelled.setdefault(one_form(box.name), (box.name, file.name))
        if first != box.name:
            raise BadImage(
                f'object "{box.name}" must be spelled as in {where} ("{first}"), or differ in '
                "more than case, spaces or Unicode form"
            )


def _read_annotation(file: Path, found: dict[str, str], *, drop: bool) -> Annotated:
    if file.stem not in found:
        raise BadImage(f"JPEGImages must hold an image of the same name ({file.stem}.jpg)")
    if file.stat().st_size > MAX_XML_BYTES:
        raise BadImage(f"an annotation must have at most {MAX_XML_BYTES} bytes")
    try:
        tree = ElementTree.fromstring(file.read_bytes())
        size = [int(tree.findtext(f"size/{side}", "")) for side in ("width", "height")]
        if min(size) < 1:
            raise BadImage(f"its size must be at least 1 × 1, got {size[0]} × {size[1]}")
        nodes = [node for node in tree.iter("object") if not (drop and _is_degenerate(node))]
        boxes = tuple(_box(node, *size) for node in nodes)
    except BadImage:
        raise
    except OSError as error:
        raise BadImage(f"it must be a file that can be read: {error.strerror}") from None
    except (ElementTree.ParseError, ValueError, LookupError, OverflowError) as error:
        # LookupError: an encoding that nobody knows
        raise BadImage(f"it must be a Pascal VOC annotation: {error}") from None
    return Annotated(
        stem=file.stem,
        file=f"JPEGImages/{found[file.stem]}",
        width=size[0],
        height=size[1],
        boxes=boxes,
    )


def _corners(node: ElementTree.Element) -> dict[str, float]:
    return {
        side: float(node.findtext(f"bndbox/{side}", ""))
        for side in ("xmin", "ymin", "xmax", "ymax")
    }


def _is_degenerate(node: ElementTree.Element) -> bool:
    corners = _corners(node)
    return corners["xmin"] == corners["xmax"] or corners["ymin"] == corners["ymax"]


def _box(node: ElementTree.Element, width: int, height: int) -> Box:
    corners = _corners(node)
    name = (node.findtext("name") or "").strip()
    if not name:
        raise BadImage("each object must have a name, one has none")
    for axis, side in (("x", width), ("y", height)):
        least, most = corners[f"{axis}min"], corners[f"{axis}max"]
        if not (math.isfinite(least) and math.isfinite(most)):
            raise BadImage(f'{axis}min and {axis}max of "{name}" must be finite numbers')
        if least == most:
            raise BadImage(
                f'{axis}min < {axis}max must hold for each box, "{name}" has {least:g} twice; '
                "?degenerate=drop leaves such boxes out"
            )
        if not 0 <= least < most <= side:
            raise BadImage(
                f'0 ≤ {axis}min < {axis}max ≤ {side} must hold for each box, "{name}" has '
                f"{least:g} and {most:g}"
            )
    # VOC counts pixels from 1 and includes the last one
    return Box(
        name=name,
        left=corners["xmin"] - 1,
        top=corners["ymin"] - 1,
        right=corners["xmax"],
        bottom=corners["ymax"],
    )


def square_around(box: Box, width: int, height: int) -> Square:
    """(left, top, right, bottom) of the square about a box, moved (and cut) into the image."""
    side = min(max(box.right - box.left, box.bottom - box.top), width, height)
    left = min(max((box.left + box.right - side) / 2, 0), width - side)
    top = min(max((box.top + box.bottom - side) / 2, 0), height - side)
    return left, top, left + side, top + side
