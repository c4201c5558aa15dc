"""From cells to the numbers of a table: selection by levels, mean and std over seeds, n."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pandas as pd

from analysis.reading import Same
from analysis.table import MISSING, Entry, mean_std
from sweeps.ledger.read import Ledger
from sweeps.ledger.schema import Manifest


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How a metric is read and printed. `higher_is_better` is None where neither way is."""

    name: str
    label: str
    higher_is_better: bool | None
    fraction: bool
    digits: int = 3


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """One metric over the seeds of one selection.

    Attributes:
        mean, std: over the cells that are there (std with ddof = 1, None below two).
        n, planned, failed: cells there, cells planned, cells that failed. None is planned where
            every cell is there and none has the metric: this arm has no such quantity.
        keys: of every planned cell of the selection, in seed order.
    """

    mean: float | None
    std: float | None
    n: int
    planned: int
    failed: int
    keys: tuple[str, ...]


def metric_table(manifest: Manifest) -> dict[str, Metric]:
    """The study's metrics by name, as its manifest declares them."""
    return {
        entry["name"]: Metric(
            name=entry["name"],
            label=entry.get("label") or entry["name"],
            higher_is_better=entry.get("higher_is_better"),
            fraction=entry.get("low") == 0 and entry.get("high") == 1,
        )
        for entry in manifest.metrics
    }


def data_names(manifest: Manifest) -> tuple[str, ...]:
    """Names of the study's datasets, without paths and options ("mura:PATH?part=…" is "mura").

    Images of one's own go by the name of their folder: "folder:/data/hipfx?size=224" is "hipfx".
    """

    def name(text: str) -> str:
        loader, _, path = re.split(r"\?", text.strip())[0].partition(":")
        own = path.rstrip("/").rpartition("/")[2] if loader == "folder" else ""
        return own.lower() or loader

    return tuple(dict.fromkeys(map(name, manifest.data.split(", "))))


def body_part(data: str) -> str | None:
    """`"elbow"` of `"mura:PATH?part=XR_ELBOW"` or `"mura:PATH/XR_ELBOW"`; None where none is."""
    found = re.search(r"part=(?:XR_)?([A-Za-z]+)|XR_([A-Z]+)", data)
    return (found[1] or found[2]).lower() if found else None


def hip_view(data: str) -> str | None:
    """`"whole"` or `"bounded"` of `"phantom-xray:hip-whole"` and the like; None where none is."""
    found = re.search(r"\b(whole|bounded)\b", data)
    return found[1] if found else None


NEEDED = frozenset({"key", "arm", "seed", "status", "config"})
"""Columns of a table's cells, beside their levels and metrics."""
READ_FROM_DATA = {"body_part": body_part, "view": hip_view}
"""What the papers' tables call rows and our studies call datasets."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """What a study varies, as the papers' tables speak of it.

    Attributes:
        cells: of the ledger's frame what a table needs, with the factors of READ_FROM_DATA where
            the data name them.
        factors: factor → levels, those that vary or are declared.
        fixed: configuration field → its value as text, of fields that no arm varies.
    """

    cells: pd.DataFrame
    factors: Mapping[str, tuple[str, ...]]
    fixed: Mapping[str, str]


def design_of(ledger: Ledger) -> Design:
    """The study's factors, body parts and views read from the names of its data."""
    return _design(Same(ledger))


@lru_cache(maxsize=1)
def _design(same: Same[Ledger]) -> Design:
    ledger = same.thing
    # A table asks for the cells of each of a thousand arms, and would copy all columns of each.
    needed = [
        name
        for name in ledger.cells.columns
        if name in NEEDED or name.startswith(("factor.", "metric."))
    ]
    cells, factors = ledger.cells[needed], dict(ledger.manifest.factors)
    fixed: dict[str, str] = {}
    there = cells.loc[cells["status"] == "ok", "config"]
    if len(there):
        config: Mapping[str, Any] = json.loads(there.iloc[0])
        fixed = {name: str(value) for name, value in config.items() if name not in factors}
    for name, read in READ_FROM_DATA.items():
        found = [read(level) for level in factors.get("data", ())]
        if found and all(found) and len(set(found)) == len(found):
            cells = cells.assign(**{f"factor.{name}": cells["factor.data"].map(read)})
            factors[name] = tuple(str(level) for level in found)
            del factors["data"]
        elif "data" not in factors and read(ledger.manifest.data):
            fixed[name] = str(read(ledger.manifest.data))
    return Design(cells=cells, factors=factors, fixed=fixed)


def in_order(levels: tuple[str, ...], factor: str = "") -> tuple[str, ...]:
    """Levels in numerical order where they are numbers, else as declared.

    "all" is more than any number, and so is 0 of `k_shot`, which means every image.
    """

    def value(level: str) -> float:
        every = level == "all" or (factor == "k_shot" and level == "0")
        return float("inf") if every else float(level)

    try:
        return tuple(sorted(levels, key=value))
    except ValueError:
        return levels


def level_name(factor: str, level: str) -> str:
    """A level as a reader takes it: 0 of `k_shot` is "all", a dataset goes without its path."""
    if factor == "data":
        loader, _, path = level.partition("?")[0].partition(":")
        return body_part(level) or path.rstrip("/").rpartition("/")[2] or loader
    return "all" if factor == "k_shot" and level == "0" else level


def level_names(factor: str, levels: Iterable[str]) -> dict[str, str]:
    """`level_name` of each level; as they are where two would have the same name."""
    names = {level: level_name(factor, level) for level in levels}
    return names if len(set(names.values())) == len(names) else {level: level for level in names}


def select(cells: pd.DataFrame, levels: Mapping[str, str]) -> pd.DataFrame:
    """The rows of `cells` whose factors have these levels; unknown factors never match.

    Raises:
        KeyError: the study has no such factor.
    """
    return cells.iloc[_rows(cells, levels)]


def has(cells: pd.DataFrame, levels: Mapping[str, str]) -> bool:
    """Whether `select` finds any, without copying them."""
    return bool(_rows(cells, levels))


def _rows(cells: pd.DataFrame, levels: Mapping[str, str]) -> list[int]:
    for name in levels:
        if f"factor.{name}" not in cells:
            raise KeyError(f"this study has no factor {name!r}")
    found = _rows_by_levels(Same(cells), tuple(levels))
    return found.get(tuple(map(str, levels.values())), [])


@lru_cache(maxsize=8)
def _rows_by_levels(
    same: Same[pd.DataFrame], names: tuple[str, ...]
) -> dict[tuple[str, ...], list[int]]:
    """Levels of these factors → the rows that have them: a study of 1,000 arms asks 7,000 times."""
    found: dict[tuple[str, ...], list[int]] = {}
    if not names:
        return {(): list(range(len(same.thing)))}
    columns = (same.thing[f"factor.{name}"].tolist() for name in names)
    for row, levels in enumerate(zip(*columns, strict=True)):
        found.setdefault(levels, []).append(row)
    return found


def aggregate(cells: pd.DataFrame, metric: str) -> Aggregate:
    """`metric` over these cells. A failed or missing cell is counted, never averaged."""
    column = f"metric.{metric}"
    values = cells.loc[cells["status"] == "ok", column].dropna() if column in cells else []
    numbers = [float(v) for v in values]
    mean = math.fsum(numbers) / len(numbers) if numbers else None
    std = None
    if len(numbers) > 1:
        std = math.sqrt(math.fsum((v - mean) ** 2 for v in numbers) / (len(numbers) - 1))
    return Aggregate(
        mean=mean,
        std=std,
        n=len(numbers),
        planned=0 if not numbers and (cells["status"] == "ok").all() else len(cells),
        failed=int((cells["status"] == "failed").sum()),
        keys=tuple(cells["key"]),
    )


def count_line(found: Aggregate) -> str:
    """`"n = 4/5"`, or nothing where all planned cells are there."""
    return "" if found.n == found.planned else f"n = {found.n}/{found.planned}"


def entry(
    found: Aggregate,
    *,
    digits: int,
    percent: bool = False,
    under: tuple[str, ...] = (),
    best: bool = False,
) -> Entry:
    """A table entry of mean ± std; a selection without cells is shown as missing."""
    values: dict[str, float | int | str] = {"n": found.n, "n_planned": found.planned}
    values["n_failed"] = found.failed
    if found.mean is None:
        text = MISSING
    else:
        text = mean_std(found.mean, found.std, digits, percent=percent)
        values["mean"] = found.mean
        if found.std is not None:
            values["std"] = found.std
    count = count_line(found) if found.planned else ""
    return Entry(
        text=text,
        under=(*under, *((count,) if count else ())),
        best=best and found.mean is not None,
        values=values,
        keys=found.keys,
        order=found.mean,
    )
