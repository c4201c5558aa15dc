"""`ray job submit` on a head that somebody started, as cluster/launch/README.md documents it."""

import json
import subprocess
import time

import pytest
from heads import Head, ray_head
from studies import ROOT

from sweeps.engine.run import runtime_env
from sweeps.ledger.read import read_ledger

COMMIT = "0123456789abcdef0123456789abcdef01234567-dirty"


def test_code_that_a_job_has_sent_is_not_sent_again(monkeypatch):
    assert runtime_env()["working_dir"] == str(ROOT)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"runtime_env": {}}))
    assert runtime_env()["working_dir"] == str(ROOT)
    sent = {"runtime_env": {"working_dir": "gcs://package.zip"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(sent))
    assert runtime_env() == {}


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
