"""Ray's books of a run: a folder of its own, and none of a run that is over."""

import json
from pathlib import Path

from cluster.owner import OWNER, this_process
from sweeps.engine.scratch import FOLDER, scratch
from sweeps.ledger.files import Store


def test_a_new_run_has_a_folder_of_its_own_and_clears_those_of_dead_ones(tmp_path):
    ledger = Store(tmp_path / "study")
    first = Path(scratch(ledger))
    second = Path(scratch(ledger))
    assert first.parent == second.parent == tmp_path / "study" / FOLDER
    assert first.exists()  # its process, this one, lives
    (first / OWNER).write_text(json.dumps(this_process() | {"start": 1}))
    (second / OWNER).write_text(json.dumps(this_process() | {"boot": "x", "host": "x"}))
    older = tmp_path / "study" / FOLDER / "fleet-node0-5dc43627"  # as version 0.1 left them
    (older / "deep").mkdir(parents=True)
    torn = tmp_path / "study" / FOLDER / "torn"
    torn.mkdir()
    (torn / OWNER).write_text("{")
    third = Path(scratch(ledger))
    assert list((tmp_path / "study" / FOLDER).iterdir()) == [third]
