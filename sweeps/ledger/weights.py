"""The networks of cells, where a run kept them: beside the cell, stored by content.

    weights/<sha256>.safetensors   the arrays; equal networks are one file
    weights/<key>.json             which file is the cell's, and what using it takes

A cell's own files are the same with and without them.
"""

import hashlib
import json

import numpy as np
from pydantic import BaseModel, Field

from sweeps.ledger.books import Book, Damaged
from sweeps.ledger.files import Store
from sweeps.ledger.schema import LedgerError

FOLDER = "weights"


class WeightsFile(BaseModel):
    """`weights/<key>.json`.

    Attributes:
        sha256, bytes: of the file of arrays.
        classes: names, in the order of the probabilities.
        channels, size: of the images, (H, W).
    """

    sha256: str
    bytes: int = Field(ge=0)
    classes: tuple[str, ...]
    channels: int = Field(ge=1)
    size: tuple[int, int]


WEIGHTS_BOOK: Book[WeightsFile] = Book(WeightsFile)


def write_weights(
    store: Store,
    key: str,
    arrays: dict[str, np.ndarray],
    *,
    classes: tuple[str, ...],
    channels: int,
    size: tuple[int, int],
) -> int:
    """Store a cell's networks; returns how many bytes their file has.

    The file that names the cell goes last, and its presence means that the arrays are whole.
    """
    from safetensors.numpy import save

    content = save({name: np.asarray(a, order="C") for name, a in arrays.items()})
    sha = hashlib.sha256(content).hexdigest()
    if not store.exists(f"{FOLDER}/{sha}.safetensors"):
        store.write(f"{FOLDER}/{sha}.safetensors", content)
    said = WeightsFile(
        sha256=sha, bytes=len(content), classes=classes, channels=channels, size=size
    )
    store.write(f"{FOLDER}/{key}.json", json.dumps(said.model_dump()).encode())
    return len(content)


def kept_keys(store: Store) -> set[str]:
    """Keys of the cells whose networks are there."""
    return {name.removesuffix(".json") for name in store.names(FOLDER, ".json")}


def read_weights(store: Store, key: str) -> tuple[WeightsFile, dict[str, np.ndarray]]:
    """A cell's networks, `<group>/<name>` → array, and what using them takes.

    Raises:
        LedgerError: none were kept, or they are damaged.
    """
    from safetensors.numpy import load

    name = f"{FOLDER}/{key}.json"
    again = "compute the cell with --keep weights into another --results"
    try:
        said = WEIGHTS_BOOK.read(store, name)
    except Damaged as error:
        raise LedgerError(f"{error}; {again}") from None
    if said is None:
        raise LedgerError(f"the networks of cell {key} were not kept in {store.root}; {again}")
    try:
        content = store.read(f"{FOLDER}/{said.sha256}.safetensors")
    except FileNotFoundError:
        raise LedgerError(
            f"{FOLDER}/{said.sha256}.safetensors in {store.root} is not there; {again}"
        ) from None
    if hashlib.sha256(content).hexdigest() != said.sha256:
        raise LedgerError(
            f"{FOLDER}/{said.sha256}.safetensors in {store.root} is damaged (its content is not "
            f"what its name says); {again}"
        )
    return said, load(content)
