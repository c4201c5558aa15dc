"""What one cell of each preset costs: its steps are counted, the seconds of one are measured.

    export PYTHONPATH=tests/support
    python tests/benchmarks/cell_cost.py            # one thread; about 15 minutes of processor
    python tests/benchmarks/cell_cost.py --only apga

A cell of the papers' setting is days on a processor, so it is extrapolated: RUNS steps of each kind
are timed on one thread at the real size, and multiplied by the steps that the configuration makes,
early stopping left aside. The GPU's time is what the same floating-point operations take at the
stated speeds; it is no measurement (`make bench-gpu` is). The demo's cells are run whole.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from bench_masking import arm_of
from our_runs import ROOT, run_study
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from apga_core.config import PRESETS as APGA_PRESETS
from apga_core.config import APGAConfig
from imaging_core.classifiers import build_classifier
from imaging_core.descent import Descent, FlatOptimiser
from imaging_core.fields import build
from imaging_core.seeding import torch_generator
from selection_core.config import PRESETS as SELECTION_PRESETS
from selection_core.config import SelectionConfig
from selection_core.methods import rewards_of_controller
from sweeps.engine.worker import prepare_process

RUNS = 2
GPU_TFLOPS = (20.0, 40.0)
"""Of an H100 in training, between networks that keep it busy and those that do not."""
SHOWN = 25
DATASETS = {
    "kermany-cxr (720 training images)": (720, 180, 300),
    "XR_WRIST (about 8,800)": (8_777, 975, 659),
    "all of MURA (about 33,100)": (33_127, 3_681, 3_197),
}
"""Name → training, validation and test images, at 224 px; of MURA validation is a tenth."""
CERVICAL = (265, 64)  # validation images that a score looks at; pixels


@dataclass(frozen=True, kw_only=True)
class Work:
    """One kind of work: seconds of processor and floating-point operations of one unit."""

    seconds: float
    tflop: float


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A cell: processor hours, and TFLOP."""

    what: str
    cpu_h: float
    tflop: float

    @property
    def gpu_min(self) -> tuple[float, float]:
        """Minutes at the faster and the slower of GPU_TFLOPS."""
        slow, fast = GPU_TFLOPS
        return self.tflop / fast / 60, self.tflop / slow / 60

    @property
    def line(self) -> str:
        """Of the README's table."""
        fast, slow = (_minutes(m) for m in self.gpu_min)
        return f"| {self.what} | {_hours(self.cpu_h)} | {fast} to {slow} |"


def _hours(hours: float) -> str:
    return (
        f"{hours * 3600:.0f} s"
        if hours < 1 / 20
        else f"{hours:,.0f} h"
        if hours >= 1
        else (f"{hours * 60:.0f} min")
    )


def _minutes(minutes: float) -> str:
    return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{max(minutes, 1):.0f} min"


def total(what: str, parts: list[tuple[Work, float]]) -> Cost:
    """So many units of each kind of work."""
    return Cost(
        what=what,
        cpu_h=sum(work.seconds * count for work, count in parts) / 3600,
        tflop=sum(work.tflop * count for work, count in parts),
    )


def apga_steps(config: APGAConfig, train: int) -> tuple[int, int, int]:
    """Of the first phase, of the second, and looks at validation, without early stopping."""
    batches = math.ceil(train / config.batch_size)
    first = max(config.base_epochs, math.ceil(config.base_min_steps / batches))
    second = max(config.epochs, math.ceil(config.min_steps / batches))
    return first * batches, second * batches, first + second


def selection_steps(config: SelectionConfig) -> tuple[int, int]:
    """Classifier steps of a controller's cell and its base, and looks at validation."""
    rewards = rewards_of_controller(config) * config.reward_repeats
    steps = rewards * config.reward_steps + 2 * config.classifier_steps
    return steps, rewards * min(5, (config.reward_epochs + 1) // 2) + config.classifier_epochs


def timed(call: Callable[[], object], runs: int = RUNS) -> Work:
    """The median of `runs` calls after a first one, in which operations are counted."""
    with FlopCounterMode(display=False) as counter:
        call()
    taken = []
    for _ in range(runs):
        began = time.process_time()
        call()
        taken.append(time.process_time() - began)
    return Work(seconds=statistics.median(taken), tflop=counter.get_total_flops() / 1e12)


def training(name: str, *, channels: int, batch: int, side: int, runs: int = RUNS) -> Work:
    """A step of classifier `name`."""
    model, images, labels = _network(name, channels, batch, side)
    optimiser = FlatOptimiser(model.parameters(), Descent(kind="adam", learning_rate=1e-4))

    def step() -> None:
        optimiser.zero_grad()
        functional.cross_entropy(model(images), labels).backward()
        optimiser.step()

    return timed(step, runs)


def showing(name: str, *, channels: int, side: int, runs: int = RUNS) -> Work:
    """One image that classifier `name` is shown without gradients."""
    model, images, _ = _network(name, channels, SHOWN, side)
    model.eval()
    with torch.inference_mode():
        found = timed(lambda: model(images), runs)
    return Work(seconds=found.seconds / SHOWN, tflop=found.tflop / SHOWN)


def _network(name: str, channels: int, batch: int, side: int):
    model = build_classifier(
        name, channels=channels, classes=2, size=side, generator=torch_generator(0, "net")
    ).to(memory_format=torch.channels_last)
    images = torch.randn(batch, channels, side, side, generator=torch_generator(0, "images"))
    images = images.contiguous(memory_format=torch.channels_last)
    return model, images, torch.arange(batch) % 2


def apga_step(values: dict, side: int, runs: int = RUNS) -> Work:
    """A step of APGA's second phase, masks and both updates."""
    config = build(APGAConfig, values)
    arm, images, labels = arm_of(values, side, "cpu", config.batch_size)
    return timed(
        lambda: arm.second_step(images, labels, arm.learner.update(images, labels), None), runs
    )


def apga(side: int = 224, runs: int = RUNS) -> list[Cost]:
    """Of the paper's setting, by dataset."""
    values = {**APGA_PRESETS["paper"], "weights": "none", "policy_weights": "none"}
    config = build(APGAConfig, values)
    second = apga_step(values, side, runs)
    first = training(config.classifier, channels=1, batch=config.batch_size, side=side, runs=runs)
    look = showing(config.classifier, channels=1, side=side, runs=runs)
    print(
        f"APGA, {side} px: step {second.seconds:.1f} CPU s, {second.tflop:.2f} TFLOP; "
        f"first phase's {first.seconds:.1f} s, {first.tflop:.2f}; "
        f"an image shown {look.seconds:.2f} s",
        flush=True,
    )
    found = []
    for name, (train, validation, test) in DATASETS.items():
        firsts, seconds, looks = apga_steps(config, train)
        shown = looks * validation + test
        parts = [(first, firsts), (second, seconds), (look, shown)]
        found.append(total(f"APGA, `paper`, {name}", parts))
    return found


def selection(runs: int = RUNS) -> list[Cost]:
    """Of the paper's setting: the controller's rewards, its base and its final classifier."""
    config = build(SelectionConfig, SELECTION_PRESETS["paper"])
    validation, side = CERVICAL
    name, batch = config.classifier, config.classifier_batch
    step = training(name, channels=3, batch=batch, side=side, runs=runs)
    look = showing(name, channels=3, side=side, runs=runs)
    print(
        f"selection, {side} px: step {step.seconds:.2f} CPU s, {step.tflop:.3f} TFLOP; an image "
        f"shown {look.seconds:.4f} s",
        flush=True,
    )
    steps, looks = selection_steps(config)
    what = f"selection, `paper`, {side} px ({rewards_of_controller(config)} rewards)"
    return [total(what, [(step, steps), (look, looks * validation)])]


def demos() -> list[str]:
    """Lines of the demo's cells, run whole on one core, with the stages that they share."""
    scripts = {
        "selection, `demo`": ("ablation_controller", ["--set", "policy_gradient=ppo", "--set",
                              "controller=transformer", "--set", "method=controller"]),
        "APGA, `demo`": ("apga_methods", ["--set", "method=apga"]),
    }  # fmt: skip
    lines = []
    for what, (name, arguments) in scripts.items():
        with tempfile.TemporaryDirectory() as results:
            arguments = ["--inline", "--seeds", 1, *arguments]
            run = run_study(ROOT / "sweeps" / f"{name}.py", Path(results), *arguments)
        stages = sum(sum(s) for s in run.stages.values())
        cell = sum(run.cells_s) / len(run.cells_s)
        lines.append(f"| {what} | {cell:.0f} s, its stages once {stages:.0f} s | not measured |")
    return lines


PARTS: dict[str, Callable[[], list[str]]] = {
    "demos": demos,
    "apga": lambda: [cost.line for cost in apga()],
    "selection": lambda: [cost.line for cost in selection()],
}


def main() -> None:
    """The table's lines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    asked = parser.parse_args()
    prepare_process()
    for part in asked.only:
        print("\n".join(PARTS[part]()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
