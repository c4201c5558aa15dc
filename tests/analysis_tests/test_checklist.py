"""The checklist: every line is the ledger's, and what it does not hold is said to be absent."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from toy_ledgers import make_ledger

from analysis import checklist
from sweeps.ledger.declared import DECLARED, Declared
from sweeps.ledger.read import read_ledger
from sweeps.ledger.schema import DESIGN, LedgerError


@pytest.fixture(scope="module")
def ledger(tmp_path_factory):
    return read_ledger(
        str(make_ledger(tmp_path_factory.mktemp("c") / "toy", seeds=(0, 1, 2), predictions=True))
    )


def said(ledger) -> dict[str, str]:
    return {row.label: row.entries[0].text for row in checklist.checklist(ledger).rows}


def test_every_subject_says_what_the_ledger_says(ledger):
    lines = said(ledger)
    assert lines["Study: Question"] == ledger.manifest.question
    assert lines["Study: Method"] == "selection_core, version 1"
    assert lines["Replicates: Seeds"] == "0, 1, 2 (3; shared by all arms, so paired)"
    assert lines["Replicates: Cells"] == "18 planned, 18 finished"
    total = ledger.cells["wall_s"].sum()
    assert lines["Budget: Compute of the finished cells"].startswith(
        f"{total / 60:.1f} min of wall"
    )
    assert lines["Machines: Devices"] == "cpu (18 cells)"
    assert lines["Machines: Software"] == "numpy 2.0.0; torch 2.15.0"
    assert lines["Machines: Commit"] == "0123456789ab"
    assert "k_shot = 16" in lines["Configuration: Settings of every arm"]
    assert "controller" not in lines["Configuration: Settings of every arm"]
    assert lines["Deviations: None"].startswith("every planned cell finished")


def test_a_design_and_partitions_are_said(ledger):
    declared = Declared(
        metric="accuracy", higher_is_better=True, margin=0.01, error=0.05, comparisons=5,
        baseline={}, looks=(4,), partitions=4, overlap=0.25,
    )  # fmt: skip
    extra = {DESIGN: "screening", DECLARED: asdict(declared)}
    lines = said(replace(ledger, manifest=replace(ledger.manifest, extra=extra)))
    assert lines["Study: Design"] == "screening"
    assert said(ledger)["Study: Design"] == "the study's own arms"
    assert "over 4 partitions of the patients" in lines["Study: Declared before the run"]


def test_parts_are_counted_from_predictions(ledger):
    lines = said(ledger)
    key = ledger.cells["key"].iloc[0]
    table = ledger.predictions().read(key)
    test = table[table["split"] == "test"]
    line = lines["Data: Test part"]
    assert line.startswith(f"{len(test)} images of {test['group'].nunique()} groups (class 0: ")


def test_deviations_are_named(ledger):
    cells = ledger.cells.copy()
    cells.loc[0, ["status", "error_type"]] = "failed", "FloatingPointError"
    cells.loc[1, "status"] = "missing"
    cells.loc[2, "git_dirty"] = True
    cells.loc[3, "device"] = "NVIDIA H100"
    cells.loc[4, "attempts"] = 2
    lines = said(replace(ledger, cells=cells))
    assert lines["Deviations: Failed cells"] == "1, in no mean: FloatingPointError (1)"
    assert lines["Deviations: Cells not computed"] == "1"
    assert lines["Deviations: Cells computed with uncommitted changes"] == "1"
    assert lines["Deviations: Several kinds of device"] == "cpu, NVIDIA H100"
    assert lines["Deviations: Cells repeated after a lost worker"] == "1"
    assert lines["Replicates: Cells"] == "18 planned, 16 finished, 1 failed, 1 missing"
    assert "Deviations: None" not in lines


def test_what_is_not_held_is_said_and_nothing_is_claimed_of_it(ledger):
    lines = said(ledger)
    assert lines["Not in the ledger: Carbon and energy"].startswith("not measured")
    assert not any("CO2" in text or "kWh" in text for text in lines.values())


def test_both_files_are_written_and_say_the_same(tmp_path):
    root = make_ledger(tmp_path / "toy", seeds=(0,))
    markdown, latex = checklist.rebuild(str(root))
    text, tex = (Path(name).read_text(encoding="utf-8") for name in (markdown, latex))
    assert text.startswith("### Checklist of")
    assert text.count("| Deviations: None |") == 1
    assert r"\begin{tabular}" in tex
    assert "Deviations: None" in tex
    with pytest.raises(LedgerError, match=r"no study\.json"):
        checklist.rebuild(str(tmp_path))


def test_durations_and_lists_are_short():
    assert [checklist.hours(s) for s in (5, 90, 5400)] == ["5.0 s", "1.5 min", "1.50 h"]
    assert checklist.listed(range(100)) == "100 values, 0, 1, 2 … 99"
    assert checklist.listed([]) == "none"
