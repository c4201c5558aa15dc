"""Options of loaders, as they stand after the `?` of `--data NAME:PATH?size=64&colour=rgb`."""

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl

import pydantic.dataclasses
from pydantic import BeforeValidator, Field

from imaging_core.fields import ConfigError
from imaging_core.places import absolute

Resize = Literal["area", "bicubic", "bilinear", "lanczos", "nearest"]
Colour = Literal["grey", "rgb"]
Duplicates = Literal["refuse", "drop"]


def _size(value: Any) -> Any:
    """`64` → (64, 64); `256x128` → (256, 128), height first."""
    if not isinstance(value, str):
        return value
    sides = value.lower().split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise ValueError("a size is pixels (64) or HEIGHTxWIDTH (256x128)")
    return int(sides[0]), int(sides[-1])


def _shares(value: Any) -> Any:
    """`7:1:2` → (0.7, 0.1, 0.2): train, validation, test."""
    if not isinstance(value, str):
        return value
    try:
        parts = [float(x) for x in value.split(":")]
    except ValueError:
        parts = []
    if len(parts) != 3 or min(parts) <= 0:
        raise ValueError("shares are three positive numbers, train:validation:test (7:1:2)")
    return tuple(x / sum(parts) for x in parts)


def _names(value: Any) -> Any:
    """`normal,fracture` → ("normal", "fracture")."""
    return tuple(value.split(",")) if isinstance(value, str) else value


Size = Annotated[tuple[int, int], BeforeValidator(_size)]
Shares = Annotated[tuple[float, float, float], BeforeValidator(_shares)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How image files become arrays of one size.

    Attributes:
        size: (height, width) that every image is stretched to.
        resize: the filter, pinned because results depend on it.
        colour: `grey` (1 channel, ITU-R 601 luma) or `rgb`.
        duplicates: what happens to an image whose pixels are in two parts: `refuse` the data, or
            `drop` it from training (and validation) in favour of test.
    """

    size: Size = (224, 224)
    resize: Resize = "bilinear"
    colour: Colour = "grey"
    duplicates: Duplicates = "refuse"


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True)
class CarveOptions:
    """How patients are dealt out where the data has no parts of its own."""

    shares: Shares = (0.7, 0.1, 0.2)
    split_seed: int = Field(0, ge=0)


def split_query(path: str | None) -> tuple[str | None, dict[str, str]]:
    """`/data/x?size=64` → (`/data/x`, {"size": "64"}).

    Raises:
        ConfigError: what follows the `?` is no list of name=value, or a name comes twice.
    """
    if path is None or "?" not in path:
        return path, {}
    head, _, query = path.partition("?")
    try:
        pairs = parse_qsl(query, strict_parsing=True, keep_blank_values=True)
    except ValueError:
        raise ConfigError(
            f'options after "?" must be name=value, joined by "&", got "{query}"; '
            "for example ?size=64&colour=rgb"
        ) from None
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f'option "{twice[0]}" must be given once, got "{query}"')
    return head or None, dict(pairs)


def existing(dataset: str, path: str | None, kind: Literal["folder", "file"]) -> Path:
    """The path, which must exist.

    Raises:
        ConfigError: no path, or nothing of this kind there.
    """
    if not path:
        raise ConfigError(f"{dataset} needs a {kind}; write --data {dataset}:PATH")
    found = absolute(path, f"the path of {dataset}")
    try:
        there = found.is_dir() if kind == "folder" else found.is_file()
    except OSError as error:  # a folder on its way that we may not enter, or a name too long
        raise ConfigError(
            f'the path of {dataset} must be a {kind} that can be read, got "{path}" '
            f"({error.strerror})"
        ) from None
    if not there:
        hint = "; between folders stands /" if "\\" in path else ""
        raise ConfigError(f'the path of {dataset} must be a {kind}, "{path}" is none{hint}')
    return found


def held_out_only(dataset: str, protocol: str) -> None:
    """Refuse a protocol other than held-out."""
    if protocol != "held-out":
        raise ConfigError(
            f'{dataset} knows protocol "held-out" only, got "{protocol}": no paper selects and '
            "reports on one part of it"
        )
