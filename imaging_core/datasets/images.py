"""Opening image files that somebody else wrote: an allow-list, and every bad file named at once."""

import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, ImageOps, UnidentifiedImageError

from imaging_core.datasets.base import DataError
from imaging_core.datasets.decoding import Decoded, Jobs, decoded

FORMAT_OF_SUFFIX = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
}
# Pillow would turn 16-bit and float images into 8 bits by clipping at 255, without a word.
DEEP = (
    "scale it to 8 bits yourself, or (dataset folder, grey) say how: ?window=LOW:HIGH or "
    "?percentile=LOW:HIGH"
)
EIGHT_BIT_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
BITS_PER_SAMPLE, ORIENTATION, SAMPLE_FORMAT = 258, 274, 339  # tags of TIFF 6.0 and EXIF
PNG_DEPTH_AT = 24  # the byte of the file: signature, IHDR's length and name, width, height
UNDECODABLE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    EOFError,
    struct.error,
    zlib.error,
)
MODE_OF_COLOUR = {"grey": "L", "rgb": "RGB"}
FILTERS = {
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}


# Of the process: threads cannot each have filters of their own.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)


class BadImage(ValueError):
    """One file breaks a rule; the message is the rule."""


def safe_path(root: Path, name: str) -> Path:
    """The file `name` (a relative POSIX path) inside `root`.

    Raises:
        BadImage: the path is absolute, climbs, leaves `root` through a link, or is no file.
    """
    if name.startswith("/") or ".." in Path(name).parts:
        raise BadImage("the path must be relative and stay inside the dataset's folder")
    path = root / name
    if not path.exists():
        raise BadImage("the file must exist")
    if not path.resolve().is_relative_to(root.resolve()):
        raise BadImage(f"links must stay inside the dataset's folder, this one is {path.resolve()}")
    if not path.is_file():
        raise BadImage("it must be a file")
    return path


def bits_per_channel(image: Image.Image) -> int:
    """The depth that the opened file itself states.

    Pillow's mode does not tell: it reads 16-bit colour as RGB, by dropping the lower byte.
    """
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS_PER_SAMPLE, (1,)))
    if image.format == "PNG":
        image.fp.seek(PNG_DEPTH_AT)
        return image.fp.read(1)[0]
    return 8  # JPEG and BMP: Pillow refuses those with more


TURNED_FROM = "stored orientation"
"""Of a TIFF, among `Image.info`: Pillow turns one as it loads it, and forgets the tag."""


def orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 (as stored) where there is none."""
    found = image.info.get(TURNED_FROM) or image.getexif().get(ORIENTATION, 1)
    return found if found in range(2, 9) else 1


def upright(image: Image.Image) -> Image.Image:
    """The image as viewers show it: turned as its EXIF orientation says."""
    return image if orientation(image) == 1 else ImageOps.exif_transpose(image)


def open_image(root: Path, name: str) -> Image.Image:
    """The decoded 8-bit image; pixels as stored (see `upright`).

    Raises:
        BadImage: the rule that the file breaks.
    """
    path = safe_path(root, name)
    if path.stat().st_size == 0:
        raise BadImage("the file must not be empty (0 bytes)")
    wanted = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if wanted is None:
        allowed = ", ".join(FORMAT_OF_SUFFIX)
        raise BadImage(f'the name must end in one of {allowed}, got "{path.suffix}"')
    try:
        # A stream: Pillow maps a TIFF that it opens by name, and a turned one in the wrong shape.
        with path.open("rb") as stream:
            image = Image.open(stream, formats=sorted(set(FORMAT_OF_SUFFIX.values())))
            # Whoever put back other filters of warnings meanwhile, in whichever thread.
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise Image.DecompressionBombError
            if image.format != wanted:
                raise BadImage(f"the content must be what the name says, it is {image.format}")
            if getattr(image, "n_frames", 1) > 1:
                raise BadImage(f"it must hold one picture, it holds {image.n_frames}")
            if image.mode not in EIGHT_BIT_MODES:
                raise BadImage(f"it must have 8 bits per channel, its mode is {image.mode}; {DEEP}")
            if image.format == "TIFF" and set(image.tag_v2.get(SAMPLE_FORMAT, (1,))) - {1, 4}:
                raise BadImage("its samples must be unsigned integers, they are signed or floats")
            position = image.fp.tell()
            bits = bits_per_channel(image)
            image.fp.seek(position)
            if bits > 8:
                raise BadImage(f"it must have 8 bits per channel, it has {bits}; {DEEP}")
            turned = image.tag_v2.get(ORIENTATION) if image.format == "TIFF" else None
            image.load()
            if turned is not None:
                image.info[TURNED_FROM] = turned
            orientation(image)  # a torn EXIF block is refused here, with the file's name
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        limit = Image.MAX_IMAGE_PIXELS
        raise BadImage(f"it must have at most {limit} pixels (decompression bomb)") from error
    except UnidentifiedImageError as error:
        raise BadImage("the content must be a PNG, JPEG, TIFF or BMP image") from error
    except BadImage:
        raise
    except UNDECODABLE as error:
        raise BadImage(f"it must decode without errors: {error}") from error
    return image


def to_array(
    image: Image.Image,
    *,
    size: tuple[int, int],
    resize: str,
    colour: str,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """(C, H, W) uint8: `image` (or its `box`: left, top, right, bottom) stretched to `size`.

    Pillow's filters average over the source when shrinking (no aliasing); `nearest` does not.
    """
    height, width = size
    image = image.convert(MODE_OF_COLOUR[colour])
    if image.size != (width, height) or box is not None:
        image = image.resize((width, height), FILTERS[resize], box=box)
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, 2, 0)


def read_images(
    root: Path, names: Sequence[str], *, size: tuple[int, int], resize: str, colour: str
) -> np.ndarray:
    """The pixels alone of `decode_images`."""
    return decode_images(root, names, size=size, resize=resize, colour=colour).pixels


def decode_images(
    root: Path,
    names: Sequence[str],
    *,
    size: tuple[int, int],
    resize: str,
    colour: str,
    opened: Callable[[Path, str], Image.Image] | None = None,
    how: tuple[object, ...] = (),
) -> Decoded:
    """(N, C, H, W) uint8 of the files `names` in `root`, and the hash of each image.

    Args:
        opened: `opened(root, name)` opens one upright in 8 bits; by default `open_image` does.
        how: what else that depends on.

    Raises:
        DataError: at least one file breaks a rule; all of them are listed, each with its rule.
    """

    def read(job: int) -> np.ndarray:
        name = names[job]
        image = opened(root, name) if opened else upright(open_image(root, name))
        return to_array(image, size=size, resize=resize, colour=colour)[None]

    def refused(problems: Sequence[tuple[int, Exception]]) -> None:
        lines = [f"{names[job]}: {error}" for job, error in problems]
        refuse(root, lines, len(names), "images")

    jobs = Jobs(counts=[1] * len(names), read=read, refused=BadImage, refuse=refused)
    shape = (1 if colour == "grey" else 3, *size)
    recipe = (size, resize, colour, PIL.__version__, *how)
    return decoded(root, names, recipe, shape=shape, jobs=jobs)


def refuse(
    root: Path, problems: Sequence[str], total: int, what: str, *, broken: int | None = None
) -> None:
    """Raise a DataError that lists all `problems`, if there is one.

    Args:
        broken: how many of the `total` break a rule, where one may break several.
    """
    if problems:
        listed = "\n  ".join(problems)
        count = len(problems) if broken is None else broken
        raise DataError(f"{root}: {count} of {total} {what} break a rule:\n  {listed}")
