"""How the engine's tests run a study: in this process (fast), or in one of its own (real)."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from typer.testing import CliRunner, Result

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


def invoke(
    script: ModuleType, *arguments: object, steps: ModuleType | None = None, columns: int = 200
) -> Result:
    """The command line of a script, in this process, as click's runner answers.

    Args:
        script: a module with STUDY or SEARCH, and reporting.
        steps: another script, whose last step comes instead of its own.
        columns: of the terminal.
    """
    declared = script.SEARCH if hasattr(script, "SEARCH") else script.STUDY
    app = build_app(declared, step_of(steps or script), script.__doc__)
    result = CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": str(columns)})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def here(script: ModuleType, *arguments: object) -> Answer:
    """The same, with what a process of its own would answer."""
    began = time.monotonic()
    result = invoke(script, *arguments)
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


@contextmanager
def started() -> Iterator[Callable[..., subprocess.Popen]]:
    """A function that starts a study in a process of its own and does not wait for it.

    It takes what `command` takes, and Popen's options. What still runs at the end is killed.
    """
    begun: list[subprocess.Popen] = []

    def start(*arguments: object, script: Path = TOY, **options: Any) -> subprocess.Popen:
        usual = {"cwd": ROOT, "env": study_environment(), "stdout": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen(command(*arguments, script=script), **(usual | options)))
        return begun[-1]

    try:
        yield start
    finally:
        for process in begun:
            process.kill()
            process.wait()
