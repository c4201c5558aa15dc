"""What checkpoints inside a cell and a stage cost, of both cores: at most 1 % is asked for.

    export PYTHONPATH=tests/support
    python tests/benchmarks/bench_checkpoints.py           # one thread; about 8 minutes
    python tests/benchmarks/run_all.py bench_checkpoints   # and its rows in docs/benchmarks.csv

The second phase of a demo cell of APGA and the selection stage of a demo cell of the selection core
are computed in turn without checkpoints, with those of a run (a demo cell ends before its first
save: what is left is asking whether it is time), and with a save every EVERY_S seconds. Processor
seconds of this process.

Then one save alone, at a moment of the second epoch, when the best weights are kept too: of the
same computations, and of the paper's networks on made-up images, whose number and size are not in
the state. Processor seconds too, those of the write among them: on a crowded machine wall time
would measure the others. A run saves once in `checkpoints.EVERY_S`, and however slow the disk is,
never before 1 / `checkpoints.COST` times the wall seconds of its last save.
"""

import contextlib
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from selection_cells import make_part
from timing import Figure

from apga_core.task import TASK as APGA
from imaging_core import datasets
from imaging_core.checkpoint import NO_CHECKPOINT, Checkpoint, NoCheckpoint
from imaging_core.datasets.base import ImageDataset
from imaging_core.fields import build
from imaging_core.task import Stage, Task, load_function, no_progress
from selection_core.task import TASK as SELECTION
from sweeps.engine import checkpoints
from sweeps.engine.checkpoints import StoredCheckpoint
from sweeps.engine.worker import prepare_process
from sweeps.ledger.files import Store

ROUNDS = 15
SAVES = 3
EVERY_S = 1.0
SIDE = 32
"""Pixels of the made-up images."""
TINY = {"k_shot": 4, "batch_size": 4, "base_epochs": 3, "base_min_steps": 0, "epochs": 3,
        "min_steps": 0, "weights": "none", "policy_weights": "none"}  # fmt: skip
OF_PAPER = {"k_shot": 4, "pool": "real", "pool_per_class": 4, "classifier_batch": 4,
            "classifier_steps": 6, "classifier_epochs": 3, "reward_steps": 6, "reward_epochs": 3,
            "iterations": 1, "episodes": 2, "batches": 2}  # fmt: skip


class Enough(BaseException):
    """All saves are timed; nothing in the product may catch it."""


class Counted(NoCheckpoint):
    """Counts the moments at which a save is possible."""

    def __init__(self) -> None:
        self.ticks = 0

    def tick(self) -> None:
        self.ticks += 1


class Timed(StoredCheckpoint):
    """At its tick number `at` it saves again and again, and ends the computation."""

    def __init__(self, folder: str, at: int) -> None:
        super().__init__(Store(folder), "key", made_by="benchmark", tick_s=0.0)
        self._at, self.seconds, self.bytes = at, list[float](), 0
        self._file = Path(folder, checkpoints.FOLDER, "key.safetensors")

    def tick(self) -> None:
        self._at -= 1
        if self._at:
            return
        for _ in range(SAVES):
            began = time.process_time()
            assert self._save()
            self.seconds.append(time.process_time() - began)
        self.bytes = self._file.stat().st_size
        raise Enough


Work = Callable[[Checkpoint], object]


def made_up() -> ImageDataset:
    """Two classes of images of SIDE × SIDE pixels, larger copies of the tests' own."""

    def larger(name: str, count: int, seed: int) -> Any:
        part = make_part(name, count, seed)
        return replace(part, images=np.repeat(np.repeat(part.images, SIDE // 16, 2), SIDE // 16, 3))

    return ImageDataset(
        name="made-up",
        classes=("dark", "bright"),
        train=larger("train", 24, 0),
        validation=larger("validation", 4, 1),
        test=larger("test", 4, 2),
    )


@dataclass(frozen=True, kw_only=True)
class Computation:
    """The stages of a configuration of seed 0, and its cell, each begun anew at every call."""

    task: Task
    data: ImageDataset
    fields: Mapping[str, Any]
    preset: str = "demo"

    @property
    def config(self) -> Any:
        return build(self.task.config, {**self.task.presets[self.preset], **self.fields})

    def _computed(self, stage: Stage, checkpoint: Checkpoint | None = None) -> Any:
        needs = {name: self._computed(need) for name, need in stage.needs.items()}
        more = {} if checkpoint is None else {"checkpoint": checkpoint}
        compute = load_function(stage.compute)
        return compute(stage.inputs, self.data, needs, device="cpu", progress=no_progress, **more)

    def stage(self, name: str) -> Work:
        """One stage; what it needs is computed now."""
        stage = self.task.stages(self.config, 0)[name]
        needs = {name: self._computed(need) for name, need in stage.needs.items()}
        compute = load_function(stage.compute)
        return lambda checkpoint: compute(
            stage.inputs, self.data, needs,
            device="cpu", progress=no_progress, checkpoint=checkpoint,
        )  # fmt: skip

    def cell(self) -> Work:
        """The cell itself; its stages are computed now."""
        stages = {n: self._computed(s) for n, s in self.task.stages(self.config, 0).items()}
        train = load_function(self.task.train)
        return lambda checkpoint: train(self.config, self.data, 0, stages, checkpoint=checkpoint)


def demo() -> dict[str, Work]:
    """What is timed whole."""
    apga = {"method": "apga", "k_shot": 50, "epochs": 4, "min_steps": 0}
    cell = Computation(task=APGA, data=datasets.load("phantom-xray"), fields=apga)
    stage = Computation(
        task=SELECTION,
        data=datasets.load("ihc-colon"),
        fields={"generator_steps": 20, "iterations": 6},
    )
    return {
        "a demo cell of APGA": cell.cell(),
        "the selection stage of a demo cell": stage.stage("selection"),
    }


def of_paper() -> dict[str, Callable[[], Work]]:
    """With the paper's networks; stages that these need are short."""
    data = made_up()
    apga = Computation(task=APGA, data=data, fields=TINY, preset="paper")
    selection = Computation(task=SELECTION, data=data, fields=OF_PAPER, preset="paper")
    return {
        "DenseNet-169 with Adam (first phase)": lambda: apga.stage("base"),
        "ResNet-34 with AdamW (base classifier)": lambda: selection.stage("base"),
        "ResNet-34 with AdamW (a reward of the selection stage)": lambda: selection.stage(
            "selection"
        ),
        "DenseNet-169 and U-Net (VGG11) with Adam (second phase)": apga.cell,
    }


@contextlib.contextmanager
def saving(every_s: float | None) -> Iterator[Checkpoint]:
    """None: as in a run; 0: no checkpoint at all; else a save in so many seconds, however long."""
    if every_s == 0:
        yield NO_CHECKPOINT
        return
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if every_s is not None:
            stack.enter_context(patch.multiple(checkpoints, EVERY_S=every_s, COST=math.inf))
        yield StoredCheckpoint(Store(folder), "key", made_by="benchmark")


def whole(what: str, work: Work) -> list[Figure]:
    """Without, as in a run, and with many saves, in turn."""
    ways = (0, None, EVERY_S)
    seconds: dict[float | None, list[float]] = {way: [] for way in ways}
    for round_ in range(ROUNDS + 1):  # the first one warms up
        for way in ways if round_ % 2 else ways[::-1]:
            with saving(way) as checkpoint:
                began = time.process_time()
                work(checkpoint)
                seconds[way].append(time.process_time() - began)
    seconds = {way: of[1:] for way, of in seconds.items()}
    without = statistics.median(seconds[0])
    texts = {
        None: "as in a run, against none (no save falls into it)",
        EVERY_S: f"saved every {EVERY_S:g} s, against none",
    }
    return [
        Figure(
            what=f"{what} with checkpoints {text}",
            ours_s=statistics.median(seconds[way]),
            rival_s=without,
            ratio=statistics.median(b / a for a, b in zip(seconds[way], seconds[0], strict=True)),
            limit="≥ 0.99" if way is None else "—",
        )
        for way, text in texts.items()
    ]


def one_save(what: str, work: Work, at: int) -> Figure:
    """The processor seconds of a save, and its share of a run's time at the default interval."""
    with tempfile.TemporaryDirectory() as folder:
        timed = Timed(folder, at)
        with contextlib.suppress(Enough):
            work(timed)
    assert timed.bytes, f"{what} has fewer than {at} ticks"
    seconds = statistics.median(timed.seconds)
    share = seconds / max(checkpoints.EVERY_S, seconds / checkpoints.COST)
    return Figure(
        what=f"one save: {what}, {timed.bytes / 2**20:.1f} MiB; {share:.2%} of the time at one in "
        f"{checkpoints.EVERY_S:g} s",
        ours_s=seconds,
        rival_s=math.nan,
        ratio=math.nan,
        limit=f"≤ {checkpoints.COST:.0%} of the time",
    )


AT = 5
"""The tick at which a save is timed, of the paper's networks: in a later epoch than the first."""


def late(work: Work) -> int:
    """The same of a demo: after two thirds of its ticks."""
    counted = Counted()
    work(counted)
    return counted.ticks * 2 // 3


def figures() -> Iterator[Figure]:
    """All of it."""
    prepare_process()
    demos = demo()
    for what, work in demos.items():
        yield from whole(what, work)
    for what, work in demos.items():
        yield one_save(what, work, late(work))
    for what, made in of_paper().items():
        yield one_save(what, made(), AT)


def main() -> None:
    for f in figures():
        print(f"{f.what}: {f.ours_s:.3g} s, without {f.rival_s:.3g} s, × {f.ratio:.4f} ({f.limit})",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
