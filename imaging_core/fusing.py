"""K replicas of one network as one network: grouped convolutions over replica-major channels.

The replicas differ in weights and data, never in structure. Their images lie side by side in the
channels, (B, K · C, H, W), so one kernel does the work of K: a convolution gets K times the groups,
batch norm and group norm see K times the channels, a linear layer is a batched product (HFTA,
Wang et al., MLSys 2021). No replica reads another's channels, so each computes what it would have
computed alone, up to rounding.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

PLAIN = (
    nn.Identity,
    nn.ReLU,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
)
"""Layers without parameters that treat every channel alone, and so need no other form."""


class Rows:
    """How many rows of the padded batch each replica owns; None: all of them."""

    def __init__(self, replicas: int) -> None:
        self.replicas = replicas
        self.counts: Tensor | None = None  # (K,) float
        self.mask: Tensor | None = None  # (B, K) float, 1 = the replica's own row

    def set(self, counts: Sequence[int] | None, batch: int, device: torch.device) -> None:
        """Of the batch that comes next."""
        if counts is None or min(counts) == batch:
            self.counts = self.mask = None
            return
        own = torch.tensor(counts, device=device)
        self.mask = (torch.arange(batch, device=device).unsqueeze(1) < own).float()
        self.counts = own.float()


class _Convolution(nn.Module):
    """K convolutions of one shape as one with K times the groups."""

    def __init__(self, layers: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        first = layers[0]
        if first.padding_mode != "zeros":
            raise TypeError(f'a fused convolution pads with zeros, got "{first.padding_mode}"')
        self.stride, self.padding, self.dilation = first.stride, first.padding, first.dilation
        self.groups = first.groups * len(layers)
        self.weight = _joined([layer.weight for layer in layers], channels_last=True)
        self.bias = None if first.bias is None else _joined([layer.bias for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


class _BatchNorm(nn.Module):
    """K batch norms; rows that pad a replica's batch count for neither mean nor variance."""

    def __init__(self, layers: Sequence[nn.BatchNorm2d], rows: Rows) -> None:
        super().__init__()
        first = layers[0]
        if first.momentum is None or not first.track_running_stats or not first.affine:
            raise TypeError(
                "a fused batch norm has weights, running statistics and a momentum, got "
                f"{first.extra_repr()}"
            )
        self.momentum, self.eps, self.rows = first.momentum, first.eps, rows
        self.weight = _joined([layer.weight for layer in layers])
        self.bias = _joined([layer.bias for layer in layers])
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, torch.cat([getattr(layer, name) for layer in layers]))
        counts = torch.stack([layer.num_batches_tracked for layer in layers])
        self.register_buffer("num_batches_tracked", counts)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked += 1
            if self.rows.mask is not None:
                return self._of_own_rows(x)
        return functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum,
            self.eps,
        )

    def _of_own_rows(self, x: Tensor) -> Tensor:
        per_replica = x.shape[1] // self.rows.replicas
        own = self.rows.mask.repeat_interleave(per_replica, 1)[:, :, None, None]
        count = self.rows.counts.repeat_interleave(per_replica) * (x.shape[2] * x.shape[3])
        mean = (x * own).sum((0, 2, 3)) / count
        centred = (x - mean[:, None, None]) * own
        variance = centred.square().sum((0, 2, 3)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]


class _GroupNorm(nn.Module):
    """K group norms: K times the groups over K times the channels."""

    def __init__(self, layers: Sequence[nn.GroupNorm]) -> None:
        super().__init__()
        self.groups, self.eps = layers[0].num_groups * len(layers), layers[0].eps
        self.weight = _joined([layer.weight for layer in layers])
        self.bias = _joined([layer.bias for layer in layers])

    def forward(self, x: Tensor) -> Tensor:
        return functional.group_norm(x, self.groups, self.weight, self.bias, self.eps)


class _Linear(nn.Module):
    """K linear layers of (B, K · inputs) as one batched product."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.replicas = len(layers)
        self.weight = _joined([layer.weight for layer in layers], new_dim=True)
        self.bias = None
        if layers[0].bias is not None:
            self.bias = _joined([layer.bias for layer in layers], new_dim=True)

    def forward(self, x: Tensor) -> Tensor:
        apart = x.reshape(len(x), self.replicas, -1).transpose(0, 1)
        out = apart @ self.weight.transpose(1, 2)
        if self.bias is not None:
            out = out + self.bias.unsqueeze(1)
        return out.transpose(0, 1).reshape(len(x), -1)


class _Dropout(nn.Module):
    """Replica k's mask comes from generator k, in the shape of its own batch.

    On the CPU these are the draws of `nn.Dropout` after seeding torch's global generator alike;
    a GPU's own kernel draws others of the same law.
    """

    def __init__(self, p: float, generators: Sequence[Generator], rows: Rows) -> None:
        super().__init__()
        self.p, self.generators, self.rows = p, generators, rows

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        counts = None if self.rows.counts is None else self.rows.counts.long().tolist()
        keep = []
        for k, (part, generator) in enumerate(
            zip(x.chunk(self.rows.replicas, dim=1), self.generators, strict=True)
        ):
            own = part if counts is None else part[: counts[k]]
            shape = torch.empty_like(
                own, memory_format=torch.channels_last if own.ndim == 4 else torch.preserve_format
            )
            drawn = shape.bernoulli_(1 - self.p, generator=generator)
            padding = torch.zeros_like(part[len(own) :])
            keep.append(torch.cat([drawn, padding]) if len(padding) else drawn)
        return x * torch.stack(keep, dim=1).flatten(1, 2) / (1 - self.p)


def _joined(
    parts: Sequence[Tensor], *, channels_last: bool = False, new_dim: bool = False
) -> nn.Parameter:
    """The replicas' tensors one after the other, as a parameter."""
    values = [part.detach() for part in parts]
    whole = torch.stack(values) if new_dim else torch.cat(values)
    if channels_last:
        whole = whole.contiguous(memory_format=torch.channels_last)
    return nn.Parameter(whole, requires_grad=parts[0].requires_grad)


class _ReplicaMajor(TorchFunctionMode):
    """`torch.cat(..., dim=1)` inside a network puts each replica's channels side by side."""

    def __init__(self, replicas: int) -> None:
        super().__init__()
        self.replicas = replicas
        self.seen = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is not torch.cat:
            return function(*args, **kwargs)
        dim = kwargs["dim"] if "dim" in kwargs else (*args, 0)[1]
        parts = args[0] if args else kwargs["tensors"]
        if dim != 1:
            return function(*args, **kwargs)
        self.seen += 1
        apart = [part.unflatten(1, (self.replicas, -1)) for part in parts]
        return torch.cat(apart, 2).flatten(1, 2)


class Fused(nn.Module):
    """The `models` as one network; (K, B, C, H, W) → (K, B, …).

    Until `release` the tensors of the models are views of the fused ones: a step of the fused
    network moves them all, and each can be asked alone.

    Between its layers a network may use what treats channels alone (elementwise functions, means
    and pooling over positions, interpolation) and `torch.cat` along the channels.

    Args:
        models: of one structure, on one device.
        dropout: one generator for each model; needed where a dropout layer is active.

    Raises:
        ValueError: the models differ in structure, or dropout has no generators.
        TypeError: a layer that has no fused form.
    """

    def __init__(
        self, models: Sequence[nn.Module], dropout: Sequence[Generator] | None = None
    ) -> None:
        super().__init__()
        if not models:
            raise ValueError("fusing needs at least one model, got none")
        if len({structure(model) for model in models}) > 1:
            raise ValueError("fused models must have one structure (layers, shapes, settings)")
        self.models = tuple(models)  # a tuple: their parameters are not this module's twice
        self.replicas = len(models)
        self.rows = Rows(self.replicas)
        self._concatenates: bool | None = None  # unknown before the first batch
        fused: dict[int, nn.Module] = {}
        self.network = copy.deepcopy(models[0])
        for name, layer in list(self.network.named_modules(remove_duplicate=False)):
            if next(layer.children(), None) is not None:
                if next(layer.parameters(recurse=False), None) is not None:
                    raise TypeError(f"{type(layer).__name__} holds parameters beside its layers")
                continue
            if isinstance(layer, PLAIN):
                continue
            peers = [model.get_submodule(name) for model in models]
            if id(layer) not in fused:  # a layer may be used in two places
                fused[id(layer)] = self._fuse(peers, dropout)
            if name:
                parent, _, leaf = name.rpartition(".")
                setattr(self.network.get_submodule(parent), leaf, fused[id(layer)])
            else:
                self.network = fused[id(layer)]
        self.train(models[0].training)

    def _fuse(self, peers: Sequence[nn.Module], dropout: Sequence[Generator] | None) -> nn.Module:
        first = peers[0]
        if isinstance(first, nn.Dropout):
            if first.p and (dropout is None or len(dropout) != len(peers)):
                raise ValueError("fused dropout needs one generator for each model")
            return _Dropout(first.p, dropout or (), self.rows)
        if isinstance(first, nn.Conv2d):
            layer: nn.Module = _Convolution(peers)
        elif isinstance(first, nn.BatchNorm2d):
            layer = _BatchNorm(peers, self.rows)
        elif isinstance(first, nn.GroupNorm):
            layer = _GroupNorm(peers)
        elif isinstance(first, nn.Linear):
            layer = _Linear(peers)
        else:
            raise TypeError(
                f"{type(first).__name__} has no fused form; train such models one by one"
            )
        for name, whole in [*layer.named_parameters(), *layer.named_buffers()]:
            for k, peer in enumerate(peers):
                own = getattr(peer, name)
                part = self.own(whole.data, k)
                own.data = part if part.shape == own.shape else part[0]  # stacked, not joined
        return layer

    def own(self, whole: Tensor, k: int) -> Tensor:
        """Replica k's part of a parameter (or its gradient), as a view."""
        size = len(whole) // self.replicas
        return whole[k * size : (k + 1) * size]

    def forward(self, x: Tensor, counts: Sequence[int] | None = None) -> Tensor:
        """The replicas' outputs (K, B, …) for their batches x (K, B, C, H, W).

        Args:
            counts: rows of each replica's batch that are its own; the rest is padding, which
                nothing of its own depends on. None: all.
        """
        replicas, batch = x.shape[:2]
        self.rows.set(counts, batch, x.device)
        side_by_side = x.transpose(0, 1).flatten(1, 2)
        out = self._run(side_by_side.contiguous(memory_format=torch.channels_last))
        return out.unflatten(1, (replicas, -1)).transpose(0, 1)

    def _run(self, x: Tensor) -> Tensor:
        if self._concatenates is False:
            return self.network(x)
        with _ReplicaMajor(self.replicas) as mode:
            out = self.network(x)
        self._concatenates = bool(mode.seen)
        return out

    @torch.no_grad()
    def release(self) -> None:
        """Give every model tensors of its own again."""
        for model in self.models:
            for tensor in [*model.parameters(), *model.buffers()]:
                tensor.data = tensor.data.clone()


def structure(model: nn.Module) -> tuple[str, tuple]:
    """What two models must agree in to be fused: layers with their settings, shapes, devices."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return str(model), tuple(
        (name, t.shape, t.dtype, str(t.device), t.requires_grad) for name, t in tensors
    )
