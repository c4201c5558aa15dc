"""What a search is: ranges instead of levels, proposed by a sampler; the winner is rerun.

The ledger of the search's cells is `results/<name>_tuning`; the winners and the defaults are an
ordinary study, `results/<name>`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from imaging_core import datasets
from imaging_core.datasets import ImageDataset
from imaging_core.fields import ConfigError, as_dict, build, did_you_mean, field_names
from imaging_core.task import Task
from sweeps.engine.decoding import DecodingLine
from sweeps.engine.fitting import fit_arms, typed_fields
from sweeps.engine.kept import known_kinds
from sweeps.engine.seeds import parse_seeds
from sweeps.engine.study import (
    DATA,
    SETTING,
    Arm,
    Request,
    Study,
    apply,
    place_data,
    split_data,
)
from sweeps.engine.tuning import Tuning
from sweeps.ledger.schema import arm_label
from sweeps.search.pruner import ALPHA
from sweeps.search.space import Choice, Problem, Range, Space, active, points, restrict

__all__ = ["Choice", "Range", "Search", "prepare", "reporting_study"]

TUNING_FROM = 1000
"""`--tuning-seeds 3` means 1000, 1001, 1002: far from the reporting seeds, which count from 0."""
MOST_TRIALS = 100_000  # more proposals than any sampler is asked for: a slip
DEFAULT, TUNED = "default", "tuned"


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search, as a script of `sweeps/` declares it.

    Attributes:
        name, question, core, data, tables: as in `Study`.
        space: field → `Range` or `Choice`; one whose `when` names another comes after it.
        per_preset: preset → axes that replace those of `space`.
        compare: at most one factor → its levels. Each level is tuned on its own, with `trials`
            proposals, so that the levels are compared tuned with tuned.
        fixed: fields that differ from the preset in every arm.
        objective: a validation metric; its mean over the tuning seeds is optimised.
        trials: proposals per level of `compare`.
        tuning_seeds, seeds: how many seeds to tune with, and to report on.
        alpha: level of the stopping rule (`sweeps.search.pruner`); 0 never stops an arm.
        curve: of its cells, whose best value is the objective: what a pruner hears while one runs
            (`--prune`); "" where cells have none.
        sampler_seed: of the sampler.
    """

    name: str
    question: str
    core: str
    space: Space
    data: str
    tables: tuple[str, ...] = ()
    per_preset: Mapping[str, Space] = field(default_factory=dict)
    compare: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    objective: str = "val_best"
    trials: int = 20
    tuning_seeds: int = 5
    seeds: int = 5
    alpha: float = ALPHA
    curve: str = ""
    sampler_seed: int = 0

    @property
    def as_study(self) -> Study:
        """The factor that is compared, as a study of the fields alone."""
        return Study(
            name=self.name,
            question=self.question,
            core=self.core,
            factors=dict(self.compare),
            baseline={},
            data=self.data,
            tables=self.tables,
            objective=self.objective,
            seeds=self.seeds,
            fixed=self.fixed,
        )

    @property
    def task(self) -> Task:
        """The core's task."""
        return self.as_study.task


def parse_tuning_seeds(text: str | None, default: int) -> tuple[int, ...]:
    """`"3"` → 1000..1002; a list is taken as it is."""
    seeds = parse_seeds(text, default, "--tuning-seeds")
    is_list = text is not None and "," in text
    return seeds if is_list else tuple(TUNING_FROM + seed for seed in seeds)


def prepare(
    search: Search,
    request: Request,
    *,
    results: str,
    trials: int | None,
    tuning_seeds: str | None,
    rounds_of: int = 0,
    prune: str | None = None,
) -> Tuning:
    """Apply the command line and check everything; nothing is read or written under `results`.

    Raises:
        ConfigError: any bad input, a default outside its range included.
        DataError: the dataset breaks a rule.
    """
    study, shared = apply(search.as_study, request)
    if DATA in study.factors:
        raise ConfigError("a search runs on one dataset; name it with --data")
    space = _space(search, request, study)
    compare = {name: study.factors[name] for name in search.compare}
    _check_objective(search)
    _check_pruner(search, prune)
    if request.keep:
        known_kinds(request.keep, study.task)
    seeds = parse_tuning_seeds(tuning_seeds, search.tuning_seeds)
    reporting = parse_seeds(request.seeds, search.seeds)
    if both := sorted(set(seeds) & set(reporting)):
        raise ConfigError(
            f"tuning and reporting seeds must differ, got {', '.join(map(str, both))} in both: "
            "a winner is lucky on the seeds that chose it; change --tuning-seeds or --seeds"
        )
    groups = {
        arm_label({name: str(level)}): {name: level}
        for name, levels in compare.items()
        for level in levels
    } or {"": {}}
    data = place_data(request.data or study.data)
    name, path = split_data(data)
    dataset = datasets.load(name, path, request.protocol, progress=DecodingLine())
    defaults = {}
    shared, notes = _fitted(study, shared, request, dataset, groups)
    for group, fields in groups.items():
        values = as_dict(build(study.task.config, {**shared, **fields}))
        defaults[group] = restrict(space, fields, values)
        for arm in _probes(space, {**shared, **fields}, defaults[group]):
            study.task.check(build(study.task.config, arm), dataset)
    problem = Problem(
        name=search.name,
        space=space,
        groups=groups,
        defaults=defaults,
        trials=search.trials if trials is None else trials,
        seeds=seeds,
        maximize=_direction(search),
        alpha=search.alpha,
        seed=search.sampler_seed,
        round=rounds_of,
        prune=prune or "",
    )
    _check_size(problem)
    return Tuning(
        search=replace(search, compare=compare),
        request=request,
        problem=problem,
        shared=shared,
        notes=tuple(notes),
        data=data,
        fingerprint=dataset.fingerprint,
        reporting_seeds=reporting,
        results=results,
    )


def _fitted(
    study: Study,
    shared: Mapping[str, Any],
    request: Request,
    dataset: ImageDataset,
    groups: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], list[str]]:
    """The shared fields with the preset's values lowered to what the data offers, and the notes.

    An axis of the space, or what is compared, is never moved: a default of it that the data cannot
    serve is refused like any other.
    """
    arms = [
        Arm(levels={}, config=build(study.task.config, {**shared, **fields}), data=dataset.name)
        for fields in groups.values()
    ]
    fixed = typed_fields(request)
    fitted, notes = fit_arms(study.task, arms, {dataset.name: dataset}, fixed, {})
    names = field_names(study.task.config)
    moved: dict[str, Any] = {}
    for before, after in zip(arms, fitted, strict=True):
        for name in names:
            value = getattr(after.config, name)
            if value != getattr(before.config, name):
                moved[name] = min(value, moved.get(name, value))
    return {**shared, **moved}, list(dict.fromkeys(notes))


def _space(search: Search, request: Request, study: Study) -> dict[str, Range | Choice]:
    """The axes, after `--set`: one value fixes a field, several are a choice."""
    declared = {**search.space, **search.per_preset.get(request.preset, {})}
    known = (*field_names(study.task.config), DATA)
    for name, axis in declared.items():
        for needed in axis.when:
            if needed in declared and list(declared).index(needed) > list(declared).index(name):
                raise ConfigError(f"the axis {needed} must come before {name}, which depends on it")
            if needed not in known:
                raise ConfigError(f'{name} depends on an unknown field "{needed}"')
        if name not in known:
            raise ConfigError(f'unknown field "{name}" in the space{did_you_mean(name, known)}')
    named = {text.partition("=")[0].strip() for text in request.settings}
    named |= {name for name, _ in request.of_file}
    axes: dict[str, Range | Choice] = {}
    for name, axis in declared.items():
        if name in study.factors:
            axes[name] = Choice(study.factors[name], when=axis.when)
        elif name not in named:
            axes[name] = axis
    more = [n for n in study.factors if n not in declared and n not in search.compare]
    return {**{n: Choice(study.factors[n]) for n in more}, **axes}


def _probes(
    space: Space, shared: Mapping[str, Any], default: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The default point, and it with each axis moved to its ends or levels, as whole arms.

    Raises:
        ConfigError: the default is outside its axis.
    """
    for name, value in default.items():
        axis = space[name]
        if not axis.holds(value):
            allowed = (
                f"{axis.low} to {axis.high}"
                if isinstance(axis, Range)
                else ", ".join(map(str, axis.levels))
            )
            raise ConfigError(
                f"the default {name}={value} is proposed first and must be in the search's space "
                f"({allowed}); widen the space or --set {name}=a,b"
            )
    yield {**shared, **default}
    for name, axis in space.items():
        for value in axis.probes():
            moved = {**shared, **default, name: value}
            if not active(axis, moved):
                continue
            for other, opened in space.items():  # the move may open axes: any value of theirs
                if other not in default and other != name and active(opened, moved):
                    moved[other] = opened.probes()[0]
            yield moved


def _check_objective(search: Search) -> None:
    known = {metric.name: metric for metric in search.task.metrics}
    if search.objective not in known:
        raise ConfigError(
            f'unknown objective "{search.objective}"{did_you_mean(search.objective, known)} '
            f"(metrics of {search.core}: {', '.join(known)})"
        )
    if not search.objective.startswith("val"):
        raise ConfigError(
            f"the objective must be a validation metric (val…), got {search.objective}: a search "
            "that saw the test set would report what it was tuned on"
        )


def _check_pruner(search: Search, prune: str | None) -> None:
    if prune is None:
        return
    if not search.curve:
        raise ConfigError(
            "--prune hears the curve of a running cell's objective, and the cells of "
            f"{search.name} have none (they learn in stages, which arms share); leave it out: the "
            "stopping rule after each seed stays"
        )
    from sweeps.search.cell_pruner import make_pruner

    try:
        make_pruner(prune)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _direction(search: Search) -> bool:
    metric = next(m for m in search.task.metrics if m.name == search.objective)
    return metric.higher_is_better is not False


def _check_size(problem: Problem) -> None:
    if problem.trials < 1:
        raise ConfigError(f"--trials must be at least 1, got {problem.trials}")
    if problem.trials > MOST_TRIALS:
        raise ConfigError(f"--trials must be at most {MOST_TRIALS}, got {problem.trials}")
    if problem.round < 0:
        raise ConfigError(f"--rounds-of must be at least 0, got {problem.round}")
    for group, fields in problem.groups.items():
        every = points(problem.space, fields)
        size = None if every is None else sum(1 for _ in every)
        if size is not None and problem.trials > size:
            raise ConfigError(
                f"the space of {group or problem.name} has {size} points, so --trials must be at "
                f"most {size}, got {problem.trials}"
            )


def reporting_study(
    tuning: Tuning, winners: Mapping[str, Mapping[str, Any]]
) -> tuple[Study, Request]:
    """The winners and the defaults on the reporting seeds, as an ordinary study.

    Args:
        winners: group → its best point.
    """
    search, problem = tuning.search, tuning.problem
    settings = (DEFAULT, TUNED)
    bundles = {}
    for group, fields in problem.groups.items():
        for setting, point in ((DEFAULT, problem.defaults[group]), (TUNED, winners[group])):
            bundles[arm_label({**{n: str(v) for n, v in fields.items()}, SETTING: setting})] = point
    study = replace(
        search.as_study,
        factors={**search.compare, SETTING: settings},
        baseline={SETTING: DEFAULT},
        fixed=dict(tuning.shared),
        bundles=bundles,
    )
    return study, replace(tuning.request, settings=(), of_file=(), data=tuning.data)
