"""Whether a row of the ledger is the cell that its key says: what bytes in order cannot tell."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sweeps.ledger.schema import KEY_COLUMNS, key_of_seed

STATUS = {"cells": "ok", "failures": "failed"}
"""What each folder holds."""


def misfits(table: pa.Table, folder: str, *, every: bool) -> dict[int, str]:
    """Place in `table` → why that row is not the cell that its key says.

    What the columns at hand allow is checked: the status, whether each metric is a finite number,
    whether one of them is there twice (which of the two would a table show?), and the key
    against what it is a hash of.

    Args:
        table: rows of `folder`, in the schema's types.
        folder: "cells" or "failures".
        every: whether keys are checked of rows of version 0.1 too. Its tests and the fixture of
            schema version 1 made keys up; what a study wrote has none of those.
    """
    wrong: dict[int, str] = {}
    names = set(table.column_names)
    if {*KEY_COLUMNS, "predictions_sha256"} <= names:
        wrong |= _other_keys(table, every)
    if "metrics" in names:
        wrong |= _no_numbers(table["metrics"])
        wrong |= _named_twice(table["metrics"])
    if "status" in names:
        expected = STATUS[folder]
        for place in _where(pc.not_equal(table["status"], expected)):
            wrong[place] = f"its status is {table['status'][place]}, {folder}/ holds {expected}"
    return wrong


def _where(flags: pa.ChunkedArray) -> list[int]:
    return np.flatnonzero(flags.to_numpy()).tolist() if pc.any(flags).as_py() else []


def _no_numbers(metrics: pa.ChunkedArray) -> dict[int, str]:
    wrong = {}
    for number, chunk in enumerate(metrics.chunks):
        values = chunk.items.to_numpy(zero_copy_only=False)  # NaN for an empty one
        if np.isfinite(values).all():
            continue
        before = sum(len(other) for other in metrics.chunks[:number])
        for place, row in enumerate(chunk):
            bad = not_finite(dict(row.as_py() or ()))
            if bad:
                wrong[before + place] = f"metrics must be finite, got {bad}"
    return wrong


def _named_twice(metrics: pa.ChunkedArray) -> dict[int, str]:
    chunks = [chunk for chunk in metrics.chunks if len(chunk)]
    if not chunks:
        return {}
    # By hand: pyarrow's list_parent_indices (26.0) aborts the process when it is given maps.
    counts = np.concatenate([np.diff(chunk.offsets.to_numpy()) for chunk in chunks])
    names = pa.concat_arrays([_names(chunk) for chunk in chunks]).dictionary_encode()
    rows = np.repeat(np.arange(len(counts)), counts)
    pairs = np.sort(rows * len(names.dictionary) + names.indices.to_numpy(), kind="stable")
    twice = pairs[1:][pairs[1:] == pairs[:-1]].tolist()
    places = (divmod(pair, len(names.dictionary)) for pair in twice)
    return {row: f"its metric {names.dictionary[name]} is there twice" for row, name in places}


def _names(maps: pa.MapArray) -> pa.Array:
    """The keys of all rows, one after the other."""
    first, last = maps.offsets[0].as_py(), maps.offsets[-1].as_py()
    return maps.keys.slice(first, last - first)


def not_finite(metrics: Mapping[str, float | None]) -> str:
    """The metrics that are NaN, infinite or empty, as text; empty where all are numbers."""
    bad = sorted(k for k, v in metrics.items() if v is None or not math.isfinite(v))
    return ", ".join(f"{name}={metrics[name]}" for name in bad)


def _other_keys(table: pa.Table, every: bool) -> dict[int, str]:
    texts = pc.dictionary_encode(table["config"]).combine_chunks()
    configs = texts.dictionary.to_pylist()
    columns = [table[name].to_pylist() for name in ("core", "core_version", "data_fingerprint")]
    checked = [every] * len(table)
    if not every:
        checked = pc.is_valid(table["predictions_sha256"]).to_pylist()
    wrong = {}
    last: Any = None
    for place, (check, key, seed, *same) in enumerate(
        zip(
            checked,
            table["key"].to_pylist(),
            table["seed"].to_pylist(),
            texts.indices.to_pylist(),
            *columns,
            strict=True,
        )
    ):
        if not check:
            continue
        if same != last:
            last, (config, core, version, data) = same, same
            key_of = key_of_seed(core, version, configs[config], data)
        if key_of(seed) != key:
            wrong[place] = OTHER_KEY
    return wrong


OTHER_KEY = "its key is not that of its core, version, configuration, seed and data"
