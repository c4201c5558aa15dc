"""How the engine's tests run a study: in this process (fast), or in one of its own (real)."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from typer.testing import CliRunner

from sweeps.engine.cli import Reporting, build_app

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
TOY = SUPPORT / "toy_study.py"


def studies_of(core: str) -> tuple[str, ...]:
    """The scripts of `sweeps/` that declare a study of `core`, sorted; "" for every core."""
    scripts = {path.stem: path.read_text() for path in (ROOT / "sweeps").glob("*.py")}
    return tuple(
        sorted(
            name
            for name, text in scripts.items()
            if "\nSTUDY = Study(" in text and f'core="{core}' in text
        )
    )


@dataclass(frozen=True)
class Answer:
    """What a study's command line said."""

    returncode: int
    stdout: str
    stderr: str
    wall_s: float


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


def step_of(script: ModuleType) -> Reporting:
    """The script's last step: the toys have one of their own."""
    return getattr(script.reporting, "run", script.reporting)


def here(script: ModuleType, *arguments: object) -> Answer:
    """The command line of a study script (a module with STUDY and reporting), in this process."""
    began = time.monotonic()
    app = build_app(script.STUDY, step_of(script), script.__doc__)
    result = CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr, time.monotonic() - began)


def command(*arguments: object, script: Path = TOY) -> list[str]:
    """The command line of `script` in a process of its own."""
    return [sys.executable, str(script), *map(str, arguments)]


def elsewhere(*arguments: object, script: Path = TOY, timeout: float = 240, **env: str) -> Answer:
    """The same in a process of its own, from the repository's root."""
    began = time.monotonic()
    done = subprocess.run(
        command(*arguments, script=script),
        cwd=ROOT,
        env=study_environment(**env),
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    return Answer(done.returncode, done.stdout, done.stderr, time.monotonic() - began)
