"""Which loader a name means, and the options that a path carries.

A loader is a module with `load(path: str | None, *, protocol: str) -> ImageDataset` and `CARD`. One
that has options declares them as a frozen dataclass `Options` and takes one as `options`; a user
writes them behind the path, `--data mura:MURA-v1.1?part=XR_ELBOW&size=64`.
"""

import importlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

from imaging_core import places
from imaging_core.datasets.base import ImageDataset
from imaging_core.datasets.decoding import PROGRESS
from imaging_core.datasets.fetch import fetched, filesystem_options, is_uri
from imaging_core.datasets.kept import of_fingerprint, settled
from imaging_core.datasets.options import split_query
from imaging_core.datasets.partition import (
    FOLD,
    SPLIT_SEED,
    parse_fold,
    parse_split_seed,
    partitioned,
)
from imaging_core.fields import ConfigError, build, did_you_mean
from imaging_core.task import Progress, no_progress

LOADERS = {
    "ihc-colon": "imaging_core.datasets.ihc_colon",
    "phantom-xray": "imaging_core.datasets.phantom_xray",
    "folder": "imaging_core.datasets.folder",
    "mura": "imaging_core.datasets.mura",
    "voc": "imaging_core.datasets.voc",
    "medmnist": "imaging_core.datasets.medmnist",
    "pcam": "imaging_core.datasets.pcam",
}

PLACES = frozenset({"folder", "mura", "voc", "medmnist", "pcam"})
"""Datasets whose path names a file or a folder; another's, if it has one, is a word."""


def names() -> tuple[str, ...]:
    """The datasets that `--data` knows."""
    return tuple(LOADERS)


def _module(name: str):
    if name not in LOADERS:
        raise ConfigError(
            f'unknown dataset "{name}"{did_you_mean(name, LOADERS)} (known: {", ".join(LOADERS)})'
        )
    return importlib.import_module(LOADERS[name])


def absolute(name: str, path: str | None) -> str | None:
    """The path with its place made absolute, options as they are; what `load` refuses stays.

    Raises:
        ConfigError: see `imaging_core.places.absolute`.
    """
    if path is None or name not in PLACES or "://" in path:
        return path
    place, mark, options = path.partition("?")
    if place:
        place = str(places.absolute(place, f"the path of {name}"))
    return f"{place}{mark}{options}"


IN_MEMORY = 2
_loaded: OrderedDict[tuple[str, str | None, str], ImageDataset] = OrderedDict()


def load(
    name: str,
    path: str | None = None,
    protocol: str = "held-out",
    *,
    fingerprint: str | None = None,
    progress: Progress = no_progress,
) -> ImageDataset:
    """The dataset, checked; the last two stay in memory, so a warm worker loads none twice.

    Args:
        path: of the data, with the loader's options after a `?`: `/data/x?size=64&colour=rgb`; or
            a URI, whose files are fetched into the cache first.
        fingerprint: of the content that is wanted, if it is known: where this machine has decoded
            it before, nothing else is read. Another content may be returned: compare.
        progress: hears how far the decoding is, where there is any.

    Raises:
        ConfigError: unknown name or option, or a path that is missing, needless or does not exist.
        DataError: what the files hold breaks a rule.
    """
    key = (name, path, protocol)
    if key in _loaded:
        _loaded.move_to_end(key)
        return _loaded[key]
    module = _module(name)
    data = of_fingerprint(fingerprint)
    if data is None:
        token = PROGRESS.set(progress)
        try:
            data = settled(_read(module, name, path, protocol))
        finally:
            PROGRESS.reset(token)
    _loaded[key] = data
    while len(_loaded) > IN_MEMORY:
        _loaded.popitem(last=False)
    return data


def _read(module: Any, name: str, path: str | None, protocol: str) -> ImageDataset:
    """What the loader makes of the files, dealt out again where the options say so."""
    where, values = split_query(path)
    dealt = [FOLD, SPLIT_SEED] if FOLD in values or not _deals(module) else []
    if asked := {option: values[option] for option in dealt if option in values}:
        fold, seed = asked.get(FOLD), parse_split_seed(asked.get(SPLIT_SEED, "0"))
        if fold is not None:
            parse_fold(fold)
        own = _without(str(path), asked)
        base = load(name, own, protocol, progress=PROGRESS.get())
        return partitioned(base, fold=fold, split_seed=seed)
    if name in PLACES and is_uri(where):
        of_store = filesystem_options(values)
        root, inside, wanted = getattr(module, "at_uri", _everything)(where, values)
        where = str(fetched(root, of_store, wanted) / inside)
    if not hasattr(module, "Options"):
        if values:
            raise ConfigError(f'{name} takes no options, got "{next(iter(values))}"')
        return module.load(where, protocol=protocol)
    try:
        options = build(module.Options, values)
    except ConfigError as error:
        raise ConfigError(f"options of {name}: {error}") from None
    return module.load(where, protocol=protocol, options=options)


def _deals(module: Any) -> bool:
    """Whether the loader itself deals patients out, by a `split_seed` of its own."""
    return SPLIT_SEED in getattr(getattr(module, "Options", None), "__dataclass_fields__", {})


def _without(path: str, options: Collection[str]) -> str | None:
    """The path less these options; None where nothing is left."""
    place, _, query = path.partition("?")
    left = "&".join(pair for pair in query.split("&") if pair.partition("=")[0] not in options)
    return (f"{place}?{left}" if left else place) or None


def _everything(uri: str, values: Mapping[str, str]) -> tuple[str, str, Callable[[str], bool]]:
    """What is fetched, where the data lie in it, and which of its files are needed: all."""
    return uri, "", lambda _: True


def expand(text: str) -> tuple[str, ...]:
    """What `--data NAME[:PATH]` stands for: the text itself, or several that it abbreviates.

    `mura:PATH?part=each` is the seven body parts.
    """
    name, separator, path = text.partition(":")
    several = getattr(_module(name), "expand", None) if separator and name in LOADERS else None
    found = several(path) if several else None
    return tuple(f"{name}:{each}" for each in found) if found else (text,)


def card(name: str) -> str:
    """The data card: what it is, its licence, what it may not be used to claim (Markdown)."""
    return _module(name).CARD
