"""Fixtures of the analysis tests."""

from pathlib import Path

import pytest
from toy_ledgers import make_ledger


@pytest.fixture
def controller_study(tmp_path: Path) -> Path:
    """The controller ablation, complete, with predictions and artifacts."""
    return make_ledger(tmp_path / "controller_ablation", predictions=True, artifacts=True)
