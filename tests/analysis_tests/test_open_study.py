"""A notebook's view of a ledger: the same numbers, in frames."""

import numpy as np
import pytest
from toy_ledgers import make_ledger

import sweeps
from sweeps import open_study
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_ledger, read_predictions
from sweeps.ledger.schema import LedgerError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "toy"
    make_ledger(folder, seeds=(0, 1), failed=(3,), missing=(5,), predictions=True, artifacts=True)
    return str(folder)


def test_cells_are_the_ledgers_and_a_copy(root):
    study = open_study(root)
    assert study.cells.equals(read_ledger(root).cells)
    taken = study.cells
    taken["arm"] = "other"
    assert "other" not in set(study.cells["arm"])
    assert repr(study).startswith(
        "<study controller_ablation: 12 cells (10 ok, 1 failed, 1 missing)"
    )
    assert study.reload().cells.equals(study.cells)


def test_curves_are_long(root):
    study, ledger = open_study(root), read_ledger(root)
    found = study.curves()
    assert len(found.groupby("key")) == 10
    for row in ledger.cells[ledger.cells["status"] == "ok"].itertuples():
        for name, values in row.curves.items():
            own = found[(found["key"] == row.key) & (found["curve"] == name)]
            assert own["value"].tolist() == list(values)
            assert own["step"].tolist() == list(range(len(values)))
    name = found["curve"].iloc[0]
    assert set(study.curves(name)["curve"]) == {name}
    with pytest.raises(KeyError, match="no curve"):
        study.curves("nothing")


def test_predictions_and_artifacts_are_those_of_their_cell(root):
    study = open_study(root)
    arm = study.cells["arm"].iloc[0]
    found = study.predictions("test", arm)
    assert set(found["arm"]) == {arm}
    for key, own in found.groupby("key"):
        said = read_predictions(Store(root), key).query("split == 'test'")
        np.testing.assert_array_equal(
            np.stack(own["probabilities"]), np.stack(said["probabilities"])
        )
        assert own["id"].tolist() == said["id"].tolist()
    assert len(study.predictions()) >= len(study.predictions("test"))
    assert study.artifacts(study.cells["key"].iloc[0])
    with pytest.raises(KeyError, match="no arm"):
        study.predictions(arm="x")
    with pytest.raises(KeyError, match="no cell"):
        study.artifacts("x")


def test_decisions_are_those_of_the_tables(root):
    from analysis.decisions import decisions

    found, every = open_study(root).decisions(), decisions(read_ledger(root)).every
    assert found["answer"].tolist() == [d.answer for d in every]
    assert found["difference"].tolist() == [d.pair.mean for d in every]


def test_no_study_is_refused(tmp_path):
    with pytest.raises(LedgerError, match=r"no study\.json"):
        open_study(str(tmp_path))
    with pytest.raises(AttributeError, match="has no attribute 'open_studio'"):
        sweeps.open_studio  # noqa: B018
