"""Checkpoints of a cell or a stage in the making: a file that a killed attempt leaves behind.

It lies in `checkpoints/` of the ledger (of the stages, for a stage), is written whole or not at
all, every few minutes, and goes when the result is committed. An attempt that finds one computes
what is left, to the same bytes. It is a cache: one that is torn, or of other packages, another
version of the core or another kind of device, is not taken.
"""

import contextlib
import inspect
import json
import struct
import time
from collections.abc import Callable
from typing import Any, Protocol

from imaging_core.sections import Sections
from imaging_core.task import Arrays
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.schema import canonical

FOLDER = "checkpoints"
EVERY_S = 180.0
COST = 0.01
"""A save is not made before what was computed since the last one took 1 / COST times as long."""


class Signs(Protocol):
    """Who is told that work goes on."""

    def __call__(self, *, saved: bool) -> None:
        """`saved`: what was computed so far is not lost with this process."""


def no_signs(*, saved: bool) -> None:
    """Tells nobody."""


class StoredCheckpoint(Sections):
    """The checkpoint of one cell or stage.

    Args:
        store: the ledger, or the store of the stages.
        key: of the cell or stage.
        made_by: everything beside the key that the bits of a half-done computation depend on.
        signs: is told at every tick, and of every save.
    """

    def __init__(
        self, store: Store, key: str, *, made_by: Any, signs: Signs = no_signs, tick_s: float = 0.5
    ) -> None:
        self._store, self._name = store, f"{FOLDER}/{key}.safetensors"
        self._made_by, self._signs = canonical(made_by), signs
        self._tick_s = tick_s
        super().__init__(self._read())
        self._there = bool(self._left)
        self._next_sign = 0.0
        self._next_save = time.monotonic() + EVERY_S

    def tick(self) -> None:
        """Save, if it is time; tell that the work goes on."""
        now = time.monotonic()
        if now < min(self._next_sign, self._next_save):
            return
        saved = now >= self._next_save and self._save()
        self._signs(saved=saved)
        self._next_sign = time.monotonic() + self._tick_s

    def forget(self) -> None:
        """The work is over, one way or the other."""
        if self._there:
            with contextlib.suppress(StoreError):  # nobody reads it again
                self._store.delete(self._name)
        self._there = False

    def _save(self) -> bool:
        from safetensors.numpy import save

        began = time.monotonic()
        try:
            arrays = self.arrays()
            # The file sorts by name; curves are in the order in which they were first drawn.
            metadata = {"made_by": self._made_by, "order": json.dumps(list(arrays))}
            content = save(arrays, metadata=metadata)
            self._store.write(self._name, content)
            self._there = True
        except StoreError:  # the computation is not to blame; its commit will say what is wrong
            return False
        finally:
            now = time.monotonic()
            self._next_save = now + max(EVERY_S, (now - began) / COST)
        return True

    def _read(self) -> Arrays | None:
        from safetensors.numpy import load

        try:
            content = self._store.read(self._name)
            metadata = _metadata(content)
            if metadata.get("made_by") != self._made_by:
                return None
            found = load(content)
            return {name: found[name] for name in json.loads(metadata["order"])}
        except (FileNotFoundError, IsADirectoryError):
            return None
        except StoreError:
            raise
        except Exception:  # torn: safetensors has errors of its own
            return None


def _metadata(content: bytes) -> dict[str, str]:
    """What stands in the header of a safetensors file, beside its tensors."""
    (size,) = struct.unpack_from("<Q", content)
    return json.loads(content[8 : 8 + size]).get("__metadata__", {})


def takes_checkpoint(function: Callable[..., Any]) -> bool:
    """Whether a core's function can be gone on with: it has a parameter `checkpoint`."""
    return "checkpoint" in inspect.signature(function).parameters
