"""What is missing: arms × seeds minus what the ledger holds, and the stages that needs."""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import groupby
from statistics import fmean
from typing import Any

from imaging_core import datasets
from imaging_core.datasets import ImageDataset
from imaging_core.fields import ConfigError
from sweeps.engine.decoding import DecodingLine
from sweeps.engine.designs import designed
from sweeps.engine.fitting import described, fit_arms, typed_fields, with_levels_of
from sweeps.engine.keys import CellKeys, StageKeys, StageTemplate
from sweeps.engine.seeds import seeds_of
from sweeps.engine.stages import StageStore
from sweeps.engine.study import (
    Arm,
    Request,
    Study,
    apply,
    arms_named,
    expand,
    split_data,
)
from sweeps.ledger.declared import PARTITIONS
from sweeps.ledger.files import Store
from sweeps.ledger.read import committed_keys, failed_keys
from sweeps.ledger.schema import CLASS_SIZES, DESIGN, Manifest, PlannedCell
from sweeps.tracking.writers import split_spec


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """Arm × seed: the unit that is computed, stored, retried and counted."""

    key: str
    arm: Arm
    seed: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class StageWork:
    """One stage that is not stored yet: where its recipe comes from, and what it needs first."""

    key: str
    cell: Cell  # any cell whose stages include this one
    needs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole study and what is left of it.

    Attributes:
        fingerprints: "name:path" of each dataset → its fingerprint.
        cells: every planned cell, in plan order; two arms of one configuration share theirs.
        todo: the cells to compute now.
        done, failed: keys that the ledger holds (failed ones are not in `todo` unless retried).
        stages: the missing stages that `todo` needs, needs first; `reused` counts stored ones.
        needs: the keys of a cell's missing stages.
        notes: what was fitted to the data, and what the core's check has to say, a line each.
        data: what each dataset holds, a line each.
        class_sizes: of each dataset, class → its images; empty where the data were not loaded.
        overlap: test images for each image of the other parts, on average over the datasets.
    """

    study: Study
    request: Request
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    fingerprints: Mapping[str, str]
    cells: tuple[Cell, ...]
    todo: tuple[Cell, ...]
    done: frozenset[str]
    failed: frozenset[str]
    stages: tuple[StageWork, ...]
    reused: int
    needs: Callable[[Cell], tuple[str, ...]]
    notes: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    class_sizes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    overlap: float = 0.0

    @property
    def keys(self) -> frozenset[str]:
        """The planned cells, each once."""
        return frozenset(cell.key for cell in self.cells)

    def missing(self, cell: Cell) -> tuple[StageWork, ...]:
        """The missing stages that a cell of `todo` needs, needs first."""
        return tuple(self._by_key[key] for key in self.needs(cell))

    @cached_property
    def _by_key(self) -> dict[str, StageWork]:
        return {work.key: work for work in self.stages}


def stage_store(results: str) -> StageStore:
    """The stages that the studies under `results` share."""
    return StageStore(Store(results).child("stages"))


@contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage collection: it would go over every cell again and again, and all of them stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def make_plan(study: Study, request: Request, *, results: str, retry_failed: bool) -> Plan:
    """Validate everything, expand, and subtract what is there.

    Raises:
        ConfigError: any bad input, before any work.
        DataError: the dataset breaks a rule.
    """
    study, shared = apply(study, request)
    study = designed(study, request.design, typed_fields(request))
    seeds = seeds_of(study, request)
    if request.until is not None and any(len(study.factors.get(n, ())) > 1 for n in PARTITIONS):
        raise ConfigError(
            "--until decided adds seeds, which say nothing of another split; leave it out with "
            "--folds or several levels of split_seed"
        )
    arms = expand(study, shared, request.data or study.data)
    if not arms:
        raise ConfigError("no arm is left; --set excludes every combination of levels")
    data: dict[str, ImageDataset] = {}
    for text in dict.fromkeys(arm.data for arm in arms):
        name, path = split_data(text)
        data[text] = datasets.load(name, path, request.protocol, progress=DecodingLine())
    fitted, notes = fit_arms(study.task, arms, data, typed_fields(request), study.bundles)
    if len(fitted) < len(arms):
        study = with_levels_of(study, fitted)
    arms = fitted
    if not arms:
        raise ConfigError(
            f"at least one arm must fit the data, none does: {'; '.join(dict.fromkeys(notes))}"
        )
    notes += [note for arm in arms for note in study.task.check(arm.config, data[arm.data]) or ()]
    fingerprints = {text: found.fingerprint for text, found in data.items()}
    plan = plan_arms(
        study, request, seeds, arms, fingerprints, results=results, retry_failed=retry_failed
    )
    lines = [line for text, found in data.items() for line in described(text, found)]
    if request.first is not None:
        arms_named(arms, request.first, "--first")
    for spec in request.track:
        split_spec(spec, "--track")
    if request.keep:
        from sweeps.engine.kept import known_kinds, weights_line

        known_kinds(request.keep, study.task)
        shape = {t: (d.channels, d.size, len(d.classes)) for t, d in data.items()}
        lines.append(weights_line(plan, results, shape))
    return replace(
        plan,
        notes=tuple(dict.fromkeys(notes)),
        data=tuple(lines),
        class_sizes={text: found.class_sizes for text, found in data.items()},
        overlap=fmean(len(d.test) / (len(d.train) + len(d.validation)) for d in data.values()),
    )


@_uncollected()
def plan_arms(
    study: Study,
    request: Request,
    seeds: Sequence[int],
    arms: Sequence[Arm],
    fingerprints: Mapping[str, str],
    *,
    results: str,
    retry_failed: bool,
) -> Plan:
    """The plan of arms that are known to be valid: what of them is there, and what is left."""
    keys = CellKeys(study.task)
    cells = tuple(
        Cell(key=key, arm=arm, seed=seed, fingerprint=fingerprints[arm.data])
        for arm in arms
        for seed, key in zip(seeds, keys(arm.config, seeds, fingerprints[arm.data]), strict=True)
    )
    ledger = Store(results).child(study.name)
    planned = {cell.key for cell in cells}
    committed = committed_keys(ledger)
    done = frozenset(committed & planned)
    failed = frozenset((failed_keys(ledger, committed) & planned) - done)
    skip = done if retry_failed else done | failed
    todo = tuple({cell.key: cell for cell in cells if cell.key not in skip}.values())
    stages, needs, reused = _missing_stages(study, todo, stage_store(results))
    return Plan(
        study=study,
        request=request,
        seeds=tuple(seeds),
        arms=tuple(arms),
        fingerprints=fingerprints,
        cells=cells,
        todo=todo,
        done=done,
        failed=failed,
        stages=stages,
        reused=reused,
        needs=needs,
    )


def _missing_stages(
    study: Study, todo: tuple[Cell, ...], store: StageStore
) -> tuple[tuple[StageWork, ...], Callable[[Cell], tuple[str, ...]], int]:
    of_data: dict[str, StageKeys] = {}
    of_arm: dict[int, list[StageTemplate]] = {}
    found: dict[str, tuple[Cell, StageTemplate]] = {}  # in order, with the first cell that needs it
    uses = 0
    for _, group in groupby(todo, key=lambda cell: id(cell.arm)):
        cells = list(group)
        first = cells[0]
        if first.fingerprint not in of_data:
            of_data[first.fingerprint] = StageKeys(study.task, first.fingerprint)
        templates = of_data[first.fingerprint](first.arm.config, first.seed)
        of_arm[id(first.arm)] = templates
        uses += len(templates) * len(cells)
        varying = [template for template in templates if template.varies]
        for cell in cells:
            # What is the same for every seed is found with the arm's first cell.
            for template in templates if cell is first else varying:
                key = template.key(cell.seed)
                if key not in found:
                    found[key] = cell, template
    there = store.which(found)

    def missing(cell: Cell, templates: Sequence[StageTemplate]) -> tuple[str, ...]:
        seed = cell.seed
        keys = {template.key(seed): None for template in templates}
        return tuple([key for key in keys if key not in there])

    stages = tuple(
        # A stored stage needs nothing any more.
        StageWork(key=key, cell=cell, needs=missing(cell, template.needs))
        for key, (cell, template) in found.items()
        if key not in there
    )
    return stages, lambda cell: missing(cell, of_arm[id(cell.arm)]), uses - len(stages)


def manifest_of(plan: Plan, extra: Mapping[str, Any]) -> Manifest:
    """`study.json` for this plan."""
    study = plan.study
    names = {split_data(text)[0] for text in plan.fingerprints}
    sizes = {text: dict(of_class) for text, of_class in plan.class_sizes.items()}
    return Manifest(
        study=study.name,
        question=study.question,
        core=study.core,
        factors={name: tuple(map(str, levels)) for name, levels in study.factors.items()},
        baseline={name: str(level) for name, level in study.baseline.items()},
        seeds=plan.seeds,
        preset=plan.request.preset,
        data=", ".join(plan.fingerprints),
        protocol=plan.request.protocol,
        data_fingerprint=",".join(plan.fingerprints.values()),
        data_card="\n\n".join(datasets.card(name) for name in sorted(names)),
        tables=study.tables,
        metrics=tuple(asdict(metric) for metric in study.task.metrics),
        cells=tuple(
            PlannedCell(
                key=cell.key, arm=cell.arm.label, levels=cell.arm.text_levels, seed=cell.seed
            )
            for cell in plan.cells
        ),
        extra={
            **({CLASS_SIZES: sizes} if sizes else {}),
            **({DESIGN: plan.request.design} if plan.request.design else {}),
            **extra,
        },
    )
