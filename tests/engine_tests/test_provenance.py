"""Rows name the code they come from, also where it travelled without its .git."""

import subprocess

import pytest
from studies import ROOT

from sweeps.engine import provenance

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DESCRIBE = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]


@pytest.fixture(autouse=True)
def _forget():
    provenance.source.cache_clear()
    yield
    provenance.source.cache_clear()


def test_a_checkout_speaks_for_itself(monkeypatch):
    monkeypatch.setenv(provenance.COMMIT_VARIABLE, COMMIT)
    said = subprocess.run(DESCRIBE, cwd=ROOT, capture_output=True, text=True, check=True)
    found = provenance.source()
    assert found["git_commit"] + provenance.DIRTY * found["git_dirty"] == said.stdout.strip()
    assert found["git_commit"] != COMMIT


@pytest.mark.parametrize(
    ("told", "commit", "dirty"),
    [(COMMIT, COMMIT, False), (f"{COMMIT}-dirty", COMMIT, True), (None, "", False)],
)
def test_code_without_its_git_is_told_its_commit(told, commit, dirty, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    monkeypatch.delenv(provenance.COMMIT_VARIABLE, raising=False)
    if told:
        monkeypatch.setenv(provenance.COMMIT_VARIABLE, told)
    assert provenance.source() == {"git_commit": commit, "git_dirty": dirty}
