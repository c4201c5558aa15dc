"""One decision for every table and figure, from the declaration; labelled where there is none."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from toy_ledgers import make_ledger

from analysis.answer import NO_CELLS, NOTHING, OF_A_SEARCH, answer_markdown, answer_sentences
from analysis.decisions import decisions, seeds_to_equivalence
from analysis.paired import paired_tables
from analysis.tables import rebuild
from sweeps.ledger.declared import BEFORE, DECLARED, Declared
from sweeps.ledger.read import read_ledger
from sweeps.search.paired import equivalence_p

METHODS = {"method": ("none", "good", "bad", "same", "open")}
MEANS = {"none": 0.8, "good": 0.85, "bad": 0.75, "same": 0.8, "open": 0.81}


def value(levels, seed: int, metric: str) -> float:
    """The arms' means are MEANS; what a seed adds is shared but for a small part of each."""
    rng = np.random.default_rng([seed, sum(map(ord, levels["method"])), len(metric)])
    noise = 0.02 if levels["method"] == "open" else 0.002
    return MEANS[levels["method"]] + 0.003 * seed % 0.02 + float(rng.normal(0, noise))


def declared(**values: object) -> Declared:
    base = {
        "metric": "auc", "higher_is_better": True, "margin": 0.01, "error": 0.05,
        "comparisons": 4, "baseline": {"method": "none"}, "looks": (12, 16), "after_cells": 0,
    }  # fmt: skip
    return Declared(**{**base, **values})


def study(tmp_path: Path, seeds: int = 12, *, extra=None, **values: object):
    root = make_ledger(
        tmp_path / "s",
        seeds=tuple(range(seeds)),
        tables=(),
        value=value,
        extra={DECLARED: asdict(declared())} if extra is None else extra,
        **{"factors": METHODS, **values},
    )
    return read_ledger(str(root))


def answers(found) -> dict[str, str]:
    return {found.arms.labels[one.row]: one.answer for one in found.every}


def test_a_study_of_one_seed_has_its_tables_and_decides_nothing(tmp_path: Path) -> None:
    ledger = study(tmp_path, seeds=1, extra={DECLARED: asdict(declared(looks=(1,)))})
    assert set(answers(decisions(ledger)).values()) == {"undecided"}
    assert rebuild(str(tmp_path / "s"))


@pytest.mark.long
def test_the_declared_metric_decides_at_its_looks(tmp_path: Path) -> None:
    found = decisions(study(tmp_path))
    assert found.metric.name == "auc"
    assert answers(found) == {
        "good": "better", "bad": "worse", "same": "equivalent", "open": "undecided",
    }  # fmt: skip
    assert {one.decided.seeds for one in found.every} == {12}
    assert found.cautions == ()
    first, *others = paired_tables(study(tmp_path / "again"))
    assert first.name == "paired_auc"
    assert [row.entries[-1].text for row in first.rows[:3]] == ["better", "worse", "equivalent"]
    assert first.rows[3].entries[-1].text.startswith("undecided; about ")
    assert all(table.title.endswith("(exploratory)") for table in others)


@pytest.mark.long
def test_before_a_look_is_whole_nothing_is_answered(tmp_path: Path) -> None:
    # Cell 12 × 1 + 3: "good" of seed 3 is still to come.
    found = decisions(study(tmp_path, missing=(15,)))
    assert answers(found)["good"] == "undecided"
    assert answers(found)["bad"] == "worse"
    failed = decisions(study(tmp_path / "failed", failed=(15,)))
    (good,) = [one for one in failed.every if one.answer == "better"]
    assert good.pair.n == 11


@pytest.mark.long
def test_seeds_after_the_answer_are_not_counted(tmp_path: Path) -> None:
    found = decisions(study(tmp_path, seeds=16))
    by_name = {found.arms.labels[one.row]: one for one in found.every}
    assert by_name["good"].pair.n == 12
    assert by_name["open"].pair.n == 16


def test_a_ledger_without_a_declaration_is_labelled(tmp_path: Path) -> None:
    found = decisions(study(tmp_path, extra={}))
    assert found.metric.name == "accuracy"
    assert found.cautions == (
        "Nothing was declared before this study ran: its answers follow the default metric, "
        "margin and error.",
    )
    assert found.cautions[0] in paired_tables(study(tmp_path / "b", extra={}))[0].notes


@pytest.mark.long
def test_what_was_changed_after_cells_is_shown(tmp_path: Path) -> None:
    now, old = declared(after_cells=20), declared(margin=0.002, looks=(5,))
    found = decisions(study(tmp_path, extra={DECLARED: asdict(now), BEFORE: [asdict(old)]}))
    assert found.cautions == (
        "Changed after 20 cells were there: margin 0.002, looks 5 (until then). The error that is "
        "promised holds only if nobody had looked at them.",
    )
    late = decisions(study(tmp_path / "b", extra={DECLARED: asdict(declared(after_cells=3))}))
    assert late.cautions == ("Declared when 3 cells were already there.",)


def test_better_by_less_than_the_margin_is_said(tmp_path: Path) -> None:
    wide = declared(margin=0.2)
    found = decisions(study(tmp_path, extra={DECLARED: asdict(wide)}))
    texts = {found.arms.labels[one.row]: one.text for one in found.every}
    assert texts["good"] == "better, by less than .200"


@pytest.mark.parametrize(("mean", "std", "error"), [(0.0, 0.01, 0.05), (0.004, 0.01, 0.01)])
def test_the_price_of_equivalence_buys_80_percent_power(
    mean: float, std: float, error: float
) -> None:
    n = seeds_to_equivalence(mean, std, 0.01, error)
    draws = np.random.default_rng(0).normal(mean, std, size=(4000, n))
    assert np.mean(equivalence_p(draws, 0.01) <= error) == pytest.approx(0.8, abs=0.06)
    assert seeds_to_equivalence(0.01, std, 0.01, error) is None
    assert seeds_to_equivalence(0.0099, std, 0.01, error) is None  # more than a thousand


def test_the_answer_is_said_in_sentences(tmp_path: Path) -> None:
    first, second, third = answer_sentences(study(tmp_path))
    found = decisions(study(tmp_path / "again"))
    price = next(one.price for one in found.every if one.answer == "undecided")
    assert first == (
        "Against none on ihc-colon, AUC is better with good (+.050, 12 seeds); worse with bad "
        "(−.049, 12 seeds); and no different by as much as .010 with same."
    )
    assert second == f"Open: open ({price})."
    assert third == (
        "The chance that any of the 4 answers is wrong is at most 5%, for training anew and the "
        "same test patients, as declared before the run."
    )


@pytest.mark.parametrize(
    ("second", "named"),
    [
        (("a", "b"), "better with good ("),  # the level in which it differs
        (("good", "none"), "better with good, good ("),  # two factors' levels have one name
    ],
)
def test_an_arm_is_named_by_what_it_changes(tmp_path: Path, second, named) -> None:
    baseline = {"method": "none", "controller": second[0]}
    told = declared(baseline=baseline, comparisons=3)
    ledger = study(tmp_path, extra={DECLARED: asdict(told)}, baseline=baseline,
                   factors={"method": ("none", "good"), "controller": second})  # fmt: skip
    assert named in answer_sentences(ledger)[0]


def test_the_answer_of_five_seeds_says_what_is_missing(tmp_path: Path) -> None:
    first, second, third = answer_sentences(study(tmp_path, seeds=5, extra={}))
    assert first == "Against none on ihc-colon, no arm is decided by Accuracy."
    # Four comparisons: the exact test needs eight pairs, equivalence seven.
    assert "good (about 3 more seeds)" in second
    assert "same (about 2 more seeds)" in second
    assert third == "Nothing was declared before the run."


def test_the_answer_where_there_is_nothing_to_say(tmp_path: Path) -> None:
    alone = make_ledger(tmp_path / "a", factors={"method": ("none",)}, tables=())
    assert answer_sentences(read_ledger(str(alone))) == (NOTHING,)
    found = make_ledger(tmp_path / "of_a_search", tables=(), extra={"space": {}})
    assert answer_sentences(read_ledger(str(found))) == (OF_A_SEARCH,)
    apart = study(tmp_path, seeds=1, extra={}, missing=(0,))
    assert answer_sentences(apart) == (NO_CELLS,)


def test_everything_decided_is_said_and_a_change_is_too(tmp_path: Path) -> None:
    now = declared(after_cells=9, comparisons=3)
    extra = {DECLARED: asdict(now), BEFORE: [asdict(declared())]}
    first, last = answer_sentences(study(tmp_path, extra=extra, keep=(0, 1, 2, 3)))
    assert "Open" not in first
    assert last == (
        "Nothing is open; the chance that any of the 3 answers is wrong is at most 5%, for "
        "training anew and the same test patients, had the declaration not been changed after "
        "cells were there."
    )


@pytest.mark.long
def test_many_arms_are_counted_and_hostile_names_stay_text(tmp_path: Path) -> None:
    names = ("none", *(f"m{i}|*x*" for i in range(7)))
    root = make_ledger(
        tmp_path / "many",
        factors={"method": names},
        seeds=tuple(range(12)),
        tables=(),
        value=lambda levels, seed, _: 0.5 + 0.1 * (levels["method"] != "none") + seed % 3 / 1000,
    )
    ledger = read_ledger(str(root))
    assert "and 3 more" in answer_sentences(ledger)[0]
    assert "m0\\|\\*x\\*" in answer_markdown(ledger)
    assert "tables/answer.md" in [path[-16:] for path in rebuild(str(root))]
    assert (root / "tables" / "answer.md").read_text() == answer_markdown(ledger)


@pytest.mark.long
def test_an_answer_that_does_not_hold_for_other_patients_says_so(tmp_path: Path) -> None:
    # The cells' accuracy differs by .05; their predictions, of twelve patients, say far less.
    ledger = study(
        tmp_path, extra={DECLARED: asdict(declared(metric="accuracy"))}, predictions=True
    )
    found = decisions(ledger)
    by_name = {found.arms.labels[one.row]: one for one in found.every}
    good = by_name["good"]
    assert (good.both.seeds, good.both.patients) == (12, 12)
    assert good.for_others is False
    assert good.text == "better on these test patients"
    assert "good (+.049, 12 seeds, on these test patients)" in answer_sentences(ledger)[0]
    assert "for training anew and, where not said" in answer_sentences(ledger)[-1]
    (table, *_) = paired_tables(ledger)
    assert table.rows[0].entries[table.columns.index("with patients")].values["low"] < 0.05
