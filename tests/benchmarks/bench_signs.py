"""What looking inside a cell costs a training step: progress, curves, signs and a pruner.

    PYTHONPATH=. python tests/benchmarks/bench_signs.py

An arm's second phase on generated radiographs, as the demo has it: once with a callback that does
nothing, and once with all that a worker puts there (`cluster.signs.EverySoOften`, the signs of
`StoredCheckpoint`, and `Judge` with Optuna's Hyperband and 40 earlier cells), in turn. Processor
seconds of this process, so that others on the machine do not count. The issue asks for at most 1 %.
"""

import statistics
import time
from functools import partial

import torch

from apga_core import training
from apga_core.task import TASK
from cluster.signs import SHARE_EVERY_S, EverySoOften, Signs
from imaging_core import datasets
from imaging_core.fields import build
from imaging_core.task import Progress, load_function, no_progress
from sweeps.engine.judging import Judge

PAIRS = 16
EPOCHS = 4
FIELDS = {"method": "apga", "k_shot": 50, "epochs": EPOCHS, "min_steps": 0}
KNOWN = 40  # earlier cells, each with a curve as long as this one's


def judged() -> dict:
    """Of a cell that is better than all before it, so that it runs to its end."""
    known = [[place, [0.1 + 0.001 * place] * EPOCHS, False] for place in range(KNOWN)]
    return {"by": "hyperband", "curve": "validation_accuracy", "name": "s", "maximize": True,
            "place": KNOWN, "known": known, "record": ""}  # fmt: skip


def everything(sent: list) -> Progress:
    """What a worker's callback does, but for the message itself, which nobody waits for."""
    signs = Signs(None, lambda saved: sent.append(saved))

    def tell(*said: object) -> None:
        signs(saved=False)
        sent.append(said)

    return Judge(judged(), EverySoOften(tell, SHARE_EVERY_S))


def main() -> None:
    torch.set_num_threads(1)
    config = build(TASK.config, {**TASK.presets["demo"], **FIELDS})
    data = datasets.load("phantom-xray")
    stages: dict = {}
    for name, stage in TASK.stages(config, 0).items():
        stages[name] = _computed(stage, data)
    cell = partial(training.train_cell, config, data, 0, stages)
    warm = cell(progress=everything([]))
    steps = warm.metrics["optimiser_steps"]
    ratios, each = [], []
    for pair in range(PAIRS):
        seconds = {}
        for on in (pair % 2 == 0, pair % 2 == 1):
            began = time.process_time()
            cell(progress=everything([]) if on else no_progress)
            seconds[on] = time.process_time() - began
        ratios.append(seconds[True] / seconds[False])
        each.append((seconds[True] - seconds[False]) / steps)
        print(f"× {ratios[-1]:.4f}", flush=True)
    callback = everything([])
    curve: list[float] = [0.9]
    began = time.process_time()
    callback(0.01, "", {"validation_accuracy": curve})  # the earlier cells are replayed once
    replay = time.process_time() - began
    began = time.process_time()
    for epoch in range(2, 102):
        curve.append(0.9)
        callback(epoch / 102, "", {"validation_accuracy": curve})
    call = (time.process_time() - began) / 100
    step = seconds[False] / steps
    print(
        f"median × {statistics.median(ratios):.4f} of {PAIRS} pairs, {steps:.0f} steps of "
        f"{step * 1e3:.1f} ms; a call by itself {call * 1e3:.3f} ms, once an epoch of "
        f"{steps / EPOCHS:.0f} steps: {call / (step * steps / EPOCHS):.3%} "
        f"(asked for: 1 %); replaying {KNOWN} earlier cells {replay * 1e3:.1f} ms, once a cell"
    )


def _computed(stage, data) -> dict:
    needs = {name: _computed(need, data) for name, need in stage.needs.items()}
    compute = load_function(stage.compute)
    return compute(stage.inputs, data, needs, device="cpu", progress=no_progress)


if __name__ == "__main__":
    main()
