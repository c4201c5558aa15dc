"""The contract between a core and whatever runs it: recipes in, an outcome out.

A core exports one `Task` from `<core>/task.py`. A cell is a pure function of (config, data, seed):
the same bytes whichever worker, order or cluster ran it. This file imports no torch; the heavy
functions are named by import path and loaded by the worker that runs them.
"""

import importlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
"""What a stage yields and the next one reads: named arrays, stored as safetensors."""


def no_progress(
    done: float, note: str = "", curves: Mapping[str, Sequence[float]] | None = None
) -> None:
    """The callback that reports nothing; `done` is in [0, 1]."""


Progress = Callable[..., None]
"""`progress(done, note, curves)`: `done` in [0, 1], a few words in `note`. May raise to stop the
work. `curves`, which may be left out: name → every value so far, one per iteration or epoch, those
before a kill among them; the lists may grow afterwards, so whoever keeps them copies.
"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Work that several cells share, computed once.

    `inputs` holds every value the result depends on beside the data, the algorithm's version and
    the results of `needs`; these together are its identity. `compute` is an import path
    "module:function" to

        function(inputs: Mapping, data: ImageDataset, needs: Mapping[str, Arrays],
                 *, device: str, progress: Progress) -> Arrays
    """

    name: str
    inputs: Mapping[str, Any]
    compute: str
    needs: Mapping[str, "Stage"] = field(default_factory=dict)
    # Groups of networks (`imaging_core.keeping`); not its identity.
    offers: tuple[str, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Per-example probabilities on one split, so that intervals need no retraining.

    Where a cell's metrics are means over several draws, every example comes once per draw, one
    whole draw after another; else its id comes once.
    """

    split: str  # "validation" | "test"
    ids: np.ndarray  # (N,) str
    groups: np.ndarray  # (N,) str: the patient, slide or block
    labels: np.ndarray  # (N,) int
    probabilities: np.ndarray  # (N, classes) float32, rows sum to 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one finished cell knows.

    `metrics` are scalars (a NaN is a failure, unless the metric's definition allows it: leave the
    key out instead); `curves` one value per iteration or epoch; `artifacts` small arrays for
    figures (kept probabilities, thumbnails), written beside the cell.
    """

    metrics: Mapping[str, float]
    predictions: tuple[Predictions, ...] = ()
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    artifacts: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Task:
    """One core, as the engine sees it.

    Attributes:
        name: of the core's package.
        version: the algorithm's version, part of every cell's key: raise it when the same
            (config, data, seed) would give other numbers.
        config: the frozen configuration class; its defaults are the `paper` preset.
        presets: name → the fields that differ from the defaults.
        check: `check(config, data)` raises `ConfigError` where config and data do not fit
            (k_shot above a class's size); it may return lines that the plan shows. No torch, but
            where the configuration names weights.
        fit: `fit(config, data, typed)` → the fields, none of them in `typed`, that this data forces
            to another value, with that value: a preset is made for the data that it was tried on.
        stages: `stages(config, seed)` → name → `Stage`. No torch. The seed may stand among a
            stage's inputs, as it is; nothing else of a stage depends on it.
        passed_on: fields that `stages` only hands on: where a stage's inputs hold one, they do so
            under its own name and as it is; nothing else of a stage depends on them. May be left
            empty: many arms that differ in such a field alone are planned faster.
        train: import path of
            `function(config, data, seed, stages: Mapping[str, Arrays], *, device, progress)
            -> Outcome`.
        metrics: the metrics a cell may carry, in the order to show them.
        meanings: field of the configuration → what it is, in a line.
        applying: a module with `apply`, which uses the networks that a cell offers
            (`imaging_core.keeping`), and `bytes_of`, what they take; "": none are offered.
    """

    name: str
    version: int
    config: type
    presets: Mapping[str, Mapping[str, Any]]
    check: Callable[[Any, Any], Sequence[str] | None]
    stages: Callable[[Any, int], Mapping[str, Stage]]
    train: str
    metrics: tuple["Metric", ...]
    passed_on: frozenset[str] = frozenset()
    fit: Callable[[Any, Any, Collection[str]], Mapping[str, Any]] | None = None
    meanings: Mapping[str, str] = field(default_factory=dict)
    applying: str = ""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One row of the metric table: nothing else says what a metric means or which way is better."""

    name: str
    label: str
    higher_is_better: bool | None  # None: neither way is better (a count)
    low: float = 0.0
    high: float = 1.0
    meaning: str  # for two and for many classes


def clock() -> tuple[float, float]:
    """Wall and processor seconds of this process, each from an arbitrary zero."""
    return time.monotonic(), time.process_time()


def load_function(path: str) -> Callable[..., Any]:
    """The function that "package.module:name" names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
