"""Tables depend on the cells alone: not on file order, time zone, locale or hash seed."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

from toy_ledgers import make_ledger

from analysis import tables
from sweeps.ledger.compact import compact
from sweeps.ledger.files import Store

REPOSITORY = Path(__file__).parents[2]


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "tables").iterdir())}


def shuffled(source: Path, target: Path) -> Path:
    """The same files, created in another order, with other times."""
    files = [path for path in source.rglob("*") if path.is_file()]
    random.Random(3).shuffle(files)
    for age, path in enumerate(files):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        os.utime(copy, (age * 1e6, age * 1e6))
    return target


def test_byte_identical_tables(tmp_path: Path) -> None:
    study = make_ledger(tmp_path / "study", predictions=True, failed=(3,), missing=(11,))
    other = shuffled(study, tmp_path / "elsewhere" / "study")
    compact(Store(other), minimum=1, batch=7)
    tables.rebuild(str(study))
    expected = contents(study)
    assert len(expected) == 4 * 12
    surroundings = {
        **os.environ,
        "TZ": "Pacific/Chatham",
        "LC_ALL": "de_DE.UTF-8",
        "LANG": "de_DE.UTF-8",
        "PYTHONHASHSEED": "4242",
    }
    subprocess.run(
        [sys.executable, "analysis/tables.py", str(other)],
        cwd=REPOSITORY,
        env=surroundings,
        check=True,
        capture_output=True,
        timeout=120,
    )
    found = contents(other)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_another_number_changes_the_bytes(tmp_path: Path) -> None:
    def value(_levels, seed, _metric):
        return 0.5 + 0.01 * seed

    def nudged(levels, seed, metric):
        return value(levels, seed, metric) + (0.001 if seed == 4 else 0)

    one = make_ledger(tmp_path / "one", value=value)
    two = make_ledger(tmp_path / "two", value=nudged)
    tables.rebuild(str(one))
    tables.rebuild(str(two))
    assert contents(one) != contents(two)
