"""What is missing: arms × seeds minus what the ledger holds, and the stages that needs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from imaging_core import datasets
from imaging_core.datasets import ImageDataset
from imaging_core.fields import ConfigError
from sweeps.engine.stages import StageStore, flatten
from sweeps.engine.study import (
    Arm,
    Request,
    Study,
    apply,
    config_dict,
    expand,
    parse_seeds,
    split_data,
)
from sweeps.ledger.files import Store
from sweeps.ledger.read import committed_keys, failed_keys
from sweeps.ledger.schema import Manifest, PlannedCell, cell_key


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Arm × seed: the unit that is computed, stored, retried and counted."""

    key: str
    arm: Arm
    seed: int
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
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
        needs: cell key → keys of its missing stages.
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
    needs: Mapping[str, tuple[str, ...]]

    @property
    def keys(self) -> frozenset[str]:
        """The planned cells, each once."""
        return frozenset(cell.key for cell in self.cells)

    def todo_of(self, arm: Arm) -> list[Cell]:
        """The missing cells of one arm."""
        return [cell for cell in self.todo if cell.arm is arm]


def stage_store(results: str) -> StageStore:
    """The stages that the studies under `results` share."""
    return StageStore(Store(results).child("stages"))


def make_plan(study: Study, request: Request, *, results: str, retry_failed: bool) -> Plan:
    """Validate everything, expand, and subtract what is there.

    Raises:
        ConfigError: any bad input, before any work.
        DataError: the dataset breaks a rule.
    """
    study, shared = apply(study, request)
    seeds = parse_seeds(request.seeds, study.seeds)
    arms = expand(study, shared, request.data or study.data)
    if not arms:
        raise ConfigError("no arm is left; --set excludes every combination of levels")
    data: dict[str, ImageDataset] = {}
    for text in dict.fromkeys(arm.data for arm in arms):
        name, path = split_data(text)
        data[text] = datasets.load(name, path, request.protocol)
    for arm in arms:
        study.task.check(arm.config, data[arm.data])
    fingerprints = {text: found.fingerprint for text, found in data.items()}
    return plan_arms(
        study, request, seeds, arms, fingerprints, results=results, retry_failed=retry_failed
    )


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
    task = study.task
    cells = tuple(
        Cell(
            key=cell_key(task.name, task.version, config_dict(arm), seed, fingerprints[arm.data]),
            arm=arm,
            seed=seed,
            fingerprint=fingerprints[arm.data],
        )
        for arm in arms
        for seed in seeds
    )
    ledger = Store(results).child(study.name)
    planned = {cell.key for cell in cells}
    done = frozenset(committed_keys(ledger) & planned)
    failed = frozenset((failed_keys(ledger) & planned) - done)
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
) -> tuple[tuple[StageWork, ...], dict[str, tuple[str, ...]], int]:
    missing: dict[str, StageWork] = {}
    stored: set[str] = set()
    uses = 0
    needs: dict[str, tuple[str, ...]] = {}
    for cell in todo:
        flat = flatten(study.task, study.task.stages(cell.arm.config, cell.seed), cell.fingerprint)
        uses += len(flat)
        for key, (_, below) in flat.items():
            if key in missing or key in stored:
                continue
            if store.has(key):
                stored.add(key)
            else:
                missing[key] = StageWork(key=key, cell=cell, needs=below)
        needs[cell.key] = tuple(key for key in flat if key in missing)
    # A stored stage needs nothing any more.
    work = tuple(
        StageWork(key=w.key, cell=w.cell, needs=tuple(n for n in w.needs if n in missing))
        for w in missing.values()
    )
    return work, needs, uses - len(missing)


def manifest_of(plan: Plan, extra: Mapping[str, Any]) -> Manifest:
    """`study.json` for this plan."""
    study = plan.study
    names = {split_data(text)[0] for text in plan.fingerprints}
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
        extra=dict(extra),
    )
