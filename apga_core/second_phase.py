"""The second phase of an arm (Alg. 1, lines 3-18), which may be killed and gone on with."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Generator, Tensor

from apga_core.arms import Arm, PolicyArm, rewarded_rows
from apga_core.config import APGAConfig
from apga_core.learner import State, load_state, state_of, to_device
from imaging_core.augment import AUGMENTATIONS
from imaging_core.checkpoint import (
    Checkpoint,
    array_of,
    host_copies,
    load_generators,
    load_modules,
    numbers,
    prefixed,
    state_of_generators,
    state_of_modules,
    tensors_of,
    under,
)
from imaging_core.fitting import accuracy
from imaging_core.seeding import torch_generator
from imaging_core.standardised import Images
from imaging_core.task import Arrays, Progress


@dataclass(kw_only=True)
class _Past:
    """What the phase remembers; `index` is the next batch of `epoch`, -1 before the warm-up.

    Attributes:
        losses: mean losses of this epoch's batches, () each.
        best_state, best_policy: of the learner's networks, and of the policy, at `best_epoch`.
    """

    epoch: int = 0
    index: int = -1
    best_epoch: int = 0
    curves: dict[str, list[float]] = field(
        default_factory=lambda: {"validation_accuracy": [], "loss": []}
    )
    losses: list[Tensor] = field(default_factory=list)
    best_state: State = ()
    best_policy: State = ()

    def state(self) -> Arrays:
        """All of it, as arrays."""
        found = {"counts": np.array([self.epoch, self.index, self.best_epoch])}
        found |= prefixed("curves", {k: numbers(v) for k, v in self.curves.items()})
        if self.losses:
            found["losses"] = array_of(torch.stack(self.losses))
        for name, networks in (("best", self.best_state), ("best_policy", self.best_policy)):
            for place, network in enumerate(networks):
                found |= prefixed(f"{name}/{place}", host_copies(network))
        return found

    def load(self, left: Arrays, device: torch.device, networks: int, policies: int) -> None:
        """Put back what `state` said, of so many networks of the learner, and policies."""
        self.epoch, self.index, self.best_epoch = left["counts"].tolist()
        self.curves = {k: v.tolist() for k, v in under(left, "curves").items()}
        if "losses" in left:
            self.losses = list(tensors_of({"": left["losses"]})[""].to(device))
        if self.curves["validation_accuracy"]:  # a network without a state of its own left nothing
            self.best_state, self.best_policy = (
                tuple(tensors_of(under(left, f"{name}/{place}")) for place in range(count))
                for name, count in (("best", networks), ("best_policy", policies))
            )


def second_phase(
    config: APGAConfig,
    arm: Arm,
    images: Images,
    labels: Tensor,
    validation: tuple[Images, Tensor],
    seed: int,
    generator: Generator,
    progress: Progress,
    checkpoint: Checkpoint,
) -> tuple[dict[str, tuple[float, ...]], State]:
    """Train in place; the classifier is left at its best epoch, the policy at its last.

    The order of the batches depends on the seed alone, so that arms see the same ones.

    Args:
        generator: that the arm draws from.

    Returns:
        curves: per epoch.
        policy: the policy's state at the classifier's best epoch; empty without a policy.
    """
    order = torch_generator(seed, "apga/order")
    begun = Generator().set_state(order.get_state())  # as the order was when the epoch began
    of_statistics = torch_generator(seed, "apga/statistics")
    generators = (order, begun, of_statistics, generator)
    draw = _batches(config, images, labels)
    batches = math.ceil(len(labels) / config.batch_size)
    epochs = max(config.epochs, math.ceil(config.min_steps / batches))
    learner, past = arm.learner, _Past()
    policies = [arm.policy] if isinstance(arm, PolicyArm) else []

    def state() -> Arrays:
        found = past.state() | prefixed("generators", state_of_generators(generators))
        found |= prefixed("learner", learner.state())
        return found | (prefixed("arm", _state_of_arm(arm)) if isinstance(arm, PolicyArm) else {})

    with checkpoint.section("second-phase", state) as left:
        if left is not None:
            past.load(left, learner.device, len(learner.networks), len(policies))
            load_generators(generators, under(left, "generators"))
            learner.load(under(left, "learner"))
            if isinstance(arm, PolicyArm):
                _load_arm(arm, under(left, "arm"))
        if past.index < 0:
            _warm_up(config, arm, draw, len(labels), seed)
            past.index = 0
        curves = past.curves
        for epoch in range(past.epoch, epochs):
            if past.index:  # a resumed epoch: its order is drawn anew
                now = order.get_state()
                order.set_state(begun.get_state())
            else:
                begun.set_state(order.get_state())
            permuted = torch.randperm(len(labels), generator=order)
            if past.index:
                order.set_state(now)
            for index, rows in enumerate(permuted.split(config.batch_size)):
                if index < past.index:
                    continue
                if index:  # before the first batch there is nothing that a new epoch would not do
                    past.index = index
                    checkpoint.tick()
                batch, of_batch, rewarded = draw(rows, order)
                original = learner.update(batch, of_batch)
                arm.second_step(batch, of_batch, original, rewarded)
                past.losses.append(original.mean())
            loss = float(torch.stack(past.losses).mean())
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss must be finite, got {loss} in epoch {epoch + 1} of the second "
                    "phase; lower learning_rate"
                )
            curves["loss"].append(loss)
            learner.before_scoring(images, config.batch_size, of_statistics)
            score = accuracy(learner.classifier, *validation, precision=config.precision)
            curves["validation_accuracy"].append(score)
            if isinstance(arm, PolicyArm):
                for name, value in arm.trace.mean().items():
                    curves.setdefault(name, []).append(value)
            if not epoch or score > curves["validation_accuracy"][past.best_epoch]:
                past.best_epoch = epoch
                past.best_state, past.best_policy = state_of(learner.networks), state_of(policies)
            past.epoch, past.index, past.losses = epoch + 1, 0, []
            progress((epoch + 1) / epochs, f"epoch {epoch + 1} of {epochs}", curves)
            if config.patience and epoch - past.best_epoch >= config.patience:
                break
            checkpoint.tick()
    load_state(learner.networks, past.best_state)
    return {name: tuple(values) for name, values in curves.items()}, past.best_policy


def _state_of_arm(arm: PolicyArm) -> Arrays:
    """What a policy arm has learnt and counted."""
    found = {
        **prefixed("policy", state_of_modules([arm.policy])),
        **prefixed("optimiser", arm.optimiser.state()),
        **prefixed("trace", arm.trace.state()),
        "counts": np.array([arm.policy_steps, arm.aided, arm.empty]),
    }
    return found | prefixed("running", host_copies(arm.running))


def _load_arm(arm: PolicyArm, left: Arrays) -> None:
    """Put back what `_state_of_arm` said."""
    load_modules([arm.policy], under(left, "policy"))
    arm.optimiser.load(under(left, "optimiser"))
    arm.trace.load(under(left, "trace"), arm.learner.device)
    arm.policy_steps, arm.aided, arm.empty = left["counts"].tolist()
    running = tensors_of(under(left, "running"))
    arm.running = {name: value.to(arm.learner.device) for name, value in running.items()}


def _batches(
    config: APGAConfig, images: Images, labels: Tensor
) -> Callable[[Tensor, Generator], tuple[Tensor, Tensor, Tensor | None]]:
    """Rows on the host → their images, labels and `rewarded_rows` on the device, no waiting."""
    augment, on_host = AUGMENTATIONS[config.augment], labels.cpu()

    def draw(rows: Tensor, generator: Generator) -> tuple[Tensor, Tensor, Tensor | None]:
        rewarded = rewarded_rows(config, on_host[rows])
        if rewarded is not None:
            rewarded = to_device(rewarded, images.device)
        rows = to_device(rows, images.device)
        return augment(images[rows], generator), labels[rows], rewarded

    return draw


def _warm_up(
    config: APGAConfig,
    arm: Arm,
    draw: Callable[[Tensor, Generator], tuple[Tensor, Tensor, Tensor | None]],
    count: int,
    seed: int,
) -> None:
    """`policy_warmup_steps` batches on which the policy learns against the frozen classifier."""
    if not isinstance(arm, PolicyArm):
        return
    generator = torch_generator(seed, "apga/warm-up")
    for _ in range(config.policy_warmup_steps):
        rows = torch.randperm(count, generator=generator)[: config.batch_size]
        batch, of_batch, rewarded = draw(rows, generator)
        arm.learn(batch, of_batch, rewarded=rewarded)
    arm.trace.mean()
