"""Training the class-conditional GAN on training images, keeping snapshots on the way.

Hinge loss (Lim and Ye 2017), the same random flips and shifts of real and generated images inside
both players' losses (differentiable augmentation, Zhao et al. 2020), averaged generator weights.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

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


def train_generator(
    images: np.ndarray,  # (N, C, H, W) uint8, training images only
    labels: np.ndarray,  # (N,) int64
    classes: int,
    *,
    config: GanConfig,
    seed: int,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> list[dict[str, Tensor]]:
    """Train, and return the averaged generator's weights at evenly spaced steps, last included.

    Raises:
        FloatingPointError: a loss became infinite or NaN; lower the learning rates.
    """
    shape = {"classes": classes, "channels": images.shape[1], "size": images.shape[2:]}
    drawn = torch_generator(seed, "gan/weights")
    network = build_generator(config, **shape)
    draw_network(network, drawn).to(device, memory_format=torch.channels_last)
    critic = draw_network(Discriminator(width=config.width, **shape), drawn)
    critic.to(device, memory_format=torch.channels_last)
    averaged = copy.deepcopy(network)
    betas = (0.0, 0.9)
    for_g = torch.optim.Adam(network.parameters(), config.generator_learning_rate, betas)
    for_d = torch.optim.Adam(critic.parameters(), config.discriminator_learning_rate, betas)
    x = torch.from_numpy(np.ascontiguousarray(images)).to(device).float().div_(127.5).sub_(1)
    onehots = functional.one_hot(torch.from_numpy(labels).to(device), classes).float()

    draws = torch_generator(seed, "gan/draws")
    keep_at = {config.steps * (i + 1) // config.snapshots for i in range(config.snapshots)}
    snapshots: list[dict[str, Tensor]] = []
    for step in range(1, config.steps + 1):
        rows = torch.randint(len(x), (config.batch,), generator=draws).to(device)
        onehot = onehots[rows]
        z = torch.randn(config.batch, config.latent, generator=draws).to(device)
        fake = network(z, onehot)
        # One pass over both halves: no batch norm in the critic, so they do not mix.
        both = augment(torch.cat([x[rows], fake.detach()]), draws)
        real_score, fake_score = critic(both, onehot.repeat(2, 1)).chunk(2)
        d_loss = discriminator_loss(real_score, fake_score)
        for_d.zero_grad(set_to_none=True)
        d_loss.backward()
        for_d.step()

        critic.requires_grad_(False)
        g_loss = generator_loss(critic(augment(fake, draws), onehot))
        for_g.zero_grad(set_to_none=True)
        g_loss.backward()
        for_g.step()
        critic.requires_grad_(True)
        _average(averaged, network, min(config.ema, step / (step + 10)))

        if step in keep_at:
            if not bool(torch.isfinite(d_loss + g_loss)):
                raise FloatingPointError(
                    f"the GAN's losses must be finite, got {float(d_loss)} and {float(g_loss)} "
                    f"at step {step}; lower generator_ and discriminator_learning_rate"
                )
            taken = copy.deepcopy(averaged)
            settle_norms(taken, config.latent, classes, torch_generator(seed, "gan/norms"))
            snapshots.append({k: v.cpu().contiguous() for k, v in taken.state_dict().items()})
        if step % 20 == 0 or step == config.steps:
            progress(step / config.steps, f"generator step {step}/{config.steps}")
    return snapshots


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
