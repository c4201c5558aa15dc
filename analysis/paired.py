"""Paired differences of every arm against its baseline: the decisions, and what is exploratory."""

import numpy as np

from analysis.aggregate import Metric
from analysis.comparisons import (
    MOST_ROWS,
    Arms,
    arms_of,
    baseline_name,
    best_first,
    present_metrics,
    probability,
    values_of,
)
from analysis.decisions import Decision, Decisions, decisions
from analysis.inference import EXACT_LIMIT, Paired, exact_limit_sentence
from analysis.partitions import family_of, partitioned_in
from analysis.table import MISSING, Entry, Row, Table, interval, number
from sweeps.ledger.declared import TASK_FACTORS, reference_rows
from sweeps.ledger.read import Ledger

NO_COMMON_SEEDS = (
    "No arm has a finished seed in common with {}, so nothing can be compared; give them the same "
    "--seeds."
)
COMMON = ("n", "difference", "95 % interval", "d_z", "p")
PRIMARY = (*COMMON, "p (equivalent)", "detectable", "with patients", "answer")
EXPLORATORY = (*COMMON, "p (Holm)", "detectable")


def _shown(value: float, digits: int, keys: tuple[str, ...]) -> Entry:
    text = number(value, digits) if np.isfinite(value) else MISSING
    return Entry(text=text, values={"value": value}, order=value, keys=keys)


def _p(value: float, keys: tuple[str, ...] = ()) -> Entry:
    return Entry(text=probability(value), values={"value": value}, order=value, keys=keys)


def _common(found: Paired, metric: Metric, p: float, keys: tuple[str, ...]) -> list[Entry]:
    """The entries under COMMON, of two common seeds or more."""
    return [
        Entry(text=str(found.n), values={"value": found.n}, order=found.n, keys=keys),
        _shown(found.mean, metric.digits, keys),
        Entry(
            text=interval(found.low, found.high, metric.digits),
            values={"low": found.low, "high": found.high},
            keys=keys,
        ),
        _shown(found.d_z, 2, keys),
        _p(p, keys),
    ]


def _detectable(found: Paired, metric: Metric, keys: tuple[str, ...]) -> Entry:
    return Entry(
        text=number(found.detectable, metric.digits) if 0 < found.detectable < np.inf else MISSING,
        values={"value": found.detectable} if np.isfinite(found.detectable) else {},
        keys=keys,
    )


def _patients(one: Decision, metric: Metric, keys: tuple[str, ...]) -> Entry:
    """The 95 % interval over seeds and test patients."""
    if one.both is None:
        return Entry(text=MISSING)
    low, high = one.both.low, one.both.high
    return Entry(
        text=interval(low, high, metric.digits), values={"low": low, "high": high}, keys=keys
    )


def _too_few(found: Paired, keys: tuple[str, ...], columns: int) -> list[Entry]:
    count = Entry(text=str(found.n), keys=keys, values={"value": found.n})
    return [count, *(Entry(text=MISSING) for _ in range(columns - 1))]


def paired_against_baseline(
    ledger: Ledger, arms: Arms, metric: Metric
) -> tuple[list[int], list[Paired]]:
    """Every arm minus the baseline of its task, over common seeds; the baseline itself left out."""
    values = values_of(ledger, arms, metric.name)
    reference = reference_rows(arms.levels, ledger.manifest.baseline)
    rows = [i for i, r in enumerate(reference) if r >= 0 and r != i]
    if not rows:
        return rows, []
    differences = values[rows] - values[reference[rows]]
    return rows, family_of(differences, partitioned_in(ledger.manifest))


def _both_sides(values: np.ndarray, rows: list[int], reference: np.ndarray) -> bool:
    """Whether some arm and its baseline both have values, on common seeds or not."""
    there = ~np.isnan(values).all(axis=1)
    return any(there[row] and there[reference[row]] for row in rows)


def _difference_note(ledger: Ledger, arms: Arms) -> str:
    method = [name for name in arms.levels[0] if name not in TASK_FACTORS]
    within = ", within the same task" if len(method) < len(arms.levels[0]) else ""
    partitioned = partitioned_in(ledger.manifest)
    if partitioned is not None:
        return (
            f"Difference: arm minus {baseline_name(ledger)}{within}; n: {partitioned.said}. It "
            "holds what another split of the same patients changes."
        )
    return (
        f"Difference: arm minus {baseline_name(ledger)}, over common seeds{within}; interval: 95 % "
        "t-interval of its mean over seeds (training variance only: one split for all)."
    )


def _decision_notes(ledger: Ledger, found: Decisions) -> tuple[str, ...]:
    """What stands under the table of the primary metric."""
    share = found.rule.share
    most = max(decision.pair.n for decision in found.every)
    limit = "" if found.partitioned else exact_limit_sentence(most, found.rule.family)
    return (
        _difference_note(ledger, found.arms),
        found.sentence,
        f"p: exact sign-flip up to {EXACT_LIMIT} common seeds, paired t above, never below that of "
        "a t that allows for skewed differences; p (equivalent): the larger of two one-sided tests "
        "against the margin. Each comparison may err with probability "
        f"{found.rule.error:.0%} / {found.rule.family} = {number(share, 4)}"
        + (", spent over the looks." if len(found.rule.looks) > 1 else "."),
        "detectable: the smallest true difference that this test finds with 80 % power at this n "
        f"and the spread seen ({MISSING}: it can find none).",
        "with patients: 95 % interval of the same difference over seeds and test patients "
        f"together, from the stored predictions ({MISSING}: there are none for it). Answers "
        "are for training anew; one that does not hold for other test patients says so.",
        *found.cautions,
        *((limit,) if limit else ()),
    )


def _exploratory_notes(
    ledger: Ledger, arms: Arms, metric: Metric, pairs: list[Paired]
) -> tuple[str, ...]:
    most, family = max(p.n for p in pairs), max(p.family for p in pairs)
    limit = "" if partitioned_in(ledger.manifest) else exact_limit_sentence(most, family)
    return (
        _difference_note(ledger, arms),
        "Exploratory: this metric is not the one that decides, and nothing here is an answer.",
        f"p: exact sign-flip up to {EXACT_LIMIT} common seeds, paired t above. Holm family: the "
        f"{family} comparisons with {baseline_name(ledger)} on {metric.label}.",
        "detectable: the smallest true difference that this test finds with 80 % power at this n "
        f"and the spread seen, at 5 % / {family} ({MISSING}: it can find none).",
        *((limit,) if limit else ()),
    )


def paired_tables(ledger: Ledger) -> list[Table]:
    """A table of paired differences per metric that has a better way, the primary one first.

    Above MOST_ROWS arms the primary one alone.
    """
    arms, tables = arms_of(ledger), []
    main = decisions(ledger)
    directed = [m for m in present_metrics(ledger) if m.higher_is_better is not None]
    if main is not None:
        directed.sort(key=lambda metric: metric.name != main.metric.name)
    reference = reference_rows(arms.levels, ledger.manifest.baseline)
    keys = ledger.cells["key"].to_numpy()
    for metric in directed[:1] if len(arms.labels) > MOST_ROWS else directed:
        primary = main is not None and metric.name == main.metric.name
        rows, pairs = (
            ([d.row for d in main.every], [d.pair for d in main.every])
            if primary
            else paired_against_baseline(ledger, arms, metric)
        )
        values = values_of(ledger, arms, metric.name)
        if not rows or not _both_sides(values, rows, reference):
            continue  # one arm alone, or a quantity that the baseline does not have
        columns = PRIMARY if primary else EXPLORATORY
        shown, more = best_first(values[rows], metric)
        body = []
        for i in shown:
            behind = tuple(keys[np.isin(arms.row, (rows[i], reference[rows[i]]))])
            label = arms.labels[rows[i]]
            if pairs[i].n < 2:
                entries = _too_few(pairs[i], behind, len(columns))
            elif primary:
                one = main.every[i]
                entries = [
                    *_common(one.pair, metric, one.decided.p, behind),
                    _p(one.decided.p_equivalent),
                    _detectable(one.pair, metric, behind),
                    _patients(one, metric, behind),
                    Entry(text=one.text, best=one.answer == "better"),
                ]
            else:
                entries = [
                    *_common(pairs[i], metric, pairs[i].p, behind),
                    _p(pairs[i].p_holm),
                    _detectable(pairs[i], metric, behind),
                ]
            body.append(Row(label=label, entries=tuple(entries)))
        notes = (
            _decision_notes(ledger, main)
            if primary
            else _exploratory_notes(ledger, arms, metric, pairs)
        )
        if not any(pair.n for pair in pairs):
            notes += (NO_COMMON_SEEDS.format(baseline_name(ledger)),)
        title = f"{metric.label}: paired differences against {baseline_name(ledger)}"
        tables.append(
            Table(
                name=f"paired_{metric.name}",
                title=title if primary else f"{title} (exploratory)",
                stub="arm",
                columns=columns,
                rows=tuple(body),
                notes=(*notes, *more),
                prose=("answer",) if primary else (),
            )
        )
    return tables
