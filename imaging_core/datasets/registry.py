"""Which loader a name means. A loader is `load(path: str | None, **options) -> ImageDataset`."""

import importlib
from functools import lru_cache

from imaging_core.datasets.base import ImageDataset
from imaging_core.fields import ConfigError, did_you_mean

LOADERS = {
    "ihc-colon": "imaging_core.datasets.ihc_colon",
    "phantom-xray": "imaging_core.datasets.phantom_xray",
}


def names() -> tuple[str, ...]:
    """The datasets that `--data` knows."""
    return tuple(LOADERS)


def _module(name: str):
    if name not in LOADERS:
        raise ConfigError(
            f'unknown dataset "{name}"{did_you_mean(name, LOADERS)} (known: {", ".join(LOADERS)})'
        )
    return importlib.import_module(LOADERS[name])


@lru_cache(maxsize=2)
def load(name: str, path: str | None = None, protocol: str = "held-out") -> ImageDataset:
    """The dataset, checked; the last two stay in memory, so a warm worker loads none twice.

    Raises:
        ConfigError: unknown name, or a path that is missing, needless or does not exist.
        DataError: what the files hold breaks a rule.
    """
    return _module(name).load(path, protocol=protocol).check()


def card(name: str) -> str:
    """The data card: what it is, its licence, what it may not be used to claim (Markdown)."""
    return _module(name).CARD
