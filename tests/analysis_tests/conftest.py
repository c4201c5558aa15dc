"""Fixtures of the analysis tests."""

import shutil
from pathlib import Path

import pytest
from toy_ledgers import make_ledger


@pytest.fixture(scope="session")
def _made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("once") / "controller_ablation"
    return make_ledger(root, predictions=True, artifacts=True)


@pytest.fixture
def controller_study(_made_once: Path, tmp_path: Path) -> Path:
    """The controller ablation, complete, with predictions and artifacts: the test's own copy."""
    return Path(shutil.copytree(_made_once, tmp_path / "controller_ablation"))
