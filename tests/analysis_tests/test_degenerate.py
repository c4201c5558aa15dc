"""Warnings under a table: empty or full masks in most cells of an arm, an arm at chance."""

from collections.abc import Mapping
from pathlib import Path

from toy_ledgers import make_ledger

from analysis import tables
from analysis.degenerate import MOST_NAMES, degenerate_notes
from sweeps.ledger.read import read_ledger

FACTORS = {"method": ("matched", "apga", "end2end", "gradcam")}
NAMES = ("accuracy", "sensitivity", "specificity", "empty_masks", "mask_area")
SOUND = {
    "accuracy": 0.8,
    "sensitivity": 0.9,
    "specificity": 0.7,
    "empty_masks": 0.1,
    "mask_area": 0.2,
}


def ledger(root: Path, odd: Mapping[str, Mapping[str, float]], cells: int = 5, **how):
    """Five seeds; the first `cells` of an arm have the values of `odd`, the others sound ones."""

    def value(levels, seed, metric):
        own = odd.get(levels["method"], {}) if seed < cells else {}
        return {**SOUND, **own}[metric]

    made = make_ledger(root, factors=FACTORS, value=value, metrics=NAMES, tables=(), **how)
    return read_ledger(str(made))


def test_sound_arms_have_no_note(tmp_path):
    assert degenerate_notes(ledger(tmp_path, {})) == ()


def test_most_cells_are_more_than_half(tmp_path):
    odd = {"apga": {"empty_masks": 0.5}}
    assert degenerate_notes(ledger(tmp_path / "two", odd, cells=2)) == ()
    assert degenerate_notes(ledger(tmp_path / "three", odd, cells=3)) == (
        "warning, empty masks (at least 50% of a cell's aid masks keep nothing) in most cells: "
        "apga (3 of 5); what these arms show is not what the method hides.",
    )
    # Of the cells there are: two of the five sound ones are missing, 2 of 3 are left.
    left = ledger(tmp_path / "missing", odd, cells=2, missing=(8, 9))
    assert "apga (2 of 3)" in degenerate_notes(left)[0]


def test_full_masks_and_chance_have_notes_of_their_own(tmp_path):
    always_one_class = {"accuracy": 0.5, "sensitivity": 1.0, "specificity": 0.0}
    found = degenerate_notes(
        ledger(tmp_path, {"end2end": {"mask_area": 0.99}, "gradcam": always_one_class})
    )
    assert len(found) == 2
    assert found[0].startswith("warning, full masks (they keep at least 95% of the image)")
    assert "end2end (5 of 5)" in found[0]
    assert "sensitivity + specificity − 1 of at most 0.05 on test" in found[1]
    assert "gradcam (5 of 5)" in found[1]


def test_chance_is_the_same_for_six_classes(tmp_path):
    """Macro one-vs-rest of an answer that is always one class: recall 1/6, specificity 5/6."""
    one_of_six = {"accuracy": 1 / 6, "sensitivity": 1 / 6, "specificity": 5 / 6}
    weak = {"accuracy": 0.27, "sensitivity": 0.27, "specificity": 0.85}
    (note,) = degenerate_notes(ledger(tmp_path, {"apga": one_of_six, "gradcam": weak}))
    assert "apga (5 of 5)" in note
    assert "gradcam" not in note


def test_many_arms_are_counted(tmp_path):
    names = tuple(f"arm{i}" for i in range(9))
    made = make_ledger(
        tmp_path, factors={"method": names}, metrics=NAMES, tables=(),
        value=lambda levels, seed, metric: {**SOUND, "empty_masks": 1.0}[metric],
    )  # fmt: skip
    (note,) = degenerate_notes(read_ledger(str(made)))
    assert "arm5 (5 of 5) and 3 more arms;" in note
    assert note.count("of 5") == MOST_NAMES


def test_a_study_without_such_metrics_has_no_note(tmp_path):
    made = make_ledger(tmp_path, factors=FACTORS, metrics=("accuracy",), tables=())
    assert degenerate_notes(read_ledger(str(made))) == ()


def test_the_notes_stand_under_the_printed_and_the_written_tables(tmp_path):
    study = ledger(tmp_path, {"apga": {"empty_masks": 1.0}})
    for table in tables.paper_tables(study):
        assert any("apga (5 of 5)" in note for note in table.notes), table.name
    written = {table.name: table for table in tables.study_tables(study)}
    assert any("apga (5 of 5)" in note for note in written["arms"].notes)
    tables.rebuild(str(tmp_path))
    assert "empty masks" in (tmp_path / "tables" / "arms.md").read_text()
