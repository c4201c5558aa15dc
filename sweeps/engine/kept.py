"""`--keep weights`: a cell's networks, those that its stages trained included."""

import importlib
from collections.abc import Mapping

from imaging_core.datasets import ImageDataset
from imaging_core.fields import ConfigError, did_you_mean
from imaging_core.keeping import keeping
from imaging_core.task import Arrays, Stage, Task, load_function, no_progress
from sweeps.engine.plan import Plan
from sweeps.engine.stages import StageStore, stage_key
from sweeps.ledger.files import Store
from sweeps.ledger.weights import kept_keys, write_weights

KINDS = ("weights",)
"""What `--keep` knows."""


def known_kinds(kinds: tuple[str, ...], task: Task) -> None:
    """Refuse what `--keep` does not know, or the core does not offer.

    Raises:
        ConfigError: names what there is.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(
                f'--keep must be one of {", ".join(KINDS)}, got "{kind}"{did_you_mean(kind, KINDS)}'
            )
    if kinds and not task.applying:
        raise ConfigError(f"--keep weights: {task.name} offers no networks; leave it out")


def stage_networks(
    stages: StageStore, task: Task, stage: Stage, data: ImageDataset, *, device: str
) -> Arrays:
    """What the computation of `stage` offers.

    They are there where it was computed by a run that keeps; else it is computed once more.
    """
    key, store = stage_key(task, stage, data.fingerprint), stages.networks
    found = store.load(key)
    if found is None:
        needs = {
            name: stages.obtain(task, need, data, device=device, progress=no_progress)[0]
            for name, need in stage.needs.items()
        }
        with keeping() as found:
            load_function(stage.compute)(
                stage.inputs, data, needs, device=device, progress=no_progress
            )
        store.save(key, found, 0.0)
    return found


def keep_weights(
    store: Store,
    key: str,
    networks: Arrays,
    stages: StageStore,
    task: Task,
    of_cell: Mapping[str, Stage],
    data: ImageDataset,
    *,
    device: str,
) -> None:
    """Store what a cell and its stages offer, beside the cell `key` of the study's `store`."""
    for stage in of_cell.values():
        if stage.offers:
            found = stage_networks(stages, task, stage, data, device=device)
            networks = {**found, **networks}
    write_weights(
        store,
        key,
        networks,
        classes=data.classes,
        channels=data.channels,
        size=data.size,
    )


def weights_line(
    plan: Plan, results: str, shape: Mapping[str, tuple[int, tuple[int, int], int]]
) -> str:
    """What the plan says of the networks that it keeps: how many bytes they take.

    Args:
        shape: "name:path" of each dataset → channels, (H, W), classes.
    """
    bytes_of = importlib.import_module(plan.study.task.applying).bytes_of
    of_arm: dict[int, int] = {}
    total = 0
    for cell in plan.todo:
        if id(cell.arm) not in of_arm:
            channels, size, classes = shape[cell.arm.data]
            of_arm[id(cell.arm)] = bytes_of(
                cell.arm.config, channels=channels, size=size, classes=classes
            )
        total += of_arm[id(cell.arm)]
    line = f"weights: about {in_bytes(total)} for the {len(plan.todo)} cells to compute"
    there = kept_keys(Store(results).child(plan.study.name))
    without = len(plan.done - there)
    if without:
        line += f"; {without} committed cells were computed without --keep weights and have none"
    return line


def in_bytes(count: int) -> str:
    """`1234567` → "1.2 MB"."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError
