"""Images of more than 8 bits, as grey levels of 8: DICOM, and PNG and TIFF of 16 bits.

What maps to black and what to white is always said: by `window=low:high` (values of the file),
by `percentile=low:high` (of each image), or by the window that a DICOM file itself names. Nothing
is clipped that nobody asked to clip.

DICOM: PS3.3 C.11.1 (rescale to values), C.11.2 (window), C.7.6.3.1.2 (MONOCHROME1 is turned over,
so that white is dense as in MONOCHROME2). Needs pydicom.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from imaging_core.datasets.images import (
    FORMAT_OF_SUFFIX,
    SAMPLE_FORMAT,
    UNDECODABLE,
    BadImage,
    bits_per_channel,
    safe_path,
)

DICOM_SUFFIXES = (".dcm", ".dicom")
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L")
HOW = "add ?window=LOW:HIGH (values of the file) or ?percentile=LOW:HIGH"


def range_of(text: Any) -> Any:
    """`"0:4095"` → (0.0, 4095.0).

    Raises:
        ValueError: not two numbers, the first the smaller.
    """
    if not isinstance(text, str):
        return text
    try:
        low, high = (float(part) for part in text.split(":"))
    except ValueError:
        raise ValueError("it must be two numbers, LOW:HIGH (0:4095)") from None
    if not low < high:
        raise ValueError("it must be LOW:HIGH with LOW below HIGH (0:4095)")
    return low, high


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Which values become black and white.

    Attributes:
        window: values of the file; None: not by value.
        percentile: of each image, within 0 to 100; None: not by percentile.
    """

    window: tuple[float, float] | None = None
    percentile: tuple[float, float] | None = None

    def __bool__(self) -> bool:
        return self.window is not None or self.percentile is not None

    def limits(self, values: np.ndarray) -> tuple[float, float] | None:
        """The values that become 0 and 255; None where nothing was said."""
        if self.window is not None:
            return self.window
        if self.percentile is not None:
            low, high = np.percentile(values, self.percentile)
            if not low < high:
                raise BadImage(f"its percentiles {self.percentile} must differ, both are {low:g}")
            return float(low), float(high)
        return None


def is_dicom(name: str) -> bool:
    """By the end of the name."""
    return name.lower().endswith(DICOM_SUFFIXES)


def to_grey(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """(H, W) uint8: `limits` become 0 and 255, linearly; what lies outside becomes those."""
    low, high = limits
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def open_deep(root: Path, name: str, scale: Scale) -> Image.Image:
    """The image `name` in `root` in 8-bit grey.

    Raises:
        BadImage: the rule that the file breaks.
    """
    path = safe_path(root, name)
    if path.stat().st_size == 0:
        raise BadImage("the file must not be empty (0 bytes)")
    if is_dicom(name):
        return Image.fromarray(_dicom(path, scale))
    values = _deep_pixels(path)
    return Image.fromarray(to_grey(values, scale.limits(values)))


def _deep_pixels(path: Path) -> np.ndarray:
    """(H, W) of a grey PNG or TIFF of 16 bits."""
    wanted = FORMAT_OF_SUFFIX.get(path.suffix.lower())
    if wanted not in ("PNG", "TIFF"):
        raise BadImage(
            "with window or percentile every image must be DICOM, or PNG or TIFF of 16 bits, got "
            f'"{path.suffix}"'
        )
    try:
        with path.open("rb") as stream:
            image = Image.open(stream, formats=[wanted])
            if image.width * image.height > Image.MAX_IMAGE_PIXELS:
                raise BadImage(f"it must have at most {Image.MAX_IMAGE_PIXELS} pixels")
            position = image.fp.tell()
            bits = bits_per_channel(image)
            image.fp.seek(position)
            if bits != 16 or image.mode not in DEEP_MODES:
                raise BadImage(
                    "with window or percentile every image must be grey and have 16 bits, this one "
                    f"has {bits} and mode {image.mode}; keep images of 8 bits in a dataset apart"
                )
            if image.format == "TIFF" and set(image.tag_v2.get(SAMPLE_FORMAT, (1,))) != {1}:
                raise BadImage("its samples must be unsigned integers, they are signed or floats")
            if getattr(image, "n_frames", 1) > 1:
                raise BadImage(f"it must hold one picture, it holds {image.n_frames}")
            return np.asarray(image).astype(np.int64)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BadImage(f"it must have at most {Image.MAX_IMAGE_PIXELS} pixels") from error
    except UnidentifiedImageError as error:
        raise BadImage(f"the content must be what the name says, {wanted}") from error
    except BadImage:
        raise
    except (*UNDECODABLE, struct.error, zlib.error) as error:
        raise BadImage(f"it must decode without errors: {error}") from error


def _dicom(path: Path, scale: Scale) -> np.ndarray:
    """(H, W) uint8 of a DICOM file with one grey frame."""
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
        from pydicom.pixels import apply_modality_lut
    except ImportError:
        raise BadImage(
            "DICOM needs the package pydicom; pip install 'medrl-sweeps[dicom]', or pydicom"
        ) from None
    try:
        found = pydicom.dcmread(path)
        kind = str(found.get("PhotometricInterpretation", ""))
        if kind not in ("MONOCHROME1", "MONOCHROME2"):
            raise BadImage(
                f"it must be grey (MONOCHROME1 or MONOCHROME2), it is {kind or 'unsaid'}"
            )
        if int(found.get("NumberOfFrames", None) or 1) > 1:
            raise BadImage(f"it must hold one frame, it holds {found.NumberOfFrames}")
        if int(found.Rows) * int(found.Columns) > Image.MAX_IMAGE_PIXELS:
            raise BadImage(f"it must have at most {Image.MAX_IMAGE_PIXELS} pixels")
        values = apply_modality_lut(found.pixel_array, found).astype(np.float64)
    except BadImage:
        raise
    except InvalidDicomError as error:
        raise BadImage("the content must be what the name says, DICOM") from error
    except Exception as error:  # pydicom's decoders raise of many kinds
        raise BadImage(f"it must decode without errors: {error}".splitlines()[0]) from error
    limits = scale.limits(values) or _own_window(found)
    grey = to_grey(values, limits)
    return 255 - grey if kind == "MONOCHROME1" else grey


def _own_window(found: Any) -> tuple[float, float]:
    """The file's first window, PS3.3 C.11.2.1.2.1: from c − 0.5 − (w − 1)/2 to c − 0.5 + (w − 1)/2.

    Raises:
        BadImage: it names none, or one of another function than LINEAR.
    """
    centre, width = found.get("WindowCenter"), found.get("WindowWidth")
    if centre is None or width is None:
        raise BadImage(f"it names no window of its own; {HOW}")
    function = str(found.get("VOILUTFunction", "LINEAR"))
    if function != "LINEAR":
        raise BadImage(f"its window must be LINEAR, it is {function}; {HOW}")
    c, w = (float(x if not hasattr(x, "__getitem__") or isinstance(x, str) else x[0])
            for x in (centre, width))  # fmt: skip
    if not w > 1:
        raise BadImage(f"its window must be wider than 1, it is {w:g}; {HOW}")
    return c - 0.5 - (w - 1) / 2, c - 0.5 + (w - 1) / 2


def hashed(group: str) -> str:
    """A patient's identifier as rows may hold it: `"patient-"` and 16 digits of its SHA-256.

    Equal identifiers stay equal; who knows the identifiers can still find theirs.
    """
    return f"patient-{hashlib.sha256(group.encode()).hexdigest()[:16]}"
