"""Tables for studies that no paper printed: two factors as a grid, a k-shot curve as a table, and
one factor at a time from the default.
"""

from collections.abc import Mapping

from analysis.aggregate import Metric, aggregate, data_names, entry, in_order, level_names
from analysis.comparisons import Arms, arms_of, present_metrics
from analysis.decisions import decisions
from analysis.inference import exact_limit_sentence
from analysis.table import MISSING, Entry, Row, Table, interval, number
from sweeps.ledger.declared import TASK_FACTORS
from sweeps.ledger.read import Ledger


def varied_factors(ledger: Ledger) -> dict[str, tuple[str, ...]]:
    """The factors with more than one level, in the order of the plan."""
    return {n: levels for n, levels in ledger.manifest.factors.items() if len(levels) > 1}


def is_one_at_a_time(arms: Arms, baseline: Mapping[str, str]) -> bool:
    """Whether the study moves away from its baseline decision by decision.

    Three factors or more, most arms differing from the baseline in a single one.
    """
    differing = [sum(levels.get(n) != v for n, v in baseline.items()) for levels in arms.levels]
    single = sum(count <= 1 for count in differing)
    return len(baseline) > 2 and len(arms.levels) > 2 and single > len(differing) / 2


def headline_metric(ledger: Ledger) -> Metric | None:
    """The metric of a table that has room for one: the primary one, which decides."""
    found = decisions(ledger)
    if found is not None:
        return found.metric
    metrics = {metric.name: metric for metric in present_metrics(ledger)}
    return metrics.get("accuracy") or next(iter(metrics.values()), None)


def grid_table(ledger: Ledger, rows: str, columns: str) -> Table | None:
    """One metric over two factors (λ_zeros × decay, method × k-shot), mean ± std and n."""
    metric = headline_metric(ledger)
    if metric is None:
        return None
    cells, factors = ledger.cells, ledger.manifest.factors
    across = in_order(factors[columns], columns)
    body = []
    for level in in_order(factors[rows], rows):
        line = cells[cells[f"factor.{rows}"] == level]
        body.append(
            Row(
                label=level_names(rows, factors[rows])[level],
                entries=tuple(
                    entry(
                        aggregate(line[line[f"factor.{columns}"] == c], metric.name),
                        digits=metric.digits,
                    )
                    for c in across
                ),
            )
        )
    return Table(
        name=f"grid_{rows}_{columns}",
        title=f"{metric.label}: {rows} × {columns} on {', '.join(data_names(ledger.manifest))}",
        stub=f"{rows} \\ {columns}",
        columns=tuple(map(level_names(columns, across).get, across)),
        rows=tuple(body),
        notes=("mean ± std over seeds (ddof = 1); n is shown where it is not the planned number.",),
    )


def ambiguity_table(ledger: Ledger) -> Table | None:
    """One decision at a time against the default: what each ambiguity of the paper is worth."""
    arms, baseline = arms_of(ledger), ledger.manifest.baseline
    found = decisions(ledger)
    if found is None:
        return None
    metric = found.metric
    most = max(decision.pair.n for decision in found.every)
    limit = "" if found.partitioned else exact_limit_sentence(most, found.rule.family)
    rows = []
    for i, levels in enumerate(arms.levels):
        cells = ledger.cells[arms.row == i]
        mean = entry(aggregate(cells, metric.name), digits=metric.digits)
        moved = [n for n, level in levels.items() if baseline.get(n) != level]
        factor = moved[0] if moved else ""
        label = ", ".join(f"{n} = {levels[n]}" for n in moved) or "default"
        decision = found.of(i)
        if decision is None or decision.pair.n < 2:
            rows.append(Row(label=label, entries=(mean, Entry(text=MISSING), Entry(text=MISSING))))
            continue
        pair = decision.pair
        bounds = interval(pair.low, pair.high, metric.digits)
        rows.append(
            Row(
                label=label,
                group=factor,
                entries=(
                    mean,
                    Entry(
                        text=f"{number(pair.mean, metric.digits)} {bounds}",
                        values={"value": pair.mean, "low": pair.low, "high": pair.high},
                        order=pair.mean,
                        keys=mean.keys,
                    ),
                    Entry(text=decision.text, best=decision.answer == "better"),
                ),
            )
        )
    return Table(
        name="ambiguities",
        title=f"{metric.label}: one decision at a time from the default",
        stub="decision",
        columns=(metric.label, "difference to default", "answer"),
        rows=tuple(rows),
        notes=(
            "default: " + ", ".join(f"{n} = {v}" for n, v in baseline.items()) + ".",
            "difference: paired over common seeds, with the 95 % t-interval of its mean.",
            found.sentence,
            *found.cautions,
            *((limit,) if limit else ()),
        ),
        prose=("answer",),
    )


def factor_table(ledger: Ledger) -> Table | None:
    """The layout that fits the study's factors, or None where the papers' layouts say it all."""
    varied = varied_factors(ledger)
    if is_one_at_a_time(arms_of(ledger), ledger.manifest.baseline):
        return ambiguity_table(ledger)
    if len(varied) != 2 or max(map(len, varied.values())) > 12:
        return None
    first, second = varied
    # Along the columns goes what is a number: k, or the decay.
    if first in TASK_FACTORS:
        first, second = second, first
    return grid_table(ledger, first, second)
