"""The networks alone: APGA's masks and step, the reward loop, precision and memory format."""

import copy
from collections.abc import Callable, Sequence

import bench_masking
import torch
from bench_reward_loop import reward_loop
from timing import Figure
from torch import Tensor, nn
from torch.nn import functional

from apga_core.config import PRESETS as APGA_PRESETS
from gpu.rows import Row, Size, clock_of, needs_cuda
from imaging_core.classifiers import Classifier, build_classifier
from imaging_core.descent import Descent, FlatOptimiser
from imaging_core.precision import Precision, autocast
from imaging_core.seeding import torch_generator
from selection_core.config import PRESETS as SELECTION_PRESETS
from selection_core.config import SelectionConfig
from selection_core.controller_selection import reward_fit

STEP_LIMIT = 1.15
WARM_UPS = 3
TIMM = {"resnet34": (2036.51, 512), "densenet169": (752.52, 256)}
"""Training images per second, batch: of timm's results/benchmark-train-amp-nhwc-pt112-cu113-rtx3090
(an RTX 3090, mixed precision, channels last, 224 px), its newest training figures of them."""


def masking(device: str, size: Size) -> list[Row]:
    """Masks of a batch against one image at a time, and APGA's step against its bare passes."""
    clock, found = clock_of(device), []
    demo = APGA_PRESETS["demo"]
    settings = {
        "demo preset": ({**demo}, size.small_side),
        "pixel-wise": ({**demo, **bench_masking.PIXEL_WISE}, size.small_side),
    }
    for name, (values, side) in settings.items():
        arm, images, labels = bench_masking.arm_of(values, side, device, size.batch)
        masks = bench_masking.masks(name, arm.policy, images, clock=clock, runs=size.runs)
        found.append(Row(part="masking", what=masks.what, value=masks.ratio, unit="×"))
        step = bench_masking.step(name, arm, images, labels, clock=clock, runs=size.runs)
        found += _step_rows(f"{name}, float32", step, side)
    paper = dict(APGA_PRESETS["paper"])
    if device == "cpu":  # the published networks take seconds a step there
        paper |= {"classifier": "tiny-resnet", "policy_network": "small-unet"}
    for precision in ("float32", "bfloat16"):
        values = {**paper, "precision": precision}
        arm, images, labels = bench_masking.arm_of(values, size.side, device, size.batch)
        name = f"paper preset, {precision}"
        step = bench_masking.step(name, arm, images, labels, clock=clock, runs=size.runs)
        found += _step_rows(name, step, size.side)
    return found


def _step_rows(name: str, step: Figure, side: int) -> list[Row]:
    against = 1 / step.ratio
    what = f"APGA's step ({name}, {side} px)"
    return [
        Row(part="masking", what=what, value=step.ours_s * 1e3, unit="ms"),
        Row(
            part="masking", what=f"{what} ÷ its bare passes", value=against, unit="×",
            goal=f"≤ {STEP_LIMIT}", met=against <= STEP_LIMIT,
        ),
    ]  # fmt: skip


class Stepper:
    """Training steps of a classifier on batches of one shape, as a reward makes them.

    `step` is what a CUDA graph can hold: nothing in it looks at a number on the host.
    """

    def __init__(self, model: Classifier, descent: Descent, batch: Tensor, labels: Tensor) -> None:
        self.model = model.to(memory_format=torch.channels_last).train()
        self.images = batch.contiguous(memory_format=torch.channels_last).clone()
        self.labels = labels.clone()
        self.optimiser = FlatOptimiser(self.model.parameters(), descent)

    def step(self) -> None:
        """One update from `images` and `labels`, which the caller has filled."""
        self.optimiser.zero_grad()
        functional.cross_entropy(self.model(self.images), self.labels).backward()
        self.optimiser.step()

    def run(self, batches: Sequence[tuple[Tensor, Tensor]], step: Callable[[], None]) -> None:
        """A step on each batch."""
        for images, labels in batches:
            self.images.copy_(images)
            self.labels.copy_(labels)
            step()


def captured(stepper: Stepper) -> Callable[[], None]:
    """`stepper.step` as one CUDA graph. The warm-ups change the model, as steps do."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UPS):
            stepper.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stepper.step()
    return graph.replay


def reward(device: str, size: Size) -> list[Row]:
    """The demo's reward as it is, then its training steps eager and as a CUDA graph."""
    config = SelectionConfig(**SELECTION_PRESETS["demo"])
    how, clock = reward_fit(config), clock_of(device)
    loop = reward_loop(config, device)
    loop.environment.reward(loop.keep)
    began = clock()
    for _ in range(size.rewards):
        loop.environment.reward(loop.keep)
    each = (clock() - began) / size.rewards
    found = [Row(part="reward", what="one reward of the demo preset", value=each * 1e3, unit="ms")]
    batches = batches_of(*loop.candidates, how.batch_size, config.reward_steps)
    eager = Stepper(copy.deepcopy(loop.initial), how.descent, *batches[0])
    eager.run(batches[:WARM_UPS], eager.step)
    found.append(_steps("its steps, eager", eager, batches, eager.step, device, size.rewards))
    what = "its steps as a CUDA graph"
    if device != "cuda":
        return [*found, needs_cuda("reward", what)]
    graphed = Stepper(copy.deepcopy(loop.initial), how.descent, *batches[0])
    replay = captured(graphed)
    found.append(_steps(what, graphed, batches, replay, device, size.rewards))
    gain = (found[-1].value or 0.0) / (found[-2].value or 1.0)
    return [*found, Row(part="reward", what="CUDA graph ÷ eager", value=gain, unit="×")]


def batches_of(images, labels: Tensor, batch: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """`count` batches of standardised images and their labels, going round."""
    rows = torch.arange(batch * count, device=labels.device) % len(labels)
    return [(images[some], labels[some]) for some in rows.split(batch)]


def _steps(
    what: str, stepper: Stepper, batches, step: Callable[[], None], device: str, times: int
) -> Row:
    clock = clock_of(device)
    began = clock()
    for _ in range(times):
        stepper.run(batches, step)
    seconds = clock() - began
    value = times * len(batches) / seconds
    return Row(part="reward", what=what, value=value, unit="steps/s")


def precision(device: str, size: Size) -> list[Row]:
    """Images per second of the papers' classifiers, by precision and memory format."""
    found = []
    for name in size.networks:
        for kind in ("float32", "bfloat16"):
            for layout in (torch.contiguous_format, torch.channels_last):
                found += _speed(name, kind, layout, device, size)
    return found


def _speed(
    name: str, kind: Precision, layout: torch.memory_format, device: str, size: Size
) -> list[Row]:
    batch, side, clock = size.networks_batch, size.networks_side, clock_of(device)
    model: nn.Module = build_classifier(
        name, channels=3, classes=2, size=side, generator=torch_generator(0, "net")
    ).to(device)
    model = model.to(memory_format=layout)
    generator = torch_generator(0, "images")
    images = torch.randn(batch, 3, side, side, generator=generator).to(device)
    images = images.contiguous(memory_format=layout)
    labels = (torch.arange(batch) % 2).to(device)
    optimiser = FlatOptimiser(model.parameters(), Descent(kind="adamw", learning_rate=1e-4))

    def train() -> None:
        optimiser.zero_grad()
        with autocast(images.device, kind):
            logits = model(images)
        functional.cross_entropy(logits.float(), labels).backward()
        optimiser.step()

    @torch.inference_mode()
    def show() -> None:
        with autocast(images.device, kind):
            model(images)

    words = "channels last" if layout == torch.channels_last else "contiguous"
    what = f"{name}, {side} px, batch {batch}, {kind}, {words}"
    found = []
    for mode, call in (("training", train), ("inference", show)):
        model.train(mode == "training")
        for _ in range(min(WARM_UPS, size.networks_steps)):
            call()
        began = clock()
        for _ in range(size.networks_steps):
            call()
        value = size.networks_steps * batch / (clock() - began)
        note = ""
        if mode == "training" and kind == "bfloat16" and words == "channels last" and name in TIMM:
            speed, theirs = TIMM[name]
            note = f"timm on an RTX 3090, batch {theirs}, float16 autocast: {speed:,.0f} images/s"
        name_of = f"{mode}: {what}"
        found.append(Row(part="precision", what=name_of, value=value, unit="images/s", note=note))
    return found
