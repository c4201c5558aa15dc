"""Stages: what several cells share is computed once and stored by content.

A stage lives in `<results>/stages/<name>-<key>.safetensors`, with the SHA-256 of its bytes beside
it. The key covers the stage's inputs, the core's version, the data and the keys of what it needs,
so a changed input is another file and nothing is ever stale.
"""

import fcntl
import hashlib
import json
import os
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import numpy as np

from imaging_core.datasets import ImageDataset
from imaging_core.keeping import keeping
from imaging_core.task import Arrays, Stage, Task, clock, load_function
from sweeps.engine.checkpoints import StoredCheckpoint, takes_checkpoint
from sweeps.ledger.books import STAGE_BOOK, Damaged
from sweeps.ledger.files import Store
from sweeps.ledger.lock import NO_LOCKS
from sweeps.ledger.schema import canonical

CACHED_STAGES = 16
RACE_S = 0.5
"""Before a stage whose checksum does not match is read again: on an object store two machines may
store one at once, and their two files each come whole but not at the same moment."""
ASK_EACH = 32
"""Up to so many stages are looked up one by one; for more, the folder is listed."""


def stage_key(task: Task, stage: Stage, data_fingerprint: str) -> str:
    """The name of a stage's file: a hash of everything its arrays depend on."""
    needs = {n: stage_key(task, need, data_fingerprint) for n, need in stage.needs.items()}
    identity = canonical(
        {
            "core": task.name,
            "version": task.version,
            "stage": stage.name,
            "inputs": dict(stage.inputs),
            "data": data_fingerprint,
            "needs": needs,
        }
    )
    return f"{stage.name}-{hashlib.sha256(identity.encode()).hexdigest()[:24]}"


def flatten(
    task: Task, stages: Mapping[str, Stage], data_fingerprint: str
) -> dict[str, tuple[Stage, tuple[str, ...]]]:
    """Key → (stage, keys it needs), needs before whatever needs them."""
    found: dict[str, tuple[Stage, tuple[str, ...]]] = {}

    def visit(stage: Stage) -> str:
        needs = tuple(visit(need) for need in stage.needs.values())
        key = stage_key(task, stage, data_fingerprint)
        found.setdefault(key, (stage, needs))
        return key

    for stage in stages.values():
        visit(stage)
    return found


class StageStore:
    """The stored stages of a results folder; the last few stay in memory."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._memory: OrderedDict[str, Arrays] = OrderedDict()

    @cached_property
    def networks(self) -> "StageStore":
        """What the stages' computations offered to a run that keeps it, by the stages' keys."""
        return StageStore(self.store.child("networks"))

    def has(self, key: str) -> bool:
        """Whether the stage is stored, whole."""
        return self.store.exists(f"{key}.json")

    def which(self, keys: Collection[str]) -> set[str]:
        """Those of `keys` that are stored, whole."""
        if len(keys) <= ASK_EACH:
            return {key for key in keys if self.has(key)}
        return {name.removesuffix(".json") for name in self.store.names("", ".json")} & set(keys)

    def load(self, key: str) -> Arrays | None:
        """The arrays, or None where they are missing or their checksum does not match."""
        if key in self._memory:
            self._memory.move_to_end(key)
            return self._memory[key]
        from safetensors.numpy import load

        for pause in (RACE_S, 0.0):
            try:
                stated = STAGE_BOOK.read(self.store, f"{key}.json")
                if stated is None:
                    return None
                content = self.store.read(f"{key}.safetensors")
            except FileNotFoundError:
                return None
            except (Damaged, IsADirectoryError):
                break
            if hashlib.sha256(content).hexdigest() == stated.sha256:
                return self._remember(key, load(content))
            time.sleep(pause)
        return None

    def _set_aside(self, key: str) -> None:
        """A stage that `load` does not take; first the file that says it is whole. Without that one
        it was never stored, and is written over.

        Call it where nobody else stores the stage meanwhile.
        """
        if not self.store.takes(f"{key}.json"):
            return
        for name in (f"{key}.json", f"{key}.safetensors"):
            if self.store.takes(name):
                kept = f"quarantine/{name}"
                if self.store.takes(kept):
                    kept += f".{uuid.uuid4().hex[:8]}"
                with suppress(FileNotFoundError):  # on an object store nobody is alone
                    self.store.move(name, kept)

    def _remember(self, key: str, arrays: Arrays) -> Arrays:
        self._memory[key] = arrays
        while len(self._memory) > CACHED_STAGES:
            self._memory.popitem(last=False)
        return arrays

    def save(self, key: str, arrays: Arrays, seconds: float) -> None:
        """Store the arrays; the checksum goes last, and its presence means the stage is whole."""
        from safetensors.numpy import save

        # Not ascontiguousarray, which makes an array of one of a scalar.
        content = save({name: np.asarray(a, order="C") for name, a in arrays.items()})
        stated = {"sha256": hashlib.sha256(content).hexdigest(), "seconds": seconds}
        self.store.write(f"{key}.safetensors", content)
        self.store.write(f"{key}.json", json.dumps(stated).encode())
        self._remember(key, arrays)

    @contextmanager
    def _single_flight(self, key: str) -> Iterator[None]:
        """Nobody else on this machine computes `key` meanwhile; freed by the kernel on death."""
        if not self.store.local:
            yield  # on an object store the queue alone keeps a stage single-flight
            return
        name = f"locks/{key}.lock"
        path = Path(self.store.path(name))

        def opened() -> int:
            path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_CREAT | os.O_RDWR)

        handle = self.store.patiently("opened", name, opened)
        try:
            self.store.patiently("locked", name, lambda: _wait_for(handle))
            yield
        finally:
            os.close(handle)

    def obtain(
        self,
        task: Task,
        stage: Stage,
        data: ImageDataset,
        *,
        device: str,
        progress: Callable[..., None],
        keep: bool = False,
        checkpoint_of: Callable[[Store, str], StoredCheckpoint] | None = None,
    ) -> tuple[Arrays, bool]:
        """The stage's arrays, computed (with what it needs) where they are not stored.

        Args:
            keep: whether the networks that a computation offers are stored too.
            checkpoint_of: makes the checkpoint of a stage of this store by its key.

        Returns:
            The arrays, and whether this call computed them.
        """
        key = stage_key(task, stage, data.fingerprint)
        arrays = self.load(key)
        if arrays is not None:
            return arrays, False
        needs = {
            name: self.obtain(
                task,
                need,
                data,
                device=device,
                progress=progress,
                keep=keep,
                checkpoint_of=checkpoint_of,
            )[0]
            for name, need in stage.needs.items()
        }
        with self._single_flight(key):
            arrays = self.load(key)
            if arrays is not None:
                return arrays, False
            self._set_aside(key)
            began, _ = clock()
            compute = load_function(stage.compute)
            more, checkpoint = {}, None
            if checkpoint_of is not None and takes_checkpoint(compute):
                more["checkpoint"] = checkpoint = checkpoint_of(self.store, key)
            with keeping(keep) as networks:
                arrays = compute(
                    stage.inputs, data, needs, device=device, progress=progress, **more
                )
            if networks:
                self.networks.save(key, networks, 0.0)
            self.save(key, arrays, clock()[0] - began)
            if checkpoint is not None:
                checkpoint.forget()
        return arrays, True


def _wait_for(handle: int) -> None:
    """Lock the open file once nobody else has; where there are no locks, the queue alone keeps a
    stage single-flight, and the worst is work that is done twice.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise


def stated_seconds(store: Store, key: str) -> float | None:
    """How long the stage took when it was computed, or None where it is not stored."""
    stated = STAGE_BOOK.read_or_none(store, f"{key}.json")
    return None if stated is None else stated.seconds
