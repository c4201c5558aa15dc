"""The manifest of the chosen images, written from a study's folder alone."""

import csv
import io

import numpy as np
import pytest
from toy_ledgers import make_ledger

from analysis import chosen
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_ledger
from sweeps.ledger.schema import LedgerError


def _text(*lines):
    return np.frombuffer("".join(f"{x}\n" for x in lines).encode(), dtype=np.uint8)


def _with_choices(root, *, files):
    ledger, store = read_ledger(str(root)), Store(str(root))
    for row in ledger.cells.itertuples():
        arrays = {
            "pool_labels": np.array([0, 1, 1]),
            "kept": np.array([True, False, True]),
            "keep_probability": np.array([0.75, 0.25, 0.9 + row.seed / 100], dtype=np.float32),
            "class_names": _text("benign", "malignant"),
        }
        if files:
            arrays["pool_files"] = _text("benign/ä, b.png", "malignant/1.png", "malignant/2.png")
        content = io.BytesIO()
        np.savez(content, **arrays)
        store.write(f"artifacts/{row.key}.npz", content.getvalue())
    return str(root)


@pytest.mark.parametrize("files", [True, False])
def test_a_manifest_holds_the_chosen_images_of_its_cell(tmp_path, files):
    root = _with_choices(make_ledger(tmp_path / "s", seeds=(0, 1)), files=files)
    names = chosen.write(root)
    assert len(names) == len(set(names)) == 6 * 2
    name = "chosen/policy_gradient=ppo,controller=gru_seed1.csv"
    assert name in names
    with (tmp_path / "s" / name).open(encoding="utf-8", newline="") as text:
        rows = list(csv.reader(text))
    assert rows == [
        list(chosen.COLUMNS),
        ["0", "benign/ä, b.png" if files else "", "benign", "0.75", "1"],
        ["2", "malignant/2.png" if files else "", "malignant", "0.91", "1"],
    ]
    chosen.write(root, everything=True)
    with (tmp_path / "s" / name).open(encoding="utf-8", newline="") as text:
        assert [row[4] for row in csv.reader(text)] == ["kept", "1", "0", "1"]


def test_a_study_that_chooses_nothing_is_refused(tmp_path):
    root = make_ledger(tmp_path / "s", seeds=(0,))
    with pytest.raises(LedgerError, match="needs finished cells that choose from a pool, got none"):
        chosen.write(str(root))
