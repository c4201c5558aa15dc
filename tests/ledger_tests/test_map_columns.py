"""Columns of maps become dicts by flat columns: the same as value by value, which pyarrow has."""

import pyarrow as pa
import pytest

from sweeps.ledger.read import _mappings
from sweeps.ledger.schema import CELL_SCHEMA

ROWS = {
    "versions": [[("torch", "2.15"), ("numpy", "2")], None, [], [("torch", "2.15")]],
    "curves": [[("reward", [0.5, float("inf")]), ("kept", [])], [], None, [("reward", [1.0])]],
    "metrics": [[("accuracy", 0.5)], None, [("auc", -1.0), ("accuracy", 1.0)], []],
}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("cut", [0, 1, 3, 4])
def test_they_read_as_pyarrow_reads_them(name, cut):
    kind = CELL_SCHEMA.field(name).type
    whole = pa.array(ROWS[name], kind)
    column = pa.chunked_array([whole.slice(0, cut), whole.slice(cut), whole.slice(1, 2)], kind)
    expected = column.to_pylist(maps_as_pydicts="strict")
    assert _mappings(column) == expected
    assert any(expected)


def test_no_rows_at_all():
    kind = CELL_SCHEMA.field("versions").type
    assert _mappings(pa.chunked_array([], kind)) == []
    assert _mappings(pa.chunked_array([pa.array([], kind)])) == []


def test_texts_and_lists_that_are_not_there_stay_so():
    kind = pa.map_(pa.string(), pa.list_(pa.float64()))
    column = pa.chunked_array([pa.array([[("a", None), ("b", [1.0])]], kind)])
    assert _mappings(column) == [{"a": None, "b": [1.0]}]
    texts = pa.chunked_array([pa.array([[("a", None)]], pa.map_(pa.string(), pa.string()))])
    assert _mappings(texts) == [{"a": None}]
