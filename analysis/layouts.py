"""The papers' tables rebuilt from a study: our mean ± std with the printed value under it."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import pandas as pd

from analysis.aggregate import (
    Aggregate,
    Design,
    Metric,
    aggregate,
    data_names,
    design_of,
    entry,
    has,
    in_order,
    level_name,
    metric_table,
    select,
)
from analysis.decisions import Decisions, decisions
from analysis.likeness import Unlike, unlike
from analysis.published import Line, PublishedTable, Value
from analysis.table import Entry, Row, Table, mean_std
from sweeps.ledger.read import Ledger

EMPTY = Aggregate(mean=None, std=None, n=0, planned=0, failed=0, keys=())


@dataclass(frozen=True, kw_only=True)
class Place:
    """One row or column of a rebuilt table.

    Attributes:
        label: as shown.
        levels: the arms that belong here; None where this study did not run it.
        metric: ours, where the line names one.
        printed: the label in the paper; empty for a line of our own.
        stated: the levels that the paper's line names, whether this study varies them or not.
        named: the factors that the label of a line of our own names.
    """

    label: str
    levels: Mapping[str, str] | None
    metric: str | None
    printed: str = ""
    stated: Mapping[str, str] = field(default_factory=dict)
    named: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The rows or the columns of a rebuilt table, and the factors they use."""

    places: tuple[Place, ...]
    factors: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Selected:
    """The cells behind one entry; None where this study did not run it.

    Attributes:
        levels: what the paper's row and column say of them.
    """

    cells: pd.DataFrame | None
    metric: str | None
    levels: Mapping[str, str] = field(default_factory=dict)

    @property
    def configs(self) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        """(configuration, levels) of the cells that are there, each once."""
        if self.cells is None:
            return set()
        there = self.cells.loc[self.cells["status"] == "ok", "config"]
        return {(text, tuple(self.levels.items())) for text in there.unique()}


def own_label(factor: str, level: str) -> str:
    """A level as a row's name: a number needs its factor beside it, a word does not."""
    name = level_name(factor, level)
    return f"{factor} = {name}" if name != level or level[:1].isdigit() else name


def telling(levels: Mapping[str, str], planned: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    """The factors that tell `levels` from all other planned combinations, no more than needed.

    Where a method without a controller is planned once, its name says all of it.
    """
    named = list(levels)
    for name in levels:
        rest = [n for n in named if n != name]
        if sum(all(other[n] == levels[n] for n in rest) for other in planned) == 1:
            named = rest
    return tuple(named)


def _own_places(
    ledger: Ledger, published: tuple[Line, ...], metrics: Mapping[str, Metric]
) -> list[Place]:
    """One line for the whole study, per metric: it does not vary what the paper's lines vary."""
    data = ", ".join(data_names(ledger.manifest))
    names = list(dict.fromkeys(line.metric for line in published))
    if len(names) == 1:
        return [Place(label=data, levels={}, metric=names[0])]
    return [
        Place(label=f"{data} ({metrics[n].label if n in metrics else n})", levels={}, metric=n)
        for n in names
    ]


def axis_of(
    ledger: Ledger, design: Design, published: tuple[Line, ...], metrics: Mapping[str, Metric]
) -> Axis:
    """The printed lines in their order, each with its levels here; then levels of our own."""
    names = list(dict.fromkeys(name for line in published for name in line.levels))
    known = [name for name in names if name in design.factors or name in design.fixed]
    varied = [name for name in known if name in design.factors]
    # What all of several lines share tells none of them from the others.
    shared = {
        n for n in names if len(published) > 1 and len({x.levels.get(n) for x in published}) == 1
    }
    matched = [{n: line.levels[n] for n in line.levels if n in known} for line in published]
    identities = [
        (*levels.items(), line.metric) for levels, line in zip(matched, published, strict=True)
    ]
    if len(set(identities)) < len(identities):
        printed = [
            Place(label=x.label, levels=None, metric=x.metric, printed=x.label) for x in published
        ]
        own = _own_places(ledger, published, metrics)
        return Axis(places=(*own, *printed), factors=())
    places = []
    for line, levels in zip(published, matched, strict=True):
        fits = all(design.fixed[n] == level for n, level in levels.items() if n not in varied)
        own_levels = {n: level for n, level in levels.items() if n in varied}
        # What the paper's line says and this study does not vary is not ours: show what is.
        ours = ", ".join(f"{n} = {v}" for n, v in own_levels.items())
        whole = all(name in levels for name in line.levels if name not in shared)
        places.append(
            Place(
                label=line.label if whole or not ours else f"{line.label} ({ours})",
                levels=own_levels if fits else None,
                metric=line.metric,
                printed=line.label,
                stated=line.levels,
            )
        )
    seen = [place.levels for place in places]
    levels_of = [in_order(design.factors[name], name) for name in varied]
    every = [dict(zip(varied, levels, strict=True)) for levels in itertools.product(*levels_of)]
    planned = [levels for levels in every if has(design.cells, levels)]
    for levels in planned if varied else ():
        if levels not in seen:
            named = telling(levels, planned) if len(planned) < len(every) else tuple(varied)
            label = ", ".join(own_label(name, levels[name]) for name in named)
            places.append(Place(label=label, levels=levels, metric=None, named=named))
    return Axis(places=tuple(places), factors=tuple(varied))


def residual(design: Design, *axes: Axis) -> list[dict[str, str]]:
    """Every combination of the factors that no axis uses: a table each, where it has cells."""
    used = {name for axis in axes for name in axis.factors}
    rest = {n: v for n, v in design.factors.items() if n not in used and len(v) > 1}
    every = [dict(zip(rest, levels, strict=True)) for levels in itertools.product(*rest.values())]
    return [levels for levels in every if has(design.cells, levels)]


def _selected(
    design: Design, published: PublishedTable, row: Place, column: Place, rest: Mapping[str, str]
) -> Selected:
    metric = column.metric or row.metric or published.metric
    if row.levels is None or column.levels is None:
        return Selected(cells=None, metric=metric)
    cells = select(design.cells, {**rest, **row.levels, **column.levels})
    return Selected(
        cells=cells if len(cells) else None,
        metric=metric,
        levels={**row.stated, **column.stated},
    )


def selected_lines(ledger: Ledger, published: PublishedTable) -> dict[tuple[str, str], Selected]:
    """The cells behind every printed value, by (row, column) as printed.

    Where the study varies more than the paper, its baseline's levels are taken.
    """
    design, metrics = design_of(ledger), metric_table(ledger.manifest)
    rows = axis_of(ledger, design, published.rows, metrics)
    columns = axis_of(ledger, design, published.columns, metrics)
    every = residual(design, rows, columns) or [{}]
    baseline = ledger.manifest.baseline
    rest = next((r for r in every if all(baseline.get(n) == v for n, v in r.items())), every[0])
    return {
        (row.printed, column.printed): _selected(design, published, row, column, rest)
        for row in rows.places
        for column in columns.places
        if (row.printed, column.printed) in published.values
    }


def differences(ledger: Ledger, published: PublishedTable, lines: Iterable[Selected]) -> Unlike:
    """What keeps the cells of these entries from being the paper's experiment."""
    configs = dict.fromkeys(pair for line in lines for pair in sorted(line.configs))
    return unlike(ledger.manifest, published, [(text, dict(levels)) for text, levels in configs])


def _entry(found: Selected, printed: Value | None, percent: bool, room: bool) -> Entry:
    usable = found.cells is not None and found.metric is not None
    counted = aggregate(found.cells, found.metric) if usable else EMPTY
    digits = 2 if percent else 3
    under = ("",) if room else ()
    if printed is not None:
        scale = 0.01 if percent else 1
        under = (mean_std(printed.mean * scale, printed.std * scale, digits, percent=percent),)
    made = entry(counted, digits=digits, percent=percent, under=under)
    if printed is None:
        return made
    published = {"published_mean": printed.mean, "published_std": printed.std}
    return replace(made, values={**made.values, **published})


def _is_best(found: Selected, decided: Decisions | None) -> bool:
    """Whether an entry is the primary metric of an arm that is decided better."""
    if decided is None or found.cells is None or found.metric != decided.metric.name:
        return False
    rows = {decided.row_of(arm) for arm in found.cells["arm"].unique()}
    return len(rows) == 1 and rows <= decided.best_rows


def unlike_notes(found: Unlike) -> tuple[str, ...]:
    """What stands under a table whose cells are not the paper's experiment."""
    notes = ()
    if found.data:
        notes += (
            f"different data: {found.data}; compare orders within a table, not levels across.",
        )
    if found.setting:
        notes += (f"different setting: {found.named}.",)
    return notes


def _notes(ledger: Ledger, published: PublishedTable, found: Unlike) -> tuple[str, ...]:
    manifest = ledger.manifest
    runs = f"{published.runs} runs" + ("" if published.runs_stated else ", assumed")
    notes = [
        "mean ± std over seeds (ddof = 1); n is shown where it is not the planned number of "
        f"seeds ({len(manifest.seeds)}); bold: decided better than the baseline, or the baseline "
        "where every other arm is decided worse.",
        f"printed: {published.where} ({runs}).",
    ]
    notes += unlike_notes(found)
    notes.append(f"preset {manifest.preset}, protocol {manifest.protocol}.")
    return tuple(notes)


def _table(
    ledger: Ledger,
    published: PublishedTable,
    design: Design,
    axes: tuple[Axis, Axis],
    rest: Mapping[str, str],
    name: str,
) -> Table:
    rows, columns = axes
    found = [
        [_selected(design, published, row, column, rest) for column in columns.places]
        for row in rows.places
    ]
    decided = decisions(ledger)
    groups = [name for name in rows.factors if len(rows.factors) > 1][:1]
    body = []
    for r, row in enumerate(rows.places):
        printed = [published.values.get((row.printed, c.printed)) for c in columns.places]
        room = any(value is not None for value in printed)
        entries = []
        for c, value in enumerate(printed):
            made = _entry(found[r][c], value, published.percent, room)
            entries.append(replace(made, best=_is_best(found[r][c], decided)))
        grouped = groups and (row.printed or groups[0] in row.named)
        group = (row.levels or {}).get(groups[0], "") if grouped else ""
        body.append(
            Row(
                label=row.label,
                entries=tuple(entries),
                under=("  printed",) if room else (),
                group=group,
            )
        )
    data = ", ".join(data_names(ledger.manifest))
    printed_lines = [
        found[r][c]
        for r, row in enumerate(rows.places)
        for c, column in enumerate(columns.places)
        if (row.printed, column.printed) in published.values
    ]
    other = differences(ledger, published, printed_lines)
    where = f"ours on {data}, printed on {published.data[0]}: different data"
    if not other.data:
        where = f"on {data}; different setting" if other else f"on {data}"
    suffix = "".join(f", {factor} = {level}" for factor, level in rest.items())
    return Table(
        name=name,
        title=f"{published.caption} ({where}{suffix})",
        stub="",
        columns=tuple(c.label for c in columns.places),
        rows=tuple(body),
        notes=_notes(ledger, published, other),
    )


def rebuilt(ledger: Ledger, published: PublishedTable) -> list[Table]:
    """The paper's table from this study: one, or one per level of what the paper did not vary.

    Rows and columns are the paper's, in its order; levels that the paper does not have follow.
    Lines of the paper that this study did not run stay visible, with "—" over the printed value.
    """
    design, metrics = design_of(ledger), metric_table(ledger.manifest)
    axes = (
        axis_of(ledger, design, published.rows, metrics),
        axis_of(ledger, design, published.columns, metrics),
    )
    every = residual(design, *axes) or [{}]
    return [
        _table(
            ledger,
            published,
            design,
            axes,
            rest,
            published.name + (f"_{number}" if len(every) > 1 else ""),
        )
        for number, rest in enumerate(every, start=1)
    ]
