"""What a study is: one question, its factors × seeds, and the table it rebuilds."""

import importlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from imaging_core import datasets
from imaging_core.datasets import FOLD
from imaging_core.fields import (
    Builder,
    ConfigError,
    as_dict,
    as_typed,
    did_you_mean,
    field_names,
    levels_of,
)
from imaging_core.places import must_be_text
from imaging_core.task import Task
from sweeps.ledger.declared import PARTITIONS
from sweeps.ledger.schema import arm_label

DATA = "data"  # a factor that is not a field of the core's configuration
PROTOCOLS = ("held-out", "paper")
SETTING = "setting"  # another: its levels name the bundles of fields in `Study.bundles`
NO_FIELDS = (DATA, SETTING, *PARTITIONS)


@dataclass(frozen=True, kw_only=True)
class Study:
    """One question, as a script of `sweeps/` declares it.

    Attributes:
        name: of the study, and of its folder of results.
        question: what it answers, one sentence.
        core: "selection_core" | "apga_core".
        factors: factor → levels; a factor is a field of the core's configuration, "data",
            "fold" or "split_seed".
        baseline: the arm that the others are compared with.
        data: the default dataset, "name" or "name:path".
        seeds: how many seeds by default.
        fixed: fields that differ from the preset in every arm.
        of_preset: preset → fields that differ in every arm under that preset alone.
        tables: the published tables it rebuilds, as `analysis/published` names them.
        objective: the metric that Tune and Optuna see.
        only: the combinations of levels to keep; all by default.
        bundles: arm label → the fields that its level of "setting" stands for.
        screening: factor → its two levels, or the one it keeps, under `--design screening`.
        primary: the metric that decides; every other is exploratory.
        margin: the smallest difference of it that matters, in its unit.
        error: the chance of one wrong answer or more among all arms.
        most_seeds: what a race (`--until decided`) may spend on one arm.
    """

    name: str
    question: str
    core: str
    factors: Mapping[str, tuple[Any, ...]]
    baseline: Mapping[str, Any]
    data: str
    tables: tuple[str, ...]
    objective: str = "val_best"
    seeds: int = 5
    fixed: Mapping[str, Any] = field(default_factory=dict)
    of_preset: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    only: tuple[Mapping[str, Any], ...] = ()
    bundles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    screening: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    primary: str = "accuracy"
    margin: float = 0.01
    error: float = 0.05
    most_seeds: int = 40

    def __post_init__(self) -> None:
        for name, low, high in (("margin", 0, math.inf), ("error", 0, 0.5), ("most_seeds", 1, 1e4)):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not low < value < high:
                raise ConfigError(
                    f"{name} must be a number above {low} and below {high:g}, got {value!r}"
                )
        if not isinstance(self.primary, str) or type(self.most_seeds) is not int:
            raise ConfigError(
                "primary must be a metric's name and most_seeds a whole number, got "
                f"{self.primary!r} and {self.most_seeds!r}"
            )

    @property
    def task(self) -> Task:
        """The core's task."""
        return importlib.import_module(f"{self.core}.task").TASK


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One combination of levels, with the whole configuration it stands for."""

    levels: Mapping[str, Any]
    config: Any
    data: str

    @cached_property
    def text_levels(self) -> dict[str, str]:
        return {name: str(level) for name, level in self.levels.items()}

    @cached_property
    def label(self) -> str:
        return arm_label(self.text_levels)

    @cached_property
    def values(self) -> dict[str, Any]:
        """The configuration as JSON values, without the seed; every recipe of the arm holds it."""
        return as_dict(self.config)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks of a study.

    `of_file` is what `--config` read: field or factor, and its values; `settings` come after it.
    `keep` names what is stored beside the cells, `track` who is told of them; they change none.
    `first` names arms that go ahead of the others, by levels they have.
    `until` is "decided" for a race, which may use `most_seeds` (the study's by default).
    `folds` of a cross-validation are the levels of the factor `fold`; `design` says which
    combinations of levels are arms (`sweeps.engine.designs`), by default the study's own.
    """

    preset: str = "demo"
    data: str | None = None
    protocol: str = "held-out"
    seeds: str | None = None
    settings: tuple[str, ...] = ()
    of_file: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    keep: tuple[str, ...] = ()
    track: tuple[str, ...] = ()
    first: str | None = None
    until: str | None = None
    most_seeds: int | None = None
    folds: int | None = None
    design: str | None = None


def _parse_setting(text: str) -> tuple[str, list[str]]:
    must_be_text(text, "--set")
    name, separator, values = text.partition("=")
    parts = [part.strip() for part in values.split(",")]
    if not separator or not name.strip() or not all(parts):
        raise ConfigError(f'--set takes FIELD=VALUE or FACTOR=a,b, got "{text}"')
    return name.strip(), parts


def _level(config: type, name: str, value: Any) -> Any:
    """A level of a field or of a factor that is none, typed.

    Raises:
        ConfigError: it is none of the field's, no fold ("2of5") or no split_seed (a number).
    """
    if name == FOLD:
        datasets.parse_fold(str(value))
        return str(value)
    if name in PARTITIONS:
        return datasets.parse_split_seed(str(value))
    return value if name == DATA else as_typed(config, name, value)


def apply(study: Study, request: Request) -> tuple[Study, dict[str, Any]]:
    """The study with `--set` applied, and the fields that every arm shares.

    Raises:
        ConfigError: an unknown protocol, preset, field or level, or a value out of range.
    """
    task = study.task
    if request.protocol not in PROTOCOLS:
        raise ConfigError(
            f'protocol must be one of {", ".join(PROTOCOLS)}, got "{request.protocol}"'
        )
    if request.preset not in task.presets:
        raise ConfigError(
            f'unknown preset "{request.preset}"{did_you_mean(request.preset, task.presets)} '
            f"(known: {', '.join(task.presets)})"
        )
    shared = {
        **task.presets[request.preset],
        **study.fixed,
        **study.of_preset.get(request.preset, {}),
    }
    known = [*field_names(task.config), DATA, *PARTITIONS]
    factors = dict(study.factors)
    folds = [(FOLD, datasets.folds(request.folds))] if request.folds is not None else []
    for name, values in (*folds, *request.of_file, *map(_parse_setting, request.settings)):
        if name not in known:
            raise ConfigError(
                f'unknown factor or field "{name}"{did_you_mean(name, known)} '
                f"(factors of {study.name}: {', '.join(study.factors)}; fields: "
                f"{', '.join(field_names(task.config))})"
            )
        # Each by itself: what fits together is known once every --set has been read.
        typed = tuple(_level(task.config, name, value) for value in values)
        if len(set(typed)) < len(typed):
            raise ConfigError(
                f"--set {name} lists a level more than once: {', '.join(map(str, values))}"
            )
        if name in PARTITIONS:  # in front: cells that follow one another share their images
            factors = {name: typed, **{n: v for n, v in factors.items() if n != name}}
        elif name in factors or len(typed) > 1:
            factors[name] = typed
        elif name == DATA:
            if request.data not in (None, typed[0]):
                raise ConfigError(
                    f'the data must be named once, got --data "{request.data}" and --set data='
                    f'"{typed[0]}"; for both, --set data={request.data},{typed[0]}'
                )
            study = replace(study, data=typed[0])
        else:
            shared[name] = typed[0]
    several = datasets.expand(request.data or study.data)
    if DATA not in factors and len(several) > 1:
        factors = {DATA: several, **factors}
    baseline = {
        name: study.baseline[name]
        if name in study.baseline and study.baseline[name] in levels
        else levels[0]
        for name, levels in factors.items()
        # Bundles are compared within each combination of the other factors.
        if name == SETTING or not study.bundles
    }
    return replace(study, factors=factors, baseline=baseline), shared


def expand(study: Study, shared: Mapping[str, Any], data: str) -> list[Arm]:
    """Every arm of the (applied) study, in the order of the factors.

    Raises:
        ConfigError: a level the core refuses.
    """
    arms, build = [], Builder(study.task.config)
    placed: dict[str, str] = {}
    # A design names its arms whole, by the thousand combinations that it leaves out.
    whole = {tuple(map(o.get, study.factors)) for o in study.only if len(o) == len(study.factors)}
    partly = [allowed for allowed in study.only if len(allowed) < len(study.factors)]
    for combination in itertools.product(*study.factors.values()):
        levels = dict(zip(study.factors, combination, strict=True))
        if (
            study.only
            and combination not in whole
            and not any(
                all(levels[name] == value for name, value in allowed.items()) for allowed in partly
            )
        ):
            continue
        fields = {n: level for n, level in levels.items() if n not in NO_FIELDS}
        bundle = study.bundles.get(arm_label(levels), {}) if study.bundles else {}
        config = build({**shared, **fields, **bundle})
        # A level keeps the name that was typed; what it stands for is the same on every node.
        text = datasets.with_partition(str(levels.get(DATA, data)), levels)
        if text not in placed:
            placed[text] = place_data(text)
        arms.append(Arm(levels=levels, config=config, data=placed[text]))
    return arms


def arms_named(arms: Sequence[Arm], text: str, option: str) -> list[Arm]:
    """The arms that have the levels in `text`, "method=apga,k_shot=25"; at least one.

    Args:
        option: what the user calls it, for the message.

    Raises:
        ConfigError: no arm has these levels.
    """
    known, wanted = tuple(arms[0].levels), {}
    for part in text.split(","):
        name, separator, level = (word.strip() for word in part.partition("="))
        if not separator:
            raise ConfigError(f'{option} takes FACTOR=LEVEL, …, got "{text}"')
        if name not in known:
            raise ConfigError(
                f'{option}: unknown factor "{name}"{did_you_mean(name, known)} '
                f"(factors: {', '.join(known)})"
            )
        wanted[name] = level
    found = [arm for arm in arms if wanted.items() <= arm.text_levels.items()]
    if not found:
        labels = [arm.label for arm in arms]
        raise ConfigError(
            f'{option}: no arm has the levels "{text}"{did_you_mean(text, labels)} (arms: '
            f"{'; '.join(labels[:8])}{'; …' if len(labels) > 8 else ''})"
        )
    return found


def split_data(text: str) -> tuple[str, str | None]:
    """`"mura:/data/MURA"` → ("mura", "/data/MURA"); `"ihc-colon"` → ("ihc-colon", None)."""
    name, separator, path = text.partition(":")
    return name, path if separator else None


def place_data(text: str) -> str:
    """`"folder:data/hips?size=32"` → the same with the place made absolute (`~` is the home).

    Raises:
        ConfigError: a place that no file can have.
    """
    must_be_text(text, "--data")
    name, path = split_data(text)
    path = datasets.absolute(name, path)
    return name if path is None else f"{name}:{path}"


def describe_factors(study: Study) -> Sequence[str]:
    """One line per factor for `--help`: its levels, and what else the core allows."""
    lines = []
    for name, levels in study.factors.items():
        allowed = levels_of(study.task.config, name) if name not in NO_FIELDS else None
        more = [str(v) for v in allowed or () if v not in levels]
        rest = f" (also: {', '.join(more)})" if more else ""
        lines.append(f"{name}: {', '.join(map(str, levels))}{rest}")
    return lines
