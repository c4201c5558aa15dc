"""Peak memory is a cell's own, though its worker has done others before."""

import numpy as np
import pytest
import toy_study
from studies import here

from sweeps.engine import peaks
from sweeps.ledger.read import read_ledger

MIB = 2**20


@pytest.mark.long
@pytest.mark.skipif(peaks.host_bytes() is None, reason="this system does not say")
def test_a_peak_starts_again_from_now():
    peaks.begin("cpu")
    low = peaks.host_bytes()
    large = np.ones(300 * MIB, dtype=np.uint8)
    high = peaks.host_bytes()
    assert high > low + 250 * MIB
    del large
    peaks.begin("cpu")
    assert peaks.host_bytes() < high - 200 * MIB
    assert peaks.columns("cpu")["peak_device_bytes"] is None


def test_rows_say_what_a_cell_held_and_readers_of_rows_without_it_go_on(tmp_path):
    answer = here(
        toy_study, "--inline", "--seeds", "1", "--set", "ridge=1", "--set", "pooling=16",
        "--results", tmp_path,
    )  # fmt: skip
    assert answer.returncode == 0
    cells = read_ledger(str(tmp_path / "toy")).cells
    assert 10 * MIB < cells["peak_host_bytes"].iloc[0] < 64 * 2**30
    assert cells["peak_device_bytes"].isna().all()
    assert str(cells["peak_host_bytes"].dtype) == "Int64"
