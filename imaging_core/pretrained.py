"""Weights that somebody else trained: torchvision's own, or any file of their format.

torchvision's names become ours, a stem for RGB is summed for grey images, and what does not fit by
its meaning (a head of other classes, a stem of another size) is left new; all of it is said. What
does not fit for no such reason is refused.
"""

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from imaging_core.fields import ConfigError
from imaging_core.stamps import split_stamp

State = dict[str, Tensor]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# torchvision's densenet files are older than its code: "norm.1" is "norm1" today.
_OLD_DENSE_NAME = re.compile(
    r"^(.*denselayer\d+\.(?:norm|relu|conv))\.((?:[12])\.(?:weight|bias|running_mean|running_var))$"
)


@dataclass(frozen=True, kw_only=True)
class Network:
    """How torchvision's weights of one network are named there and here.

    Attributes:
        weights: torchvision's enumeration of weights; its DEFAULT of ImageNet is taken.
        rename: torchvision's name → ours, or None where we have no such part.
        stem, head: our names of the first convolution and of the last layer ("" = none of theirs).
    """

    weights: str
    rename: Callable[[str], str | None]
    stem: str
    head: str


def _resnet(name: str) -> str | None:
    part, _, rest = name.partition(".")
    places = {"conv1": "trunk.0", "bn1": "trunk.1", "fc": "head"}
    places |= {f"layer{k}": f"trunk.{3 + k}" for k in range(1, 5)}
    return f"{places[part]}.{rest}" if part in places else None


def _densenet(name: str) -> str | None:
    if old := _OLD_DENSE_NAME.match(name):
        name = old[1] + old[2]
    part, _, rest = name.partition(".")
    places = {"features": "trunk.0", "classifier": "head"}
    return f"{places[part]}.{rest}" if part in places else None


def _vgg_encoder(name: str) -> str | None:
    return f"encoder.{name}" if name.startswith("features.") else None


NETWORKS: Mapping[str, Network] = {
    "resnet34": Network(
        weights="ResNet34_Weights", rename=_resnet, stem="trunk.0.weight", head="head"
    ),
    "densenet169": Network(
        weights="DenseNet169_Weights", rename=_densenet, stem="trunk.0.conv0.weight", head="head"
    ),
    "unet-vgg11": Network(
        weights="VGG11_Weights",
        rename=_vgg_encoder,
        stem="encoder.features.0.weight",
        head="",
    ),
}
"""The networks that torchvision has weights for."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What came of a file of weights.

    Attributes:
        source: the file's name.
        taken: how many tensors were copied as they are.
        adapted: names of those that were changed to fit.
        new: names of the layers that keep their random weights.
    """

    source: str
    taken: int
    adapted: tuple[str, ...]
    new: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{self.source}: {self.taken} tensors loaded"
        if self.adapted:
            text += f", {', '.join(self.adapted)} summed over RGB"
        return text + (f", new: {', '.join(self.new)}" if self.new else "")


def imagenet_normalisation(channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of ImageNet's images in [0, 1]; for grey ones the means over RGB."""
    if channels == len(IMAGENET_MEAN):
        return IMAGENET_MEAN, IMAGENET_STD
    mean, std = sum(IMAGENET_MEAN) / 3, sum(IMAGENET_STD) / 3
    return (mean,) * channels, (std,) * channels


def imagenet_file(name: str) -> Path:
    """torchvision's ImageNet weights of network `name`, from torch's cache, fetched if need be.

    Raises:
        ConfigError: no such weights, or they are not in the cache and cannot be fetched.
    """
    if name not in NETWORKS:
        raise ConfigError(
            f"ImageNet weights exist for {', '.join(NETWORKS)}, got {name}; use one of these, or "
            "weights=none"
        )
    import torchvision.models

    url = getattr(torchvision.models, NETWORKS[name].weights).IMAGENET1K_V1.url
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(
                url, str(file), hash_prefix=file.stem.rpartition("-")[2], progress=True
            )
        except (OSError, RuntimeError) as error:
            raise ConfigError(
                f"ImageNet weights of {name} are not at {file} and could not be fetched ({error}); "
                f"put torchvision's file {file.name} there, or use weights=none"
            ) from None
    return file


def read_state(path: str | Path, field: str = "weights_path") -> State:
    """The tensors of a file: .safetensors, or a torch file of tensors only.

    Raises:
        ConfigError: no such file, or not a plain state dict; the message names `field`.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f'{field} must be a file, "{path}" is none')
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own
        if isinstance(error, OSError | MemoryError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        kind = "a safetensors file" if path.suffix == ".safetensors" else "a torch file"
        hint = " of tensors only" if isinstance(error, pickle.UnpicklingError) else ""
        raise ConfigError(f'{field} must be {kind}{hint}, "{path}" is not: {reason}') from None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ConfigError(f'{field} must hold a state dict (names to tensors), "{path}" does not')
    return dict(state)


def weights_file(name: str, weights: str, path: str) -> Path | None:
    """Where the first weights of network `name` come from; None where they are random.

    Args:
        weights: "none" or "imagenet".
        path: of a file, stamped or not (`imaging_core.stamps`), which goes before `weights`.

    Raises:
        ConfigError: as `imagenet_file`.
    """
    if path:
        return split_stamp(path)[0]
    return imagenet_file(name) if weights == "imagenet" else None


def load_pretrained(
    module: nn.Module, name: str, path: str | Path, *, field: str = "weights_path"
) -> Loaded:
    """Copy the weights in `path` into `module`, the network `name`; what fits, by the rules above.

    Args:
        path: a state dict with our names (all of them), or with torchvision's.

    Raises:
        ConfigError: as `read_state`, or names or shapes that do not fit.
    """
    taken, loaded = fitting_weights(module.state_dict(), name, path, field=field)
    module.load_state_dict(taken, strict=False)
    return loaded


def fitting_weights(
    own: Mapping[str, Tensor], name: str, path: str | Path, *, field: str = "weights_path"
) -> tuple[State, Loaded]:
    """What of the weights in `path` goes into a network with the state `own`, under our names.

    Args:
        own: read for names and shapes only; its tensors may be of the meta device.

    Raises:
        ConfigError: as `load_pretrained`.
    """
    state = read_state(path, field)
    known = NETWORKS.get(name)
    if known is not None and not state.keys() <= own.keys():
        state = {ours: v for theirs, v in state.items() if (ours := known.rename(theirs))}
    taken: State = {}
    adapted: list[str] = []
    for key, value in state.items():
        if key not in own:
            continue
        if known and key == known.stem and value.shape[1] == 3 and own[key].shape[1] == 1:
            value = value.sum(dim=1, keepdim=True)  # three equal channels, summed, are one
            adapted.append(key)
        taken[key] = value
    replaced = _replaced(taken, own, known)
    taken = {k: v for k, v in taken.items() if k not in replaced}
    adapted = [k for k in adapted if k in taken]
    _must_fit(taken, own, replaced, known, name, f'{field} "{path}"')
    new = sorted({k.rpartition(".")[0] for k in own if k not in taken and not _is_count(k)})
    loaded = Loaded(
        source=Path(path).name,
        taken=len(taken) - len(adapted),
        adapted=tuple(adapted),
        new=_brief(new),
    )
    return taken, loaded


def _is_count(name: str) -> bool:
    return name.endswith("num_batches_tracked")  # older files have none


def _replaced(taken: State, own: Mapping[str, Tensor], known: Network | None) -> set[str]:
    """What is left new because it cannot be the same: another head, a stem of another size."""
    found = set()
    for key, value in taken.items():
        if value.shape == own[key].shape or known is None:
            continue
        if key == known.stem or (known.head and key.startswith(f"{known.head}.")):
            found.add(key)
    if known and known.head and any(k.startswith(f"{known.head}.") for k in found):
        found |= {k for k in taken if k.startswith(f"{known.head}.")}
    return found


def _must_fit(
    taken: State,
    own: Mapping[str, Tensor],
    replaced: set[str],
    known: Network | None,
    name: str,
    what: str,
) -> None:
    shapes = [
        f"{k} is {tuple(v.shape)} instead of {tuple(own[k].shape)}"
        for k, v in taken.items()
        if v.shape != own[k].shape
    ]
    if shapes:
        raise ConfigError(f"{what} does not fit {name}: {_first(shapes)}; use that network's own")
    # Of a torchvision file the parts that torchvision's network has not may lack (a decoder).
    wanted = {k for k in own if not _is_count(k)} - replaced
    if known is not None and not known.head:
        wanted = {k for k in wanted if k.startswith("encoder.")}
    lacking = sorted(wanted - taken.keys())
    if lacking:
        raise ConfigError(
            f"{what} does not fit {name}: it lacks {_first(lacking)}; use that network's own "
            "weights, named as torchvision or this project names them"
        )


def _first(items: list[str], most: int = 3) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


def _brief(names: list[str]) -> tuple[str, ...]:
    """The layers' first parts where they are many: "decoder" instead of its forty tensors."""
    return tuple(names) if len(names) <= 3 else tuple(sorted({n.split(".")[0] for n in names}))
