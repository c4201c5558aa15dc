"""The papers' tables rebuilt from a study: our mean ± std with the printed value under it."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pandas as pd

from analysis.aggregate import (
    Aggregate,
    aggregate,
    available_factors,
    entry,
    metric_table,
    select,
)
from analysis.model import Entry, Row, Table, mean_std
from analysis.published import Line, PublishedTable, Value
from sweeps.ledger.read import Ledger

EMPTY = Aggregate(mean=None, std=None, n=0, planned=0, failed=0, keys=())


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a rebuilt table.

    Attributes:
        lines: in reading order; a line with `levels` None is printed in the paper and not part
            of this study.
        group: label → the block it belongs to.
    """

    lines: tuple[tuple[str, Mapping[str, str] | None, str | None], ...]
    factors: tuple[str, ...]
    group: Mapping[str, str]


def same_data(ledger: Ledger, published: PublishedTable) -> bool:
    """Whether the study ran on the paper's own dataset."""
    return ledger.manifest.data.partition(":")[0] in published.data


def _axis(ledger: Ledger, published: tuple[Line, ...], *, percent_of: str) -> Axis:
    names = list(dict.fromkeys(name for line in published for name in line.levels))
    known = available_factors(ledger, set(names))
    matched = [{n: line.levels[n] for n in line.levels if n in known} for line in published]
    identities = [
        (tuple(levels.items()), line.metric)
        for levels, line in zip(matched, published, strict=True)
    ]
    lines: list[tuple[str, Mapping[str, str] | None, str | None]] = []
    if len(set(identities)) < len(identities):
        # The study does not vary what tells the printed lines apart (a body part, say): its own
        # line comes first, and the printed ones stand below it.
        metrics = list(dict.fromkeys(line.metric for line in published))
        labels = metric_table(ledger.manifest)
        for metric in metrics:
            suffix = f" ({labels[metric].label if metric in labels else metric})" if metric else ""
            lines.append((percent_of + (suffix if len(metrics) > 1 else ""), {}, metric))
        lines += [(line.label, None, line.metric) for line in published]
        return Axis(lines=tuple(lines), factors=(), group={})
    fixed = {name: level for name, level in known.items() if level is not None}
    for line, levels in zip(published, matched, strict=True):
        fits = all(levels[name] == level for name, level in fixed.items() if name in levels)
        varied = {name: level for name, level in levels.items() if name not in fixed}
        lines.append((line.label, varied if fits else None, line.metric))
    varied = [name for name in names if name in known and name not in fixed]
    seen = [levels for _, levels, _ in lines]
    for combination in itertools.product(*(ledger.manifest.factors[name] for name in varied)):
        levels = dict(zip(varied, combination, strict=True))
        if varied and levels not in seen:
            lines.append((", ".join(combination), levels, None))
    first = names[0] if len(names) > 1 else None
    group = {label: levels.get(first, "") if levels and first else "" for label, levels, _ in lines}
    return Axis(lines=tuple(lines), factors=tuple(varied), group=group)


def _residual(ledger: Ledger, used: tuple[str, ...]) -> list[dict[str, str]]:
    """Every combination of the factors that neither axis uses: a table each."""
    rest = {n: v for n, v in ledger.manifest.factors.items() if n not in used and len(v) > 1}
    return [dict(zip(rest, levels, strict=True)) for levels in itertools.product(*rest.values())]


def _entry(
    cells: pd.DataFrame,
    levels: Mapping[str, str] | None,
    metric: str | None,
    printed: Value | None,
    percent: bool,
    room: bool,
) -> Entry:
    found = EMPTY if levels is None or metric is None else aggregate(select(cells, levels), metric)
    digits = 2 if percent else 3
    under = ("",) if room else ()
    if printed is not None:
        scale = 0.01 if percent else 1
        shown = mean_std(printed.mean * scale, printed.std * scale, digits, percent=percent)
        under = (shown,)
    made = entry(found, digits=digits, percent=percent, under=under)
    if printed is None:
        return made
    published = {"published_mean": printed.mean, "published_std": printed.std}
    return replace(made, values={**made.values, **published})


def rebuilt(ledger: Ledger, published: PublishedTable) -> list[Table]:
    """The paper's table from this study: one, or one per level of what the paper did not vary.

    Rows and columns are the paper's, in its order; levels that the paper does not have follow.
    Lines of the paper that this study did not run stay visible, with "—" over the printed value.
    """
    manifest = ledger.manifest
    data = manifest.data.partition(":")[0]
    rows = _axis(ledger, published.rows, percent_of=data)
    columns = _axis(ledger, published.columns, percent_of=data)
    labels = metric_table(manifest)
    same = same_data(ledger, published)
    notes = [
        "mean ± std over seeds (ddof = 1); n is shown where it is not the planned number "
        f"of seeds ({len(manifest.seeds)}).",
        f"printed: {published.where}; {published.runs} runs"
        + ("." if published.runs_stated else " assumed, the paper does not say."),
    ]
    if not same:
        notes.append(
            f"different data: ours are {data}, the printed values are {published.data[0]}; "
            "their levels cannot be compared."
        )
    notes.append(f"preset {manifest.preset}, protocol {manifest.protocol}.")
    tables = []
    combinations = _residual(ledger, rows.factors + columns.factors)
    for number, rest in enumerate(combinations):
        cells = select(ledger.cells, rest)
        body = []
        for row_label, row_levels, row_metric in rows.lines:
            entries = []
            room = any((row_label, label) in published.values for label, _, _ in columns.lines)
            for column_label, column_levels, column_metric in columns.lines:
                metric = column_metric or row_metric or published.metric
                levels = None
                if row_levels is not None and column_levels is not None:
                    levels = {**row_levels, **column_levels}
                printed = published.values.get((row_label, column_label))
                entries.append(_entry(cells, levels, metric, printed, published.percent, room))
            body.append(
                Row(
                    label=row_label,
                    entries=tuple(entries),
                    under=("  printed",) if room else (),
                    group=rows.group.get(row_label, ""),
                )
            )
        suffix = "".join(f", {name} = {level}" for name, level in rest.items())
        where = f"ours on {data}, printed on {published.data[0]}"
        where = f"on {data}" if same else f"{where}: different data"
        tables.append(
            Table(
                name=published.name + (f"_{number + 1}" if len(combinations) > 1 else ""),
                title=f"{published.caption} ({where}{suffix})",
                stub="",
                columns=tuple(
                    labels[m].label if m in labels and not levels else label
                    for label, levels, m in columns.lines
                ),
                rows=tuple(body),
                notes=tuple(notes),
            )
        )
    return tables
