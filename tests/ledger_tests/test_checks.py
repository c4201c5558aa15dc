"""Which rows are not what their keys say, by their place in a table of several chunks."""

import pyarrow as pa
import pytest

from sweeps.ledger.checks import misfits
from sweeps.ledger.schema import CELL_SCHEMA

METRICS = CELL_SCHEMA.field("metrics").type
FINE = [("accuracy", 0.5), ("auc", 0.25)]
NAN = float("nan")


def table(*chunks) -> pa.Table:
    metrics = pa.chunked_array([pa.array(chunk, METRICS) for chunk in chunks], METRICS)
    return pa.table({"metrics": metrics, "status": ["ok"] * len(metrics)})


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (
            [("accuracy", 0.5), ("auc", 0.2), ("accuracy", 0.9)],
            "its metric accuracy is there twice",
        ),
        ([("auc", NAN), ("auc", 0.5)], "its metric auc is there twice"),
        ([("accuracy", 0.5), ("auc", NAN)], "metrics must be finite, got auc=nan"),
        ([("accuracy", 0.5), ("auc", None)], "metrics must be finite, got auc=None"),
    ],
)
@pytest.mark.parametrize("at", range(5))
def test_the_odd_row_is_named_wherever_it_stands(at, odd, why):
    rows = [FINE, [], FINE[::-1], FINE, FINE[:1]]
    rows[at] = odd
    cut = table(rows[:2], [], rows[2:])
    assert misfits(cut, "cells", every=False) == {at: why}
    later = pa.concat_tables([table([FINE]), cut]).slice(1)
    assert misfits(later, "cells", every=False) == {at: why}


def test_the_status_is_that_of_the_folder():
    found = misfits(table([FINE], [FINE]), "failures", every=False)
    assert found == dict.fromkeys((0, 1), "its status is ok, failures/ holds failed")


@pytest.mark.parametrize("chunks", [(), ([],), ([[]],), ([FINE], [FINE])])
def test_rows_with_nothing_odd_and_no_rows_at_all(chunks):
    assert misfits(table(*chunks), "cells", every=False) == {}
