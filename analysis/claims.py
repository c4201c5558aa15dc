"""What the papers claim, held against our cells, and their prose against their own tables."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from analysis.aggregate import Metric, metric_table
from analysis.comparisons import probability
from analysis.decisions import Decision, Decisions, decisions
from analysis.inference import Paired, exact_limit_sentence
from analysis.layouts import Selected, differences, selected_lines, unlike_notes
from analysis.likeness import Unlike, unlike
from analysis.partitions import Partitioned, family_of, partitioned_in
from analysis.published import PublishedTable, Value, claims_checked
from analysis.table import MISSING, Entry, Row, Table, interval, number
from analysis.verdicts import verdict
from sweeps.ledger.read import Ledger
from sweeps.search.decide import Answer


@dataclass(frozen=True, kw_only=True)
class Claim:
    """ "A beats B on this metric", as a printed table has it.

    Attributes:
        better, worse: the two printed values; `better` is of the paper's own method.
        ours: (seeds,) our values of A minus our values of B; NaN where either is missing.
        keys: the ledger's cells of A and of B.
        arms: of the study that A and B are; empty where one was not run or is several.
        unlike: what keeps these cells from being the paper's experiment.
    """

    text: str
    metric: str
    better: Value
    worse: Value
    ours: np.ndarray
    keys: tuple[str, ...]
    arms: tuple[str, ...]
    unlike: Unlike


def _by_seed(cells: pd.DataFrame, metric: str, seeds: tuple[int, ...]) -> np.ndarray:
    column = f"metric.{metric}"
    there = cells[cells["status"] == "ok"]
    if column not in there or there["seed"].duplicated().any():
        return np.full(len(seeds), np.nan)
    return there.set_index("seed")[column].reindex(list(seeds)).to_numpy(dtype=float)


def table_claims(ledger: Ledger, published: PublishedTable) -> list[Claim]:
    """One claim for each rival that the paper prints its own method as better than.

    Where a rival is printed as the better one, or both alike, the paper claims nothing.
    """
    seeds = ledger.manifest.seeds
    cells: Mapping[tuple[str, str], Selected] = selected_lines(ledger, published)
    along = published.rows if published.focus_axis == "row" else published.columns
    across = published.columns if published.focus_axis == "row" else published.rows
    found = []
    for line in across:
        for rival in along:
            if rival.label == published.focus:
                continue

            def place(label: str, line_label: str = line.label) -> tuple[str, str]:
                here = (label, line_label)
                return here if published.focus_axis == "row" else here[::-1]

            ours, theirs = place(published.focus), place(rival.label)
            if published.values[theirs].mean >= published.values[ours].mean:
                continue
            (first, a), (second, b) = (published.focus, ours), (rival.label, theirs)
            metric = cells[a].metric
            nothing = np.full(len(seeds), np.nan)
            left, right = (
                nothing if cells[x].cells is None else _by_seed(cells[x].cells, metric, seeds)
                for x in (a, b)
            )
            found.append(
                Claim(
                    text=f"{first} beats {second} on {line.label}",
                    metric=metric,
                    better=published.values[a],
                    worse=published.values[b],
                    ours=left - right,
                    keys=tuple(
                        key
                        for x in (a, b)
                        if cells[x].cells is not None
                        for key in cells[x].cells["key"]
                    ),
                    arms=_arms(cells[a], cells[b]),
                    unlike=unlike(
                        ledger.manifest,
                        published,
                        [(t, dict(v)) for x in (a, b) for t, v in sorted(cells[x].configs)],
                    ),
                )
            )
    return found


def _arms(*lines: Selected) -> tuple[str, ...]:
    """The arm of each line; empty where one of them is none, or more than one."""
    found = [set() if line.cells is None else set(line.cells["arm"]) for line in lines]
    return tuple(arm for (arm,) in found) if all(len(arms) == 1 for arms in found) else ()


def decided_claim(claim: Claim, decided: Decisions | None) -> tuple[Decision, bool] | None:
    """The decision that the claim asks for, and whether A is its arm (else A is the baseline).

    None where it is none of the study's comparisons.
    """
    if decided is None or claim.metric != decided.metric.name or len(claim.arms) < 2:
        return None
    a, b = map(decided.row_of, claim.arms)
    for row, reference, forward in ((a, b, True), (b, a, False)):
        found = decided.of(row)
        if found is not None and found.reference == reference:
            return found, forward
    return None


def _turned(found: Paired) -> Paired:
    """The same comparison the other way round."""
    return replace(found, mean=-found.mean, low=-found.high, high=-found.low, d_z=-found.d_z)


TURNED: Mapping[Answer, Answer] = {"better": "worse", "worse": "better"}


def welch_p(claim: Claim, runs: int) -> float:
    """Two-sided Welch p of the printed summaries, `runs` runs each."""
    a, b = claim.better, claim.worse
    return float(
        stats.ttest_ind_from_stats(a.mean, a.std, runs, b.mean, b.std, runs, equal_var=False).pvalue
    )


def _signed(
    claims: list[Claim], metrics: Mapping[str, Metric], partitioned: Partitioned | None
) -> list[Paired]:
    """Our side of each claim, turned so that positive favours it, Holm over the table."""
    turned = [
        claim.ours
        if claim.metric not in metrics or metrics[claim.metric].higher_is_better is not False
        else -claim.ours
        for claim in claims
    ]
    return family_of(np.stack(turned), partitioned)


def verdict_table(ledger: Ledger, published: PublishedTable) -> Table:
    """A verdict for each claim of one published table."""
    claims = table_claims(ledger, published)
    metrics, decided = metric_table(ledger.manifest), decisions(ledger)
    partitioned = partitioned_in(ledger.manifest)
    found = _signed(claims, metrics, partitioned)
    rows = []
    for claim, tested in zip(claims, found, strict=True):
        asked, pair, answer, price = decided_claim(claim, decided), tested, None, ""
        scope = ""
        if asked is not None:
            decision, forward = asked
            lower = metrics[claim.metric].higher_is_better is False
            pair = decision.pair if forward != lower else _turned(decision.pair)
            given = decision.decided.answer
            answer = given if forward else TURNED.get(given, given)
            price, scope = decision.price, decision.scope
        scale, digits = (0.01, 2) if published.percent else (1, 3)
        printed = (claim.better.mean - claim.worse.mean) * scale
        difference, bounds = Entry(text=MISSING), Entry(text=MISSING)
        if pair.n:
            text = number(pair.mean, digits, percent=published.percent)
            difference = Entry(
                text=text, values={"value": pair.mean}, order=pair.mean, keys=claim.keys
            )
        if pair.n > 1:
            bounds = Entry(
                text=interval(pair.low, pair.high, digits, percent=published.percent),
                values={"low": pair.low, "high": pair.high},
                keys=claim.keys,
            )
        p = welch_p(claim, published.runs)
        said = verdict(pair, answer, claim.unlike, printed=printed, price=price, scope=scope)
        rows.append(
            Row(
                label=claim.text,
                entries=(
                    Entry(
                        text=number(printed, digits, percent=published.percent),
                        values={"value": printed},
                        order=printed,
                    ),
                    Entry(text=probability(p), values={"value": p}, order=p),
                    difference,
                    bounds,
                    Entry(text=probability(tested.p_holm), values={"value": tested.p_holm}),
                    Entry(
                        text=said.text,
                        under=(said.ours,) if said.ours else (),
                        values={"label": said.label},
                    ),
                ),
            )
        )
    most = max(pair.n for pair in found)
    family = max(pair.family for pair in found)
    limit = exact_limit_sentence(most, family) if family and not partitioned else ""
    return Table(
        name=f"verdicts_{published.name}",
        title=f"Claims of Table {published.number} ({published.caption}) against our cells",
        stub="claim",
        columns=(
            "printed difference",
            "printed p (Welch)",
            "ours",
            "95 % interval",
            "p (Holm)",
            "verdict",
        ),
        rows=tuple(rows),
        notes=(
            f"printed: {published.where}; Welch's t on the printed mean ± std with "
            f"{published.runs} runs" + ("" if published.runs_stated else " (assumed)") + ".",
            "ours: paired over common seeds. A verdict is the study's own decision, on the claims "
            "that compare an arm with its baseline on the primary metric; confirmed only where the "
            "95 % interval also reaches the printed difference, else the effect is smaller. The "
            f"other claims are exploratory; p (Holm) is over the {family} claims of this table "
            "that our cells can test, and decides nothing.",
            *((decided.sentence, *decided.cautions) if decided is not None else ()),
            *unlike_notes(
                differences(ledger, published, selected_lines(ledger, published).values())
            ),
            *((limit,) if limit else ()),
        ),
        prose=("verdict",),
    )


def claims_table(papers: tuple[str, ...]) -> Table:
    """The sentences of the papers that were held against their own printed tables."""
    rows = [
        Row(
            label=claim.claim,
            group=paper,
            entries=(
                Entry(text=paper),
                Entry(text=claim.printed_tables_say),
                Entry(text=claim.finding),
                Entry(text=claim.how or MISSING),
            ),
        )
        for paper in papers
        for claim in claims_checked(paper)
    ]
    return Table(
        name="claims_checked",
        title="Sentences of the papers against their own tables",
        stub="the text says",
        columns=("paper", "its tables say", "finding", "how"),
        rows=tuple(rows),
        notes=("None of this needs our cells: it is arithmetic on the printed values.",),
        prose=("paper", "its tables say", "finding", "how"),
    )
