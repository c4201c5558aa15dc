"""One reward of the demo preset against the same training written as a plain PyTorch loop.

The rivals train `torch.nn`'s own layers with torch's default AdamW and OneCycleLR and score the
validation images after every epoch. Three kinds of plain loop: as such loops are commonly written
(a Dataset of images in memory with torchvision's ToTensor and Normalize, DataLoaders); the same
with a Dataset that scales a tensor in two operations; and with everything standardised beforehand
and resident, batches taken by index. The fourth figure is the floor: the forward and backward
passes of the same batches, and forward passes of the validation images where the reward reads
their score.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from timing import Figure, paired
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchvision import transforms

from imaging_core.classifiers import Classifier, build_classifier
from imaging_core.datasets import load
from imaging_core.datasets.base import Split
from imaging_core.fitting import epochs_read, last_epochs_reward
from imaging_core.seeding import numpy_generator, torch_generator
from imaging_core.splits import k_shot, k_shot_index
from imaging_core.standardised import Images
from selection_core.config import PRESETS, SelectionConfig
from selection_core.controller_selection import reward_fit
from selection_core.environment import ClassifierReward
from selection_core.stages import labelled


class Transformed(Dataset):
    """Labelled images, each through torchvision's transforms when it is asked for."""

    def __init__(self, part: Split, mean: np.ndarray, std: np.ndarray) -> None:
        self.images = [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in part.images]
        self.labels = part.labels
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize(mean.tolist(), std.tolist())]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), int(self.labels[index])


class Scaled(Dataset):
    """Labelled images, each standardised by two tensor operations."""

    def __init__(self, part: Split, mean: np.ndarray, std: np.ndarray) -> None:
        self.part = part
        self.mean = torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1)
        self.std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.part.images[index]).float() / 255
        return (image - self.mean) / self.std, int(self.part.labels[index])


def plain(network: nn.Module) -> nn.Module:
    """A copy whose convolutions are torch's own."""
    copied = copy.deepcopy(network)
    for layer in copied.modules():
        if isinstance(layer, nn.Conv2d):
            layer.__class__ = nn.Conv2d
    return copied


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The reward loop of a configuration, on the embedded slide.

    Attributes:
        initial: the classifier that each reward starts from.
        part, pool, watched: real images, candidates, and those that a reward is read from.
        real, candidates, validation: the same with their labels, on the device.
        keep: (candidates,) bool, half of them.
    """

    environment: ClassifierReward
    initial: Classifier
    part: Split
    pool: Split
    watched: Split
    real: tuple[Images, Tensor]
    candidates: tuple[Images, Tensor]
    validation: tuple[Images, Tensor]
    keep: np.ndarray


def reward_loop(config: SelectionConfig, device: str = "cpu") -> Loop:
    """What a reward of `config` needs, its candidates being real images."""
    data = load("ihc-colon")
    part = k_shot(data.train, config.k_shot, 0)
    watched = data.validation
    if config.validation_per_class:
        watched = watched.take(k_shot_index(watched, config.validation_per_class, 0))
    pool = data.train.take(k_shot_index(data.train, config.pool_per_class, 1))
    keep = numpy_generator(0, "benchmark").permutation(len(pool)) < len(pool) // 2
    initial = build_classifier(
        config.reward_classifier, channels=data.channels, classes=len(data.classes),
        size=data.size, generator=torch_generator(0, "reward/weights"),
    )  # fmt: skip
    for layer in initial.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = config.reward_norm_momentum
    initial = initial.to(device)
    real, candidates, validation = (labelled(x, part, device) for x in (part, pool, watched))
    environment = ClassifierReward(
        [initial], real=real, pool=candidates, validation=validation,
        fit_config=reward_fit(config), updates=config.reward_steps,
        statistic=config.reward_statistic, metric=config.reward_metric, seed=0,
    )  # fmt: skip
    return Loop(
        environment=environment, initial=initial, part=part, pool=pool, watched=watched, real=real,
        candidates=candidates, validation=validation, keep=keep,
    )  # fmt: skip


def figures() -> list[Figure]:
    """32 real images, half of 256 candidates, 20 steps of 32, 256 validation images."""
    torch.set_num_threads(1)
    # By passes over the images, as the loops that it is held against go, and without augmentation.
    by_passes = {"reward_steps": 0, "reward_epochs": 1, "reward_min_steps": 20}
    config = SelectionConfig(**{**PRESETS["demo"], **by_passes, "reward_augment": "none"})
    how, loop_of = reward_fit(config), reward_loop(config)
    part, pool, watched, keep = loop_of.part, loop_of.pool, loop_of.watched, loop_of.keep
    real, candidates, validation = loop_of.real, loop_of.candidates, loop_of.validation
    environment, initial = loop_of.environment, loop_of.initial
    classes = initial.head.out_features
    torchs_own = plain(initial)
    count = len(part) + int(keep.sum())
    per_epoch = math.ceil(count / how.batch_size)
    epochs = max(how.epochs, math.ceil(how.min_steps / per_epoch))

    def ours() -> None:
        environment.reward(keep)

    def loop(batches, scoring) -> None:
        """`batches()` and `scoring()`: (images, labels) of one epoch, one after the other."""
        model = copy.deepcopy(torchs_own)
        optimiser = torch.optim.AdamW(
            model.parameters(), lr=how.learning_rate, weight_decay=how.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, how.learning_rate, total_steps=epochs * per_epoch, cycle_momentum=False
        )
        scores = []
        for _ in range(epochs):
            model.train()
            for x, y in batches():
                optimiser.zero_grad()
                functional.cross_entropy(model(x), y).backward()
                optimiser.step()
                schedule.step()
            model.eval()
            with torch.no_grad():
                right = sum((model(x).argmax(1) == y).sum().item() for x, y in scoring())
            scores.append(right / len(watched))
        last_epochs_reward(tuple(scores), config.reward_statistic)

    def with_loaders(kind: type[Dataset]) -> Callable[[], None]:
        own, generated, scored = (kind(x, *part.mean_std) for x in (part, pool, watched))

        def call() -> None:
            chosen = Subset(generated, np.flatnonzero(keep).tolist())
            training = DataLoader(
                ConcatDataset([own, chosen]),
                batch_size=how.batch_size, shuffle=True, generator=torch_generator(0, "order"),
            )  # fmt: skip
            scoring = DataLoader(scored, batch_size=how.batch_size)
            loop(lambda: training, lambda: scoring)

        return call

    rows = torch.from_numpy(np.flatnonzero(keep))
    images = torch.cat([real[0][:], candidates[0][rows]])
    scored = (validation[0][:], validation[1])
    labels = torch.cat([real[1], candidates[1][rows]])
    order = torch_generator(0, "order")

    def shuffled():
        for rows in torch.randperm(count, generator=order).split(how.batch_size):
            yield images[rows], labels[rows]

    def resident() -> None:
        loop(shuffled, lambda: [scored])

    bare = copy.deepcopy(initial).to(memory_format=torch.channels_last)
    inputs = [x.contiguous(memory_format=torch.channels_last) for x, _ in shuffled()]
    upstream = torch.full((how.batch_size, classes), 0.1)

    def passes() -> None:
        for epoch in range(epochs):
            bare.train()
            for x in inputs:
                bare(x).backward(upstream[: len(x)])
            if epoch >= epochs - epochs_read(epochs):
                bare.eval()
                with torch.inference_mode():
                    bare(scored[0])

    what = f"one reward training of the demo preset ({count} images, {epochs * per_epoch} steps)"

    return [
        paired(f"{what} against a loop with torchvision's transforms and DataLoader", ours,
               with_loaders(Transformed), limit="≥ 2"),
        paired(f"{what} against that loop with a leaner Dataset", ours, with_loaders(Scaled),
               limit="above 1"),
        paired(f"{what} against that loop with resident tensors", ours, resident, limit="above 1"),
        paired(f"{what} against its bare forward and backward passes", ours, passes,
               limit="at most 1"),
    ]  # fmt: skip


if __name__ == "__main__":
    for figure in figures():
        print(figure)
