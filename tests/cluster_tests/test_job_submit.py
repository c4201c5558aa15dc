"""`ray job submit` on a head that somebody started, as cluster/launch/README.md documents it."""

import json
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from heads import Head, ray_head
from studies import ROOT

from sweeps.engine import upload
from sweeps.engine.upload import runtime_env
from sweeps.ledger.read import read_ledger

COMMIT = "0123456789abcdef0123456789abcdef01234567-dirty"


def test_code_that_a_job_has_sent_is_not_sent_again(monkeypatch):
    for said in (None, {"runtime_env": {}}):
        if said is not None:
            monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(said))
        with runtime_env("selection_core") as sent:
            assert "working_dir" in sent
    sent = {"runtime_env": {"working_dir": "gcs://package.zip"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(sent))
    with runtime_env("selection_core") as again:
        assert again == {}


def large_file(path: Path) -> Path:
    """600 MiB that take no room on the disk: more than Ray sends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.truncate(600 << 20)
    return path


def test_code_alone_travels_whatever_lies_in_the_checkout(tmp_path, monkeypatch):
    """A dataset in the checkout: packing took minutes, then `exceeds the maximum size`."""
    for name in upload.PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    large_file(tmp_path / "data" / "MURA-v1.1.zip")
    large_file(tmp_path / "sweeps" / "results" / "backup.tar")
    large_file(tmp_path / "imaging_core" / "weights.py")  # its name says code, its size does not
    (tmp_path / "apga_core" / "weights.pt").write_bytes(b"small, and no code")
    (tmp_path / "env" / "lib").mkdir(parents=True)
    (tmp_path / "env" / "lib" / "torch.py").write_text("")
    (tmp_path / "sweeps" / "engine").mkdir()
    (tmp_path / "sweeps" / "engine" / "worker.py").write_text("x = 1")
    monkeypatch.setattr(upload, "ROOT", tmp_path)
    with runtime_env("toy_core") as sent:
        folder = Path(sent["working_dir"])
        there = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
        assert (folder / "sweeps" / "engine" / "worker.py").read_text() == "x = 1"
    assert {name for name in there if not name.startswith("toy_core/")} == {
        *(f"{name}/__init__.py" for name in upload.PACKAGES),
        "sweeps/engine/worker.py",
    }
    assert "toy_core/task.py" in there  # another's core is a package that workers need
    assert not folder.exists()


@pytest.mark.slow
def test_what_is_sent_can_be_imported_alone():
    """A worker has nothing of ours but the upload."""
    modules = "sweeps.engine.worker, cluster.fleet, cluster.trainer, selection_core.training"
    with runtime_env("selection_core") as sent:
        code = f"import sys; sys.path.insert(0, {sent['working_dir']!r}); import {modules}; "
        code += "print(cluster.__file__, sweeps.__file__)"
        answer = subprocess.run(
            [sys.executable, "-c", code], cwd=sent["working_dir"], capture_output=True, text=True
        )
        assert answer.returncode == 0, answer.stderr
        assert answer.stdout.count(sent["working_dir"]) == 2


def test_a_job_that_is_submitted_with_its_working_directory_sends_code_alone(tmp_path):
    from ray._private.runtime_env.packaging import _dir_travel

    shutil.copy(ROOT / ".rayignore", tmp_path)
    for name in ("sweeps/engine/cli.py", "analysis/report_page.html.j2", "tests/support/toy.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    large_file(tmp_path / "data" / "MURA-v1.1.zip")
    large_file(tmp_path / ".venv" / "torch.so")
    seen: list[str] = []
    _dir_travel(
        tmp_path,
        [],
        lambda path: seen.append(path.relative_to(tmp_path).as_posix()),
        include_gitignore=True,
        logger=logging.getLogger(__name__),
    )
    assert {name for name in seen if (tmp_path / name).is_file()} == {
        "sweeps/engine/cli.py",
        "analysis/report_page.html.j2",
        "tests/support/toy.py",
    }


def submit(head: Head, *command: object) -> str:
    """The output of a finished job; a head that has just started may refuse it for a while."""
    variables = json.dumps({"env_vars": {"PYTHONPATH": "tests/support", "MEDRL_COMMIT": COMMIT}})
    submission = ["ray", "job", "submit", "--address", head.dashboard, "--working-dir", "."]
    submission += ["--runtime-env-json", variables, "--", *map(str, command)]
    deadline = time.monotonic() + 90
    while True:
        answer = subprocess.run(
            submission, cwd=ROOT, env=head.environment, capture_output=True, text=True, timeout=240
        )
        if answer.returncode == 0:
            return answer.stdout
        early = "Failed to connect to Ray" in answer.stderr or "No available agent" in answer.stderr
        assert early, answer.stdout + answer.stderr
        assert time.monotonic() < deadline, answer.stderr
        time.sleep(2)


@pytest.mark.slow
def test_a_submitted_study_runs_to_its_end(tmp_path):
    study = ("python", "tests/support/toy_study.py", "--address", "auto", "--seeds", "1")
    with ray_head(cpus=2, dashboard=True) as head:
        out = submit(head, *study, "--set", "pooling=8", "--results", tmp_path)
    assert "3 of 3 cells are committed" in out
    assert "joined the Ray cluster at" in out
    cells = read_ledger(str(tmp_path / "toy")).cells
    assert cells["status"].tolist() == ["ok"] * 3
    assert cells["git_commit"].tolist() == [COMMIT.removesuffix("-dirty")] * 3
    assert cells["git_dirty"].tolist() == [True] * 3
