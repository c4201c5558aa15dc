"""Whether a study's cells are the paper's own experiment, and what differs where they are not."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from analysis.aggregate import data_names
from analysis.published import PublishedTable
from sweeps.ledger.schema import CLASS_SIZES, Manifest

MOST_NAMED = 6
"""Differences that a note spells out; the rest are counted."""


@dataclass(frozen=True, kw_only=True)
class Unlike:
    """What keeps cells from being the paper's experiment; nothing where they are.

    Attributes:
        data: the study's datasets and the paper's, where they are not the same.
        setting: what else differs, each "classifier tiny-resnet (printed: densenet169)".
    """

    data: str = ""
    setting: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.data or self.setting)

    @property
    def named(self) -> str:
        """The differences of the setting in one line, those beyond MOST_NAMED counted."""
        rest = len(self.setting) - MOST_NAMED
        more = f"; and {rest} more" if rest > 0 else ""
        return "; ".join(self.setting[:MOST_NAMED]) + more


def _same(ours: object, printed: object) -> bool:
    """Whether two values of a setting are equal, however they are written (0.10 and "0.1")."""
    if isinstance(ours, bool) or isinstance(printed, bool):
        return ours == printed
    try:
        return float(str(ours)) == float(str(printed))
    except ValueError:
        return _side(str(ours)) == _side(str(printed))


def _side(text: str) -> str:
    """`"224x224"` as `"224"`: a size of equal sides."""
    sides = text.lower().split("x")
    return sides[0] if len(sides) == 2 and sides[0] == sides[1] else text


def _options(data: str, published: PublishedTable) -> list[str]:
    """What differs in the options of the dataset `data` ("mura:PATH?part=XR_HAND&size=32")."""
    found = []
    if fold := re.search(r"[?&]fold=([^&]*)", data):
        found.append(f"fold {fold[1]} (printed: one split)")
    for name, option in published.options.items():
        given = re.search(rf"[?&]{name}=([^&]*)", data)
        ours = given[1] if given else option.default
        if not _same(ours, option.printed):
            label = "image size" if name == "size" else name
            found.append(f"{label} {ours} (printed: {option.printed})")
    return found


def _fields(config: Mapping[str, object], expected: Mapping[str, object]) -> list[str]:
    found = []
    for name, printed in expected.items():
        if name not in config:
            found.append(f"{name} not recorded (printed: {printed})")
        elif not _same(config[name], printed):
            found.append(f"{name} {config[name]} (printed: {printed})")
    return found


def _too_little(config: Mapping[str, object], at_least: Mapping[str, float]) -> list[str]:
    """Budgets below the least of a converged run; a field that is not recorded is no match."""
    found = []
    for name, least in at_least.items():
        if name not in config:
            found.append(f"{name} not recorded (at least: {least:g})")
        elif float(str(config[name])) < least:
            found.append(f"{name} {config[name]} (at least: {least:g})")
    return found


def _sizes(manifest: Manifest, printed: tuple[int, ...]) -> str:
    """How the images per class of the study's data differ from `printed`; nothing where not.

    In any order: what a class is called, and which comes first, is its owner's affair.
    """
    wanted = ", ".join(map(str, printed))
    recorded = manifest.extra.get(CLASS_SIZES, {})
    for text in manifest.data.split(", "):
        if text not in recorded:
            return f"images per class are not recorded, the printed values are of {wanted}"
        sizes = tuple(recorded[text].values())
        if sorted(sizes) != sorted(printed):
            ours = ", ".join(map(str, sizes))
            return f"ours has {ours} images per class, the printed values are of {wanted}"
    return ""


def unlike(
    manifest: Manifest,
    published: PublishedTable,
    configs: Iterable[tuple[str, Mapping[str, str]]] = (),
) -> Unlike:
    """What differs between a study's cells and the experiment behind a published table.

    The same experiment means: the paper's dataset and no other (by its name, and by its images per
    class where the paper prints those of private data), the protocol that the printed
    values have, the dataset's options (image size, share of the images), every field of the
    configuration that the paper states (networks, their first weights, batch size, …) or whose
    sound reading makes the method, and at least the budget of a converged run. What the paper
    leaves open otherwise may be anything; the preset's name counts for nothing.

    Args:
        configs: (configuration as JSON, levels of the printed row and column) of each cell; a
            level stands in place of the paper's general setting.
    """
    ours = data_names(manifest)
    data = ""
    if not set(ours) <= set(published.data):
        data = f"ours are {', '.join(ours)}, the printed values are {published.data[0]}"
    elif published.class_sizes:
        data = _sizes(manifest, published.class_sizes)
    setting = []
    if manifest.protocol != published.protocol:
        setting.append(f"protocol {manifest.protocol} (printed: {published.protocol})")
    for text in manifest.data.split(", ") if set(ours) <= set(published.data) else ():
        setting += _options(text, published)
    lines = [line.levels for line in (*published.rows, *published.columns)]
    named = {name for levels in lines for name in levels}
    for text, levels in configs:
        expected = {n: v for n, v in published.setting.items() if n not in named}
        expected |= {n: v for n, v in levels.items() if n in published.setting}
        config = json.loads(text)
        setting += _fields(config, expected) + _too_little(config, published.at_least)
    return Unlike(data=data, setting=tuple(dict.fromkeys(setting)))
