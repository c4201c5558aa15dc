"""What a search leaves behind, as a table and slices."""

import json

import pytest

from analysis.search_plots import search_figures
from analysis.searches import axes_of, read_trials, search_bytes, settings_table
from sweeps.ledger.files import Store

TRIALS = """number,group,state,seeds,objective,rate,kind,decay
0,arm=a,complete,2,0.5,0.1,x,
1,arm=b,complete,2,0.6,0.1,x,
2,arm=a,complete,2,0.7,0.001,y,0.25
3,arm=a,stopped,1,0.2,0.9,x,
4,arm=b,failed,0,,0.5,x,
"""
IMPORTANCE = "group,axis,importance\narm=a,rate,0.75\narm=a,kind,0.25\n"
WINNERS = {
    "arm=a": {
        "default": {"rate": 0.1, "kind": "x"},
        "point": {"rate": 0.001, "kind": "y", "decay": 0.25},
    },
    "arm=b": {"default": {"rate": 0.1, "kind": "x"}, "point": {"rate": 0.1, "kind": "x"}},
}


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path)
    store.write("search/trials.csv", TRIALS.encode())
    store.write("search/importance.csv", IMPORTANCE.encode())
    store.write("search/winners.json", json.dumps(WINNERS).encode())
    return store


def test_default_and_tuned_stand_side_by_side_with_their_importance(store):
    table = settings_table(store)
    rows = {row.label: tuple(entry.text for entry in row.entries) for row in table.rows}
    assert rows == {
        "arm=a: rate": ("0.1", "0.001", "75%"),
        "arm=a: kind": ("x", "y", "25%"),
        "arm=a: decay": ("—", "0.25", "—"),
        "arm=b: rate": ("0.1", "0.1", "—"),
        "arm=b: kind": ("x", "x", "—"),
    }
    assert table.notes[0].startswith("5 proposals: 3 complete, 1 stopped, 1 failed")


def test_a_slice_per_axis_marks_the_default_and_leaves_failures_out(store):
    (name, first), (_, second) = search_figures(store)
    assert name == "search_slices_1"
    drawn = [ax for ax in first.axes if ax.axison]
    assert [ax.get_xlabel() for ax in drawn] == ["rate", "kind", "decay"]
    assert drawn[0].get_xscale() == "log"
    complete, stopped, default = drawn[0].lines
    assert complete.get_xydata().tolist() == [[0.1, 0.5], [0.001, 0.7]]
    assert stopped.get_xydata().tolist() == [[0.9, 0.2]]
    assert default.get_xydata().tolist() == [[0.1, 0.5]]
    assert [ax.get_xlabel() for ax in second.axes] == ["rate", "kind"]
    assert second.axes[0].lines[0].get_xydata().tolist() == [[0.1, 0.6]]


def test_a_study_that_is_no_search_has_none_of_it(tmp_path):
    store = Store(tmp_path)
    assert read_trials(store) is None
    assert settings_table(store) is None
    assert list(search_figures(store)) == []
    assert search_bytes(store) == b""


def test_the_axes_are_the_columns_that_are_left(store):
    assert axes_of(read_trials(store)) == ["rate", "kind", "decay"]
