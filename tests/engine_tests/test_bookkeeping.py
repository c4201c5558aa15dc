"""Damaged bookkeeping neither stops nor poisons a study: file × damage × command."""

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import toy_study
import typer
from studies import here
from typer.testing import CliRunner

from analysis import check, report, tables
from sweeps import status
from sweeps.engine import worker
from sweeps.ledger.books import LOCK_BOOK, MANIFEST_BOOK, SECTION_BOOK, STAGE_BOOK
from sweeps.ledger.files import Store
from sweeps.ledger.lock import Lock
from sweeps.ledger.progress import say_running

FLAGS = ("--inline", "--quiet", "--set", "pooling=16", "--set", "ridge=1.0")
STUDY = SimpleNamespace(
    STUDY=toy_study.STUDY,
    reporting=SimpleNamespace(
        run=lambda results, study, console, *, quiet: tables.rebuild(str(Path(results) / study))
    ),
    __doc__="toy",
)


def edited(change: Callable[[dict], object]) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(change(json.loads(path.read_bytes()))))


NEEDED = {"cells", "token", "started", "identity", "sha256"}
"""A field of each file."""
DAMAGE: dict[str, Callable[[Path], object]] = {
    "a list": lambda p: p.write_text("[1, 2]"),
    "null": lambda p: p.write_text("null"),
    "a field missing": edited(lambda v: {k: x for k, x in v.items() if k not in NEEDED}),
    "null values": edited(lambda v: dict.fromkeys(v)),
    "wrong types": edited(lambda v: {k: [{"a": 1}] for k in v}),
    "empty": lambda p: p.write_bytes(b""),
    "truncated": lambda p: p.write_bytes(p.read_bytes()[:20]),
    "no text": lambda p: p.write_bytes(b"\xff\xfe\x00"),
    "a folder": lambda p: (p.unlink(), p.mkdir(), (p / "x").touch()),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("finished")
    answer = here(STUDY, *FLAGS, "--seeds", 1, "--results", results)
    assert answer.returncode == 0, answer.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report.figures, "rebuild", lambda root: [])
        report.rebuild(str(results))
    return results


@pytest.fixture
def results(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(report.figures, "rebuild", lambda root: [])  # slow, and beside the point
    monkeypatch.setattr(worker, "_stage_stores", {})
    results = Path(shutil.copytree(finished, tmp_path / "results"))
    lock = Lock(Store(results / "toy"))
    lock._say()
    say_running(lock.store, lock.token, 1, {"a-stage": 0.0}, None)
    return results


@contextmanager
def held(results: Path) -> Iterator[None]:
    """As if a controller ran: what the lock and `running.json` say is looked at."""
    with open(results / "toy" / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def app(command: Callable) -> typer.Typer:
    made = typer.Typer()
    made.command()(command)
    return made


COMMANDS = {
    "status": (status.app, ""),
    "check": (app(check.main), ""),
    "report": (app(report.main), ""),
    "tables": (app(tables.main), "toy"),
}


def read(name: str, results: Path) -> tuple[int, str]:
    """Exit code and stderr of a command that only reads."""
    command, below = COMMANDS[name]
    with held(results):
        result = CliRunner().invoke(command, [str(results / below)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stderr


def caches(results: Path) -> list[Path]:
    toy = results / "toy"
    stages = sorted((results / "stages").glob("*.json"))
    return [toy / "lock.json", toy / "running.json", toy / "report_section.json", *stages]


@pytest.mark.long
@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_healed_by_a_run_and_named_by_who_only_reads(results, kind):
    damage = DAMAGE[kind]
    for path in caches(results):
        damage(path)
    for name in COMMANDS:
        assert read(name, results) == (0, ""), name

    damage(results / "toy" / "study.json")
    for name in COMMANDS:
        code, said = read(name, results)
        assert code == 2, name
        assert f"study.json in {results / 'toy'} is damaged (" in said
        assert "run the study's script again, which writes it anew" in said
        assert len(said.splitlines()) == 1, said

    answer = here(STUDY, *FLAGS, "--seeds", 2, "--results", results)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "2 of 2 cells are committed" in answer.stdout
    for name in ("status", "report"):
        assert read(name, results) == (0, ""), name
    toy = results / "toy"
    assert len(MANIFEST_BOOK.read(Store(toy), "study.json").cells) == 2
    assert SECTION_BOOK.read(Store(toy), "report_section.json").planned == 2
    # The stage that both seeds share was set aside, and computed again.
    stages = Store(results / "stages")
    (pixels,) = (results / "stages").glob("toy-pixels*.json")
    assert STAGE_BOOK.read(stages, pixels.name).seconds >= 0
    assert (results / "stages" / "quarantine" / pixels.name).exists()
    assert (results / "stages" / "quarantine" / f"{pixels.stem}.safetensors").exists()


def test_a_field_that_nobody_knows_is_left_alone(results):
    more = edited(lambda v: v | {"odd": 1})
    for path in (*caches(results), results / "toy" / "study.json"):
        more(path)
    for name in COMMANDS:
        assert read(name, results) == (0, ""), name
    answer = here(STUDY, *FLAGS, "--seeds", 2, "--results", results)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert not (results / "stages" / "quarantine").exists()


def test_a_lock_of_another_kind_names_nobody(results):
    for content in (b"", b"[]", b'{"token": 3}', b'{"token": "a", "pid": "?"}'):
        Store(results / "toy").write("lock.json", content)
        assert LOCK_BOOK.read_or_none(Store(results / "toy"), "lock.json") is None
        assert "not running" in CliRunner().invoke(status.app, [str(results)]).stdout
