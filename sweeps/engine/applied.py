"""The networks of a committed cell, put to use on images that it never saw."""

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from imaging_core import datasets
from imaging_core.datasets import ImageDataset
from imaging_core.datasets.images import FORMAT_OF_SUFFIX, read_images
from imaging_core.fields import ConfigError, rebuilt
from imaging_core.keeping import Applied, Kept
from imaging_core.task import Arrays, Task, load_function
from sweeps.engine.stages import StageStore
from sweeps.engine.study import place_data, split_data
from sweeps.ledger.cells import committed_keys, read_rows
from sweeps.ledger.files import Store
from sweeps.ledger.schema import LedgerError
from sweeps.ledger.weights import read_weights


@dataclass(frozen=True, kw_only=True)
class KeptCell:
    """A cell whose networks are there.

    Attributes:
        row: the cell's row in the ledger.
        task: its core.
        kept: what the core applies.
        stages: the stages beside the study, which may hold the cell's pool.
    """

    row: Mapping[str, Any]
    task: Task
    kept: Kept
    stages: StageStore


def find_cell(text: str) -> tuple[Store, str]:
    """`results/kshot/KEY` (or `results/kshot/cells/KEY.parquet`, or the first letters of the key)
    → the study's folder, and the whole key.

    Raises:
        LedgerError: no such cell, or several.
    """
    root, _, name = text.rstrip("/").removesuffix(".parquet").rpartition("/")
    root = root.removesuffix("/cells")
    if not root:
        raise LedgerError(
            f'a cell is named by its study\'s folder and key, results/STUDY/KEY, got "{text}"'
        )
    store = Store(root)
    keys = committed_keys(store)
    found = sorted(key for key in keys if key.startswith(name))
    if len(found) != 1 or not name:
        raise LedgerError(
            f'the key must be that of one committed cell of {root}, "{name}" is that of '
            f"{len(found)} of {len(keys)}; the report and the column key of the ledger name them"
        )
    return store, found[0]


def load_row(text: str) -> tuple[Store, dict[str, Any], Task]:
    """The study's folder, the row and the core of the cell that `text` names (see `find_cell`).

    Raises:
        LedgerError: there is none, or another version computed it.
    """
    store, key = find_cell(text)
    row = read_rows(store, "cells", {key})[0].get(key)
    if row is None:
        raise LedgerError(f"cell {key} of {store.root} cannot be read; run its study again")
    task: Task = load_function(f"{row['core']}.task:TASK")
    if row["core_version"] != task.version:
        raise LedgerError(
            f"cell {key} is of {row['core']} version {row['core_version']}, this code has "
            f"{task.version}; use the code that wrote it"
        )
    return store, row, task


def config_of(row: Mapping[str, Any], task: Task) -> Any:
    """The configuration that the row holds."""
    return rebuilt(task.config, json.loads(row["config"]))


def stages_beside(store: Store) -> StageStore:
    """The stages that a study's folder shares with the others beside it."""
    above = store.root.rstrip("/").rpartition("/")[0] or "."
    return StageStore(Store(f"{above}/stages"))


def load_cell(text: str) -> KeptCell:
    """The cell that `text` names (see `find_cell`), with its networks.

    Raises:
        LedgerError: there is none, its networks were not kept, or another version computed it.
    """
    store, row, task = load_row(text)
    key = row["key"]
    said, arrays = read_weights(store, key)
    kept = Kept(
        config=config_of(row, task),
        seed=row["seed"],
        classes=said.classes,
        channels=said.channels,
        size=said.size,
        arrays=arrays,
    )
    return KeptCell(row=row, task=task, kept=kept, stages=stages_beside(store))


def own_data(row: Mapping[str, Any]) -> ImageDataset:
    """The data that the cell of `row` was computed on.

    Raises:
        ConfigError: it is not there, or is not what it was.
    """
    data = datasets.load(*split_data(row["data"]), row["protocol"])
    if data.fingerprint != row["data_fingerprint"]:
        raise ConfigError(
            f"the data at {row['data']} must be what the cell was computed on "
            f"({row['data_fingerprint'][:12]}), it is {data.fingerprint[:12]}"
        )
    return data


def data_of(text: str, cell: KeptCell) -> ImageDataset:
    """The dataset `text` (as `--data`), whose images must be as the cell's.

    Raises:
        ConfigError: another shape, or classes that the cell does not know.
    """
    data = datasets.load(*split_data(place_data(text)))
    kept = cell.kept
    if (data.channels, data.size) != (kept.channels, kept.size):
        raise ConfigError(
            f"--data must have images as the cell's, {_shape(kept.channels, kept.size)}, got "
            f"{_shape(data.channels, data.size)}; say so behind the path: "
            f"{options(kept.channels, kept.size)}"
        )
    return data


def _shape(channels: int, size: tuple[int, int]) -> str:
    return f"{channels} × {size[0]} × {size[1]} (channels × height × width)"


def options(channels: int, size: tuple[int, int]) -> str:
    """What stands behind the path of `folder`, so that images have this shape."""
    return f"?size={size[0]}x{size[1]}&colour={'grey' if channels == 1 else 'rgb'}"


def images_in(folder: str, kept: Kept) -> tuple[np.ndarray, list[str]]:
    """(N, C, H, W) uint8 of all images under `folder`, and their paths inside it, sorted.

    Raises:
        ConfigError: no folder, or none with images.
        DataError: an image breaks a rule.
    """
    root = Path(folder).expanduser().absolute()
    names = sorted(
        path.relative_to(root).as_posix()
        for path in (root.rglob("*") if root.is_dir() else ())
        if path.suffix.lower() in FORMAT_OF_SUFFIX
    )
    if not names:
        raise ConfigError(f"--images must be a folder with images, {root} holds none")
    colour = "grey" if kept.channels == 1 else "rgb"
    return read_images(root, names, size=kept.size, resize="bilinear", colour=colour), names


def own_pool(row: Mapping[str, Any], stages: StageStore) -> Arrays:
    """The candidates that the cell chose from, as `selection_core.pool` has them.

    Raises:
        LedgerError: the cell has no pool, or it is not stored any more.
    """
    key = dict(row["stage_keys"]).get("pool")
    if key is None:
        raise LedgerError(f"cell {row['key']} chose from no pool")
    found = stages.load(key)
    if found is None:
        raise LedgerError(
            f"the pool of cell {row['key']} is not in {stages.store.root} ({key}); give the "
            "results folder that its study was computed in"
        )
    return found


def apply_to(
    cell: KeptCell, images: np.ndarray, labels: np.ndarray | None = None, *, device: str = "cpu"
) -> Applied:
    """What the cell's networks say of `images` (N, C, H, W) uint8; `labels` make them a pool."""
    from sweeps.engine.worker import prepare_process

    prepare_process()
    return importlib.import_module(cell.task.applying).apply(
        cell.kept, images, labels, device=device
    )
