"""Reading Pascal VOC annotations: which boxes an image has."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from imaging_core.datasets.base import DataError
from imaging_core.datasets.images import FORMAT_OF_SUFFIX, BadImage, refuse

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


def read_annotations(root: Path) -> list[Annotated]:
    """Every annotation of `Annotations`, sorted by name."""
    folder = root / "Annotations"
    files = sorted(folder.glob("[!.]*.xml"))
    if not files:
        raise DataError(f"{root} must hold Annotations/*.xml and JPEGImages (Pascal VOC layout)")
    found = {
        file.stem: file.name
        for file in sorted((root / "JPEGImages").glob("[!.]*"))
        if file.suffix.lower() in FORMAT_OF_SUFFIX
    }
    images, problems = [], []
    for file in files:
        try:
            images.append(_read_annotation(file, found))
        except BadImage as error:
            problems.append(f"{file.name}: {error}")
    refuse(folder, problems, len(files), "annotations")
    return images


def _read_annotation(file: Path, found: dict[str, str]) -> Annotated:
    if file.stem not in found:
        raise BadImage(f"JPEGImages must hold an image of the same name ({file.stem}.jpg)")
    if file.stat().st_size > MAX_XML_BYTES:
        raise BadImage(f"an annotation must have at most {MAX_XML_BYTES} bytes")
    try:
        tree = ElementTree.fromstring(file.read_bytes())
        size = [int(tree.findtext(f"size/{side}", "")) for side in ("width", "height")]
        boxes = tuple(_box(node) for node in tree.iter("object"))
    except (ElementTree.ParseError, ValueError) as error:
        raise BadImage(f"it must be a Pascal VOC annotation: {error}") from None
    return Annotated(
        stem=file.stem,
        file=f"JPEGImages/{found[file.stem]}",
        width=size[0],
        height=size[1],
        boxes=boxes,
    )


def _box(node: ElementTree.Element) -> Box:
    corners = {
        side: float(node.findtext(f"bndbox/{side}", ""))
        for side in ("xmin", "ymin", "xmax", "ymax")
    }
    # VOC counts pixels from 1 and includes the last one
    return Box(
        name=(node.findtext("name") or "").strip(),
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
