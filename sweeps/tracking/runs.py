"""What a tracker gets of one cell: its row, as a run with parameters, metrics and curves."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sweeps.ledger.cells import read_rows
from sweeps.ledger.files import Store


@dataclass(frozen=True, kw_only=True)
class CellRun:
    """One committed cell.

    Attributes:
        key: of the cell.
        name: fit for a folder, and unique: arm, seed and the first letters of the key.
        started: when the cell was computed, seconds since 1970.
        wall_s: how long it took.
        tags: study, arm, data, protocol, commit, host, device.
        levels: factor → level, a number where it reads as one, and the seed.
        parameters: the configuration, the factors' levels and the seed.
        metrics: name → value.
        curves: name → one value per step, from step 0.
    """

    key: str
    name: str
    started: float
    wall_s: float
    tags: Mapping[str, str]
    levels: Mapping[str, str | float]
    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    curves: Mapping[str, list[float]]


def plain(label: str) -> str:
    """An arm's label, fit for a folder."""
    return re.sub(r"[^\w=,.-]+", "-", label)[:120]


def live_name(key: str, label: str) -> str:
    """The name of something that runs: its arm or stage, and the last letters of its key."""
    return f"{plain(label)}_{key[-8:]}"


def run_of(row: Mapping[str, Any]) -> CellRun:
    """The run of a row of the ledger whose cell succeeded."""
    tags = ("study", "core", "arm", "data", "protocol", "git_commit", "host", "device")
    return CellRun(
        key=row["key"],
        name=f"{plain(row['arm'])}_seed{row['seed']}_{row['key'][:8]}",
        started=row["started"].timestamp(),
        wall_s=row["wall_s"],
        tags={name: str(row[name]) for name in tags} | {"cell": row["key"]},
        levels={**{k: _number(v) for k, v in dict(row["levels"]).items()}, "seed": row["seed"]},
        parameters={**json.loads(row["config"]), **dict(row["levels"]), "seed": row["seed"]},
        metrics=dict(row["metrics"]),
        curves={name: list(values) for name, values in dict(row["curves"]).items()},
    )


def _number(level: str) -> str | float:
    try:
        return float(level)
    except ValueError:
        return level


def runs_of(store: Store, keys: Iterable[str]) -> list[CellRun]:
    """The runs of those cells among `keys` that are committed and whole, in the order of `keys`."""
    keys = list(keys)
    rows, _ = read_rows(store, "cells", set(keys))
    return [run_of(rows[key]) for key in keys if key in rows]
