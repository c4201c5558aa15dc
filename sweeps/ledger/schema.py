"""The versioned schema of the ledger, and the key that names a cell.

A reader refuses a version it does not know; a fixture written by each version stays readable for
ever (`tests/assets/`).
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1

CELL_SCHEMA = pa.schema(
    [
        pa.field("schema_version", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # "ok" | "failed"
        pa.field("study", pa.string(), nullable=False),
        pa.field("core", pa.string(), nullable=False),
        pa.field("core_version", pa.int32(), nullable=False),
        pa.field("arm", pa.string(), nullable=False),  # "controller=gru,policy_gradient=ppo"
        pa.field("levels", pa.map_(pa.string(), pa.string()), nullable=False),  # factor → level
        pa.field("config", pa.string(), nullable=False),  # canonical JSON, without the seed
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("data", pa.string(), nullable=False),
        pa.field("data_fingerprint", pa.string(), nullable=False),
        pa.field("protocol", pa.string(), nullable=False),  # "held-out" | "paper"
        pa.field("metrics", pa.map_(pa.string(), pa.float64()), nullable=False),
        pa.field("curves", pa.map_(pa.string(), pa.list_(pa.float64())), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("error_type", pa.string()),
        pa.field("error", pa.string()),
        pa.field("traceback", pa.string()),
        pa.field("git_commit", pa.string(), nullable=False),
        pa.field("git_dirty", pa.bool_(), nullable=False),
        pa.field("versions", pa.map_(pa.string(), pa.string()), nullable=False),
        pa.field("host", pa.string(), nullable=False),
        pa.field("node", pa.string(), nullable=False),  # the Ray node's id, or "inline"
        pa.field("device", pa.string(), nullable=False),
        pa.field("started", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("wall_s", pa.float64(), nullable=False),
        pa.field("cpu_s", pa.float64(), nullable=False),
        pa.field("stage_keys", pa.map_(pa.string(), pa.string()), nullable=False),
        # Written until version 0.1: how many trainings were computed as one network with this
        # cell's; its numbers are then those of separate runs up to rounding. Empty: none.
        pa.field("fused", pa.int32()),
        # Of what the cell's predictions say (`sweeps.ledger.predictions.digest`); "": it has none.
        # Empty in rows that version 0.1 wrote, whose predictions nobody can check.
        pa.field("predictions_sha256", pa.string()),
        # The most memory that the cell's process held, and that torch held on its GPU, in bytes.
        # Empty where nobody could say.
        pa.field("peak_host_bytes", pa.int64()),
        pa.field("peak_device_bytes", pa.int64()),
    ]
)

LATER_COLUMNS = ("fused", "predictions_sha256", "peak_host_bytes", "peak_device_bytes")
"""Columns that came after the first files of this version: absent from a file where all are empty,
so that it is the same file as before they came."""

KEY_COLUMNS = ("key", "core", "core_version", "config", "seed", "data_fingerprint")
"""A cell's key, and what it is a hash of (with the schema's version)."""

CLASS_SIZES = "class_sizes"
"""Of `Manifest.extra`: dataset as in `data` → class → its images in all parts together."""

DESIGN = "design"
"""Of `Manifest.extra`: what `--design` asked for; not there where the study says itself."""

PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),  # "validation" | "test"
        pa.field("id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("probabilities", pa.list_(pa.float32()), nullable=False),
    ]
)


def without_empty(table: pa.Table) -> pa.Table:
    """`table` (of cells) less the later columns that hold nothing."""
    there = [n for n in LATER_COLUMNS if n in table.column_names]
    empty = [n for n in there if table[n].null_count == table.num_rows]
    return table.drop_columns(empty) if empty else table


class LedgerError(RuntimeError):
    """The ledger cannot be used as it is; the message says why and what to do."""


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical(values: Any) -> str:
    """JSON with sorted keys and no spaces: equal mappings give equal text on every machine.

    Raises:
        ValueError: a NaN or infinity, which JSON cannot hold.
    """
    return _ENCODER.encode(values)


def cell_key(
    core: str, core_version: int, config: Mapping[str, Any], seed: int, data_fingerprint: str
) -> str:
    """The name of a cell: a hash of everything its numbers depend on."""
    return cell_keys(core, core_version, canonical(dict(config)), [seed], data_fingerprint)[0]


def cell_keys(
    core: str, core_version: int, config: str, seeds: Iterable[int], data_fingerprint: str
) -> list[str]:
    """`cell_key` of each seed; `config` is the configuration as `canonical` text."""
    key = key_of_seed(core, core_version, config, data_fingerprint)
    return [key(seed) for seed in seeds]


@lru_cache(maxsize=4096)  # whoever checks a compacted file comes by its arms again and again
def key_of_seed(
    core: str, core_version: int, config: str, data_fingerprint: str
) -> Callable[[int], str]:
    """`cell_key` of any seed; `config` is the configuration as `canonical` text."""
    before_seed, after_seed = _around_seed(core, core_version, data_fingerprint)
    # The configuration sorts first, and is hashed once.
    common = hashlib.sha256(f'{{"config":{config},{before_seed}'.encode())

    def key(seed: int) -> str:
        digest = common.copy()
        digest.update(f"{seed}{after_seed}".encode())
        return digest.hexdigest()[:32]

    return key


@cache
def _around_seed(core: str, core_version: int, data_fingerprint: str) -> tuple[str, str]:
    """What of a cell's identity stands between its configuration and its seed, and what after."""
    identity = {
        "core": core,
        "data": data_fingerprint,
        "schema": SCHEMA_VERSION,
        "seed": 0,
        "version": core_version,
    }
    head, seed_name, tail = canonical(identity)[1:].partition('"seed":')
    return head + seed_name, tail[1:]


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One cell of the plan, as `study.json` lists it."""

    key: str
    arm: str
    levels: Mapping[str, str]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`study.json`: what the study declared and what was last planned.

    Attributes:
        study, question: the study's name and the question it answers.
        core: the core's package.
        factors: factor → its levels as text, in the order of the plan.
        baseline: the levels of the arm that others are compared with.
        seeds: the reporting seeds.
        preset, data, protocol: as asked for on the command line.
        data_fingerprint, data_card: of the data the cells were planned on.
        tables: names of the published tables this study rebuilds (`analysis/published`).
        metrics: the metric table, one mapping per metric: name, label, higher_is_better, low,
            high, meaning.
        cells: every planned cell.
    """

    study: str
    question: str
    core: str
    factors: Mapping[str, tuple[str, ...]]
    baseline: Mapping[str, str]
    seeds: tuple[int, ...]
    preset: str
    data: str
    protocol: str
    data_fingerprint: str
    data_card: str
    tables: tuple[str, ...]
    metrics: tuple[Mapping[str, Any], ...]
    cells: tuple[PlannedCell, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def arm_label(levels: Mapping[str, str]) -> str:
    """`"controller=gru,policy_gradient=ppo"`, in the order of the factors."""
    return ",".join(f"{name}={level}" for name, level in levels.items()) or "default"
