"""Tables depend on the cells alone: not on file order, time zone, locale or hash seed."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
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


COMMA = """
import locale, sys
locale.setlocale(locale.LC_ALL, "")
assert f"{1.5:n}" == "1,5", locale.localeconv()
"""
"""Takes the environment's locale, and fails where that has no decimal comma."""


@pytest.fixture(scope="module")
def comma(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a locale that writes 1,5: an installed one, or one made here."""
    listed = subprocess.run(["locale", "-a"], capture_output=True, text=True, check=False).stdout
    found = [{"LC_ALL": name} for name in listed.split() if "utf" in name.lower()]
    folder = tmp_path_factory.mktemp("locale")
    name = str(folder / "de_DE.UTF-8")
    if shutil.which("localedef"):  # needs the sources that Debian's package `locales` brings
        make = ["localedef", "-i", "de_DE", "-f", "UTF-8", name]
        subprocess.run(make, capture_output=True, check=False)
        found.append({"LC_ALL": "de_DE.UTF-8", "LOCPATH": str(folder)})
    for variables in found:
        environment = {**os.environ, **variables}
        check = [sys.executable, "-c", COMMA]
        if not subprocess.run(check, env=environment, capture_output=True, check=False).returncode:
            return variables
    pytest.skip("no locale with a decimal comma is installed, and none can be made")


@pytest.mark.slow
def test_byte_identical_tables(tmp_path: Path, comma: dict[str, str]) -> None:
    study = make_ledger(tmp_path / "study", predictions=True, failed=(3,), missing=(11,))
    other = shuffled(study, tmp_path / "elsewhere" / "study")
    compact(Store(other), minimum=1, batch=7)
    assert not list((other / "predictions").glob("[!_]*"))  # these too
    tables.rebuild(str(study))
    expected = contents(study)
    written = {Path(name).name for name in json.loads(expected["index.json"])}
    assert written | {"index.json"} == expected.keys() >= {"answer.md", "arms.tex", "variance.csv"}
    surroundings = {
        **os.environ,
        **comma,
        "TZ": "Pacific/Chatham",
        "PYTHONHASHSEED": "4242",
    }
    rebuild = f"{COMMA}\nfrom analysis import tables\ntables.rebuild(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", rebuild, str(other)],
        cwd=REPOSITORY,
        env=surroundings,
        check=True,
        capture_output=True,
        timeout=120,
    )
    found = contents(other)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.long
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
