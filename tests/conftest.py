"""What several rooms' tests share: the repository's root, and how a study script is run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUPPORT = ROOT / "tests" / "support"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def study_environment(**extra: str) -> dict[str, str]:
    """The environment of a study that may use the toy core; no cluster of the caller's leaks in."""
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    paths = [str(SUPPORT), environment.get("PYTHONPATH", "")]
    return environment | {
        "PYTHONPATH": os.pathsep.join(p for p in paths if p),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        **extra,
    }


@pytest.fixture
def toy(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`toy("--inline", "--seeds", "2")` runs the toy study in a process of its own."""

    def run(
        *arguments: str,
        results: Path | str = tmp_path / "results",
        timeout: float = 150,
        **env: str,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable,
                str(SUPPORT / "toy_study.py"),
                "--results",
                str(results),
                *map(str, arguments),
            ],
            env=study_environment(**env),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run
