"""Training the class-conditional GAN on training images, keeping snapshots on the way.

Hinge loss (Lim and Ye 2017), the same random flips and shifts of real and generated images inside
both players' losses (differentiable augmentation, Zhao et al. 2020), averaged generator weights.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from imaging_core.checkpoint import NO_CHECKPOINT, Checkpoint
from imaging_core.seeding import torch_generator
from imaging_core.task import Progress, no_progress
from selection_core.gan import Discriminator, Generator, draw_network


@dataclass(frozen=True, kw_only=True)
class GanConfig:
    """Sizes and rates of one GAN training; see SelectionConfig's generator_* fields."""

    steps: int
    snapshots: int
    batch: int
    width: int
    latent: int
    generator_learning_rate: float
    discriminator_learning_rate: float
    ema: float


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """mean max(0, 1 − D(x)) + mean max(0, 1 + D(G(z))); (B,) each."""
    return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """−mean D(G(z)); (B,)."""
    return -fake.mean()


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """(B, C, H, W), each image mirrored at random in both axes and shifted by up to 1/8, zeros in.

    Differentiable in `x`; draws come from `generator` (CPU) whatever the device.
    """
    count, _, height, width = x.shape
    mirror = torch.rand(2, count, generator=generator).to(x.device) < 0.5
    x = torch.where(mirror[0].view(-1, 1, 1, 1), x.flip(3), x)
    x = torch.where(mirror[1].view(-1, 1, 1, 1), x.flip(2), x)
    reach = (height // 8, width // 8)
    dy = torch.randint(-reach[0], reach[0] + 1, (count,), generator=generator).to(x.device)
    dx = torch.randint(-reach[1], reach[1] + 1, (count,), generator=generator).to(x.device)
    padded = functional.pad(x, (reach[1], reach[1], reach[0], reach[0]))
    rows = torch.arange(height, device=x.device) + (dy + reach[0]).unsqueeze(1)  # (B, H)
    columns = torch.arange(width, device=x.device) + (dx + reach[1]).unsqueeze(1)  # (B, W)
    batch = torch.arange(count, device=x.device).view(-1, 1, 1)
    moved = padded.permute(0, 2, 3, 1)[batch, rows.unsqueeze(2), columns.unsqueeze(1)]
    return moved.permute(0, 3, 1, 2)


@torch.no_grad()
def _average(averaged: nn.Module, live: nn.Module, decay: float) -> None:
    for old, new in zip(averaged.parameters(), live.parameters(), strict=True):
        old.lerp_(new, 1 - decay)


@torch.no_grad()
def settle_norms(network: Generator, latent: int, classes: int, generator: torch.Generator) -> None:
    """Re-estimate the batch-norm statistics, which weight averaging leaves behind."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    device = next(network.parameters()).device
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean
    network.train()
    labels = torch.arange(128).remainder(classes)
    onehot = functional.one_hot(labels, classes).float().to(device)
    for _ in range(4):
        network(torch.randn(len(labels), latent, generator=generator).to(device), onehot)
    network.eval()


def build_generator(
    config: GanConfig, *, classes: int, channels: int, size: tuple[int, int]
) -> Generator:
    """The generator network, undrawn; load a snapshot into it."""
    return Generator(
        latent=config.latent, classes=classes, channels=channels, size=size, width=config.width
    )


class GanTraining:
    """A training that can be cut anywhere: `run` to a step, take `state`, `load` it elsewhere.

    Attributes:
        step: steps made.
        snapshots: the averaged generator's weights at evenly spaced steps, the last included.
    """

    def __init__(
        self,
        images: np.ndarray,  # (N, C, H, W) uint8, training images only
        labels: np.ndarray,  # (N,) int64
        classes: int,
        *,
        config: GanConfig,
        seed: int,
        device: str = "cpu",
    ):
        shape = {"classes": classes, "channels": images.shape[1], "size": images.shape[2:]}
        drawn = torch_generator(seed, "gan/weights")
        self.config, self.classes, self.seed, self.device = config, classes, seed, device
        self.network = draw_network(build_generator(config, **shape), drawn)
        self.critic = draw_network(Discriminator(width=config.width, **shape), drawn)
        for net in (self.network, self.critic):
            net.to(device, memory_format=torch.channels_last)
        self.averaged = copy.deepcopy(self.network)
        betas = (0.0, 0.9)
        self.for_g = torch.optim.Adam(
            self.network.parameters(), config.generator_learning_rate, betas
        )
        self.for_d = torch.optim.Adam(
            self.critic.parameters(), config.discriminator_learning_rate, betas
        )
        self.x = torch.from_numpy(np.ascontiguousarray(images)).to(device)
        self.onehots = functional.one_hot(torch.from_numpy(labels).to(device), classes).float()
        self.draws = torch_generator(seed, "gan/draws")
        self.step = 0
        self.snapshots: list[dict[str, Tensor]] = []

    def run(
        self,
        until: int,
        progress: Progress = no_progress,
        checkpoint: Checkpoint = NO_CHECKPOINT,
    ) -> None:
        """Train up to step `until` of `config.steps`.

        Raises:
            FloatingPointError: a loss became infinite or NaN; lower the learning rates.
        """
        config = self.config
        keep_at = {config.steps * (i + 1) // config.snapshots for i in range(config.snapshots)}
        while self.step < until:
            checkpoint.tick()
            d_loss, g_loss = self._update()
            self.step += 1
            _average(self.averaged, self.network, min(config.ema, self.step / (self.step + 10)))
            if self.step in keep_at:
                self._keep(d_loss, g_loss)
            if self.step % 20 == 0 or self.step == config.steps:
                progress(self.step / config.steps, f"generator step {self.step}/{config.steps}")

    def _update(self) -> tuple[Tensor, Tensor]:
        config, draws = self.config, self.draws
        rows = torch.randint(len(self.x), (config.batch,), generator=draws).to(self.device)
        onehot = self.onehots[rows]
        real = self.x[rows].float().div(127.5).sub(1)
        z = torch.randn(config.batch, config.latent, generator=draws).to(self.device)
        fake = self.network(z, onehot)
        # One pass over both halves: no batch norm in the critic, so they do not mix.
        both = augment(torch.cat([real, fake.detach()]), draws)
        real_score, fake_score = self.critic(both, onehot.repeat(2, 1)).chunk(2)
        d_loss = discriminator_loss(real_score, fake_score)
        self.for_d.zero_grad(set_to_none=True)
        d_loss.backward()
        self.for_d.step()

        self.critic.requires_grad_(False)
        g_loss = generator_loss(self.critic(augment(fake, draws), onehot))
        self.for_g.zero_grad(set_to_none=True)
        g_loss.backward()
        self.for_g.step()
        self.critic.requires_grad_(True)
        return d_loss, g_loss

    def _keep(self, d_loss: Tensor, g_loss: Tensor) -> None:
        if not bool(torch.isfinite(d_loss + g_loss)):
            raise FloatingPointError(
                f"the GAN's losses must be finite, got {float(d_loss)} and {float(g_loss)} "
                f"at step {self.step}; lower generator_ and discriminator_learning_rate"
            )
        taken = copy.deepcopy(self.averaged)
        norms = torch_generator(self.seed, "gan/norms")
        settle_norms(taken, self.config.latent, self.classes, norms)
        self.snapshots.append({k: v.cpu().contiguous() for k, v in taken.state_dict().items()})

    def _modules(self) -> dict[str, nn.Module]:
        return {"network": self.network, "critic": self.critic, "averaged": self.averaged}

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        return {"for_g": self.for_g, "for_d": self.for_d}

    def state(self) -> dict[str, np.ndarray]:
        """Everything that the next step depends on, and the snapshots so far, as flat arrays."""
        found: dict[str, Tensor] = {
            "step": torch.tensor(self.step),
            "draws": self.draws.get_state(),
        }
        for name, module in self._modules().items():
            found |= {f"{name}/{k}": v for k, v in module.state_dict().items()}
        for name, optimiser in self._optimisers().items():
            for index, values in optimiser.state_dict()["state"].items():
                found |= {f"{name}/{index}/{k}": v for k, v in values.items()}
        arrays = {k: v.detach().cpu().contiguous().numpy().copy() for k, v in found.items()}
        return arrays | snapshot_arrays(self.snapshots)

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on where `state` was taken, with the same bits as if never stopped."""
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in state.items()}
        self.step = int(tensors["step"])
        self.draws.set_state(tensors["draws"])
        for name, module in self._modules().items():
            module.load_state_dict(_under(tensors, name))
        for name, optimiser in self._optimisers().items():
            values: dict[int, dict[str, Tensor]] = {}
            for key, tensor in _under(tensors, name).items():
                index, _, kind = key.partition("/")
                # Storage gives Adam's step, a scalar, back as one of one element.
                values.setdefault(int(index), {})[kind] = (
                    tensor.reshape(()) if kind == "step" else tensor
                )
            optimiser.load_state_dict({**optimiser.state_dict(), "state": values})
        self.snapshots = read_snapshots(state)


def _under(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}/"): v for k, v in tensors.items() if k.startswith(f"{name}/")}


def snapshot_arrays(snapshots: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    """`<snapshot>/<parameter>` → array, in order of training."""
    return {
        f"{index}/{name}": value.numpy()
        for index, snapshot in enumerate(snapshots)
        for name, value in snapshot.items()
    }


def read_snapshots(arrays: Mapping[str, np.ndarray]) -> list[dict[str, Tensor]]:
    """The inverse of `snapshot_arrays`; other names are passed over."""
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in arrays.items():
        index, _, name = key.partition("/")
        if index.isdecimal():
            found.setdefault(int(index), {})[name] = torch.from_numpy(np.array(value))
    return [found[index] for index in sorted(found)]


@torch.inference_mode()
def sample(
    network: Generator,
    labels: np.ndarray,  # (N,)
    latents: Tensor,  # (N, latent)
    classes: int,
    *,
    device: str = "cpu",
    batch: int = 256,
) -> np.ndarray:
    """(N, C, H, W) uint8 images of the wanted classes."""
    network = network.to(device).eval()
    onehot = functional.one_hot(torch.from_numpy(labels), classes).float()
    chunks = [
        network(z.to(device), y.to(device)).add(1).mul(127.5).round().clamp(0, 255).byte().cpu()
        for z, y in zip(latents.split(batch), onehot.split(batch), strict=True)
    ]
    return torch.cat(chunks).numpy()
