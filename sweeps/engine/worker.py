"""What a worker does with one recipe: compute a stage, or compute a cell and commit it at once.

This module is imported in every worker, by path; the driver sends JSON recipes, never objects.
"""

import ctypes
import datetime
import os
import socket
import traceback
from collections.abc import Mapping
from functools import partial
from typing import Any

from cluster.traffic import Failure, Report
from imaging_core import datasets
from imaging_core.fields import build
from imaging_core.keeping import keeping
from imaging_core.task import Outcome, Progress, Task, clock, load_function, no_progress
from sweeps.engine import peaks
from sweeps.engine.checkpoints import Signs, StoredCheckpoint, no_signs, takes_checkpoint
from sweeps.engine.judging import Ended, Judge, record_end
from sweeps.engine.kept import keep_weights
from sweeps.engine.provenance import device_name, versions
from sweeps.engine.recipe import Recipe
from sweeps.engine.stages import StageStore, flatten
from sweeps.engine.study import split_data
from sweeps.ledger.commit import commit_cell, commit_failure
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.lock import LateCommit, must_hold
from sweeps.ledger.schema import SCHEMA_VERSION, canonical
from sweeps.process import headless

_stage_stores: dict[str, StageStore] = {}
_threads_set = False

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
MMAP_ABOVE = 32 << 20  # bytes: the most that every glibc accepts; a network's maps lie below it
KEEP_FREED = 256 << 20  # bytes a worker holds on to


def prepare_process() -> None:
    """One thread per worker (two on a shared core are up to 10 times slower), deterministic."""
    global _threads_set
    if _threads_set:
        return
    headless()
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(1)
    # The same as use_deterministic_algorithms(True, warn_only=True), but for the compiler, whose
    # import takes as long as torch's own.
    torch.set_deterministic_debug_mode("warn")
    # Else every new tensor is filled with NaN first, for nothing: 5 % of an APGA step.
    torch.utils.deterministic.fill_uninitialized_memory = False
    torch.backends.cudnn.benchmark = False
    _keep_freed_memory()
    _threads_set = True


def _keep_freed_memory() -> None:
    """glibc keeps what a training step frees for the next one.

    By default it may hand the maps of a batch back to the kernel after every pass, and the next
    pass faults each page in again: up to a third of a policy's pass.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # another C library has allocators of its own
        mallopt(M_MMAP_THRESHOLD, MMAP_ABOVE)
        mallopt(M_TRIM_THRESHOLD, KEEP_FREED)


def _stages_of(results: str) -> StageStore:
    if results not in _stage_stores:
        _stage_stores[results] = StageStore(Store(results).child("stages"))
    return _stage_stores[results]


def _task(core: str) -> Task:
    return load_function(f"{core}.task:TASK")


def execute(
    payload: Mapping[str, Any],
    *,
    device: str,
    node: str,
    attempt: int,
    signs: Signs = no_signs,
    progress: Progress = no_progress,
) -> Report:
    """Carry one recipe (`Recipe.to_json`) out; what a killed attempt left of it is gone on with.

    Args:
        signs: is told that the work goes on, again and again.
        progress: is told how much of the cell or stage itself is done.

    A cell that its pruner ends is written down beside its proposal, and is no cell. One that raises
    is committed as a failure (a row with its error) before the exception goes
    on to the queue.

    Raises:
        LateCommit: the controller that sent the recipe no longer holds the ledger.
        StoreError: the ledger's file system or store fails; the cell is not to blame.
        Exception: what the recipe raised.
    """
    prepare_process()
    peaks.begin(device)
    began, began_cpu = clock()
    started = datetime.datetime.now(datetime.UTC)
    recipe = Recipe.from_json(payload)
    task = _task(recipe.core)
    name, path = split_data(recipe.data)
    store = recipe.ledger
    # What of its packages a processor or a GPU of the same kind computes is the same.
    made_by = [task.version, versions(), device_name(device)]
    checkpoint_of = partial(StoredCheckpoint, made_by=made_by, signs=signs)
    checkpoint: StoredCheckpoint | None = None
    row = _identity(recipe) | {
        "attempts": attempt,
        "node": node,
        "device": device_name(device),
        "started": started,
    }
    try:
        data = datasets.load(
            name,
            path,
            recipe.protocol,
            fingerprint=recipe.fingerprint,
            progress=lambda *_: signs(saved=False),
        )
        if data.fingerprint != recipe.fingerprint:
            raise ValueError(
                f"the data at {recipe.data} on {row['host']} is not the controller's "
                f"({data.fingerprint[:12]} instead of {recipe.fingerprint[:12]})"
            )
        config = build(task.config, recipe.config)
        stages = task.stages(config, recipe.seed)
        stored = _stages_of(recipe.results)
        keep = "weights" in recipe.keep
        how = {"device": device, "progress": no_progress, "keep": keep}
        if recipe.stage is not None:
            how["progress"] = progress
            stage, _ = flatten(task, stages, data.fingerprint)[recipe.stage]
            _, computed = stored.obtain(task, stage, data, **how, checkpoint_of=checkpoint_of)
            return Report(wall_s=clock()[0] - began, computed=computed)
        arrays = {
            name: stored.obtain(task, stage, data, **how, checkpoint_of=checkpoint_of)[0]
            for name, stage in stages.items()
        }
        train = load_function(task.train)
        more = {}
        if takes_checkpoint(train):
            more["checkpoint"] = checkpoint = checkpoint_of(store, recipe.key)
        if recipe.judged is not None:
            progress = Judge(recipe.judged, progress)
        with keeping(keep) as networks:
            outcome: Outcome = train(
                config, data, recipe.seed, arrays, device=device, progress=progress, **more
            )
        below = flatten(task, stages, data.fingerprint)
        row |= {
            "status": "ok",
            "metrics": {k: float(v) for k, v in outcome.metrics.items()},
            "curves": {k: [float(x) for x in v] for k, v in outcome.curves.items()},
            "stage_keys": {stage.name: key for key, (stage, _) in below.items()},
            "wall_s": clock()[0] - began,
            "cpu_s": clock()[1] - began_cpu,
            **peaks.columns(device),
        }
        must_hold(store, recipe.token)
        if keep:
            keep_weights(store, recipe.key, networks, stored, task, stages, data, device=device)
        commit_cell(store, row, outcome.predictions, outcome.artifacts)
        if checkpoint is not None:
            checkpoint.forget()
    except (StoreError, LateCommit):
        raise
    except Ended as end:
        if checkpoint is not None:
            checkpoint.forget()
        must_hold(store, recipe.token)
        record_end(store, recipe.judged, row, end)
        return Report(wall_s=clock()[0] - began, seed=recipe.seed, ended=True)
    except datasets.FetchError as error:  # no cell is to blame
        raise StoreError(f"{error} (on {row['host']})") from None
    except Exception as error:
        if checkpoint is not None:  # it would raise again where it stood
            checkpoint.forget()
        if recipe.stage is None:
            row |= {
                "status": "failed",
                "error_type": type(error).__name__,
                "error": str(error),
                "traceback": traceback.format_exc(),
                "wall_s": clock()[0] - began,
                "cpu_s": clock()[1] - began_cpu,
            }
            must_hold(store, recipe.token)
            commit_failure(store, row)
        raise
    objective = float(row["metrics"][recipe.objective])
    return Report(wall_s=row["wall_s"], seed=recipe.seed, objective=objective)


def _identity(recipe: Recipe) -> dict[str, Any]:
    """The columns of a cell's row that are known before it runs."""
    task = _task(recipe.core)
    return {
        "schema_version": SCHEMA_VERSION,
        "key": recipe.key,
        "study": recipe.study,
        "core": task.name,
        "core_version": task.version,
        "arm": recipe.arm,
        "levels": recipe.levels,
        "config": canonical(recipe.config),
        "seed": recipe.seed,
        "data": recipe.data,
        "data_fingerprint": recipe.fingerprint,
        "protocol": recipe.protocol,
        "git_commit": recipe.git_commit,
        "git_dirty": recipe.git_dirty,
        "versions": versions(),
        "host": socket.gethostname(),
        "stage_keys": {},
    }


def end_of_run(failure: Failure) -> StoreError | LateCommit | None:
    """What `execute` raised on a worker, where that ends the run: of no cell a failure is written
    because the store failed or somebody else holds the ledger.
    """
    kinds = {kind.__name__: kind for kind in (StoreError, LateCommit)}
    kind = kinds.get(failure.error_type)
    return kind(failure.error) if kind else None


def lost_row(recipe: Recipe, failure: Failure, attempts: int) -> dict[str, Any]:
    """The failure row of a cell whose worker never lived to write it."""
    return _identity(recipe) | {
        "status": "failed",
        "attempts": max(attempts, 1),
        "error_type": failure.error_type,
        "error": failure.error,
        "traceback": failure.traceback,
        "node": "",
        "device": "",
        "started": datetime.datetime.now(datetime.UTC),
        "wall_s": 0.0,
        "cpu_s": 0.0,
    }
