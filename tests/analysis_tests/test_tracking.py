"""A tracker's points are the ledger's, whoever feeds it; a dead one is one line."""

import struct
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_ledgers import make_ledger
from typer.testing import CliRunner

from analysis import export
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_ledger
from sweeps.ledger.schema import LedgerError
from sweeps.tracking import writers
from sweeps.tracking.follow import Follower
from sweeps.tracking.runs import runs_of
from sweeps.tracking.writers import open_writer, split_spec


def summaries(folder: Path) -> list[tuple[int, Any]]:
    """(step, value) of all summaries in a folder of event files, read without our code."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for file in folder.glob("events.*"):
        content, at = file.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            at += 12 + length + 4
            found += [(event.step, value) for value in event.summary.value]
    return found


def points(folder: Path) -> dict[tuple[str, int], float]:
    """(tag, step) → value of every scalar in a folder of event files."""
    scalars = [(at, value) for at, value in summaries(folder) if value.HasField("simple_value")]
    found = {(value.tag, at): value.simple_value for at, value in scalars}
    assert len(found) == len(scalars)
    return found


def hyperparameters(folder: Path) -> dict[str, str | float]:
    """What TensorBoard's page of hyperparameters shows of a run."""
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    (content,) = (
        value.metadata.plugin_data.content
        for _, value in summaries(folder)
        if value.tag == "_hparams_/session_start_info"
    )
    shown = HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in shown.items()}


@pytest.fixture
def study(tmp_path):
    return str(make_ledger(tmp_path / "s", seeds=(0, 1)))


def expected(row) -> dict[tuple[str, int], float]:
    metrics = {
        (name.replace("metric.", "metric/", 1), 0): np.float32(value)
        for name, value in row.items()
        if name.startswith("metric.") and value == value
    }
    curves = {
        (f"curve/{name}", step): np.float32(value)
        for name, values in row["curves"].items()
        for step, value in enumerate(values)
    }
    return metrics | curves


def test_points_equal_the_ledger_and_come_once(study, tmp_path):
    for written in (12, 0):
        said = CliRunner().invoke(app(export), [study, "--to", f"tensorboard:{tmp_path / 'tb'}"])
        assert f"{written} of 12 cells written; tensorboard --logdir" in said.output, said.output
    folders = {path.name.rpartition("_")[2]: path for path in (tmp_path / "tb").glob("*/*")}
    cells = read_ledger(study).cells
    assert set(folders) == {key[:8] for key in cells["key"]}
    for _, row in cells.iterrows():
        folder = folders[row["key"][:8]]
        assert points(folder) == expected(row)
        levels = {name[7:]: row[name] for name in cells.columns if name.startswith("factor.")}
        levels = {
            name: float(level) if level[0].isdigit() else level for name, level in levels.items()
        }
        assert hyperparameters(folder) == {**levels, "seed": row["seed"]}


def app(module):
    import typer

    made = typer.Typer()
    made.command()(module.main)
    return made


def test_a_run_fed_from_the_driver_is_the_one_made_afterwards(study, tmp_path):
    store, said = Store(study), []
    keys = read_ledger(study).cells["key"].tolist()
    follower = Follower([f"tensorboard:{tmp_path / 'a'}"], "s", store, said.append)
    follower.committed(keys[:5])
    follower.committed(keys[3:])
    follower.committed(["not there"])
    follower.close()
    after = open_writer(f"tensorboard:{tmp_path / 'b'}", "s", store)
    for run in runs_of(store, keys):
        after.write(run)
    assert not said
    first, second = ({p.name: points(p) for p in (tmp_path / x / "s").iterdir()} for x in "ab")
    assert first == second
    assert len(first) == 12


def test_what_runs_is_seen_while_it_runs_and_only_then(study, tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "FLUSH_S", 0.05)
    folder = tmp_path / "tb/s/live/arm=a-b_12345678"
    (tmp_path / "tb/s/live/of a killed run").mkdir(parents=True)
    follower = Follower([f"tensorboard:{tmp_path}/tb"], "s", Store(study), pytest.fail)

    def seen(*wanted: float) -> None:
        expect = {("curve/reward", step): np.float32(v) for step, v in enumerate(wanted)}
        deadline = time.monotonic() + 20
        while points(folder) != expect and time.monotonic() < deadline:
            time.sleep(0.01)
        assert points(folder) == expect

    follower.points("key-12345678", "arm=a/b", {"reward": (0, (0.1, 0.2))})
    seen(0.1, 0.2)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]
    follower.points("key-12345678", "arm=a/b", {"reward": (2, (0.3,)), "loss": (0, ())})
    seen(0.1, 0.2, 0.3)
    follower.points("key-12345678", "arm=a/b", {"reward": (0, (0.4,))})  # a new attempt
    seen(0.4)
    follower.points("other", "arm=c", {"reward": (0, (0.4,))})
    follower.ended("key-12345678")
    follower.ended("nobody has heard of it")
    follower.committed(read_ledger(study).cells["key"][:1])
    follower.close()
    assert len(list((tmp_path / "tb/s").iterdir())) == 1  # the committed cell, and nothing that ran


class Dead:
    """A tracker that fails at its second run."""

    where = "nowhere"

    def __init__(self, study, place):
        self.written = 0

    def has(self, run):
        return False

    def write(self, run):
        self.written += 1
        if self.written > 1:
            raise ConnectionError("the server is gone")

    def live(self, name, points):
        raise AssertionError("nothing runs")

    forget = live

    def close(self):
        raise AssertionError("never asked again")


def test_a_dead_tracker_is_one_line_and_the_others_go_on(study, tmp_path, monkeypatch):
    monkeypatch.setitem(writers.TRACKERS, "dead", (Dead, "dead"))
    monkeypatch.setitem(writers.TRACKERS, "born dead", (lambda study, place: 1 / 0, "dead"))
    said, keys = [], read_ledger(study).cells["key"].tolist()
    follower = Follower(
        ["dead", "born dead", f"tensorboard:{tmp_path}/tb"], "s", Store(study), said.append
    )
    for key in keys:
        follower.committed([key])
    follower.close()
    assert len(said) == 2
    assert "born dead does not answer: ZeroDivisionError" in said[0]
    assert "Dead failed (ConnectionError: the server is gone); the study goes on without" in said[1]
    assert len(list((tmp_path / "tb" / "s").iterdir())) == 12


def test_what_there_is_not_is_refused_by_name(study, monkeypatch):
    with pytest.raises(LedgerError, match='got "tensorbord"; did you mean "tensorboard"'):
        split_spec("tensorbord:x", "--track")
    with pytest.raises(LedgerError, match="TensorBoard's folder must be local"):
        open_writer("tensorboard:s3://bucket/x", "s", Store(study))
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(LedgerError, match="needs the package mlflow"):
        open_writer("mlflow", "s", Store(study))


def test_names_are_fit_for_folders_and_unique(study):
    runs = runs_of(Store(study), read_ledger(study).cells["key"])
    assert len({run.name for run in runs}) == len(runs)
    assert all("/" not in run.name and len(run.name) < 200 for run in runs)
