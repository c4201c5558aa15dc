"""Results that version 0.1 wrote (commit 71bb0b9) are gone on with, nothing computed again."""

import re
import shutil
from pathlib import Path

import pytest
import toy_search
import toy_study
from studies import elsewhere, here

WRITTEN_BY_0_1 = Path(__file__).parents[1] / "assets" / "results_0_1"


@pytest.fixture
def results(tmp_path) -> Path:
    return Path(shutil.copytree(WRITTEN_BY_0_1, tmp_path / "results"))


def contents(folder: Path) -> dict[str, bytes]:
    kinds = ("cells", "predictions", "stages", "proposals")
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and any(kind in file.parts for kind in kinds)
    }


def counts(text: str) -> dict[str, int]:
    (cells, of), *_ = re.findall(r"(\d+) of (\d+) cells are committed", text)
    ((computed, _reused),) = re.findall(r"stages: (\d+) computed, (\d+) reused", text) or [
        ("0", "")
    ]
    return {"cells": int(cells), "of": int(of), "stages computed": int(computed)}


def test_a_finished_study_has_nothing_left(results):
    before = contents(results)
    flags = ("--inline", "--quiet", "--results", results, "--set", "pooling=16")
    answer = here(toy_study, *flags, "--seeds", 2)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert counts(answer.stdout) == {"cells": 6, "of": 6, "stages computed": 0}
    assert contents(results) == before


def test_one_seed_more_adds_its_cells_and_reads_the_old_stages(results):
    before = contents(results)
    flags = ("--inline", "--quiet", "--results", results, "--set", "pooling=16")
    answer = here(toy_study, *flags, "--seeds", 3)
    # The new seed's order; the pixels, which all seeds share, are those that 0.1 stored.
    assert counts(answer.stdout) == {"cells": 9, "of": 9, "stages computed": 1}
    after = contents(results)
    assert {name: after[name] for name in before} == before


@pytest.mark.long
def test_a_finished_search_proposes_and_computes_nothing(results):
    before = contents(results)
    flags = ("--inline", "--results", results, "--trials", 2, "--seeds", 1, "--tuning-seeds", 2)
    answer = elsewhere(*flags, script=Path(toy_search.__file__))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert contents(results) == before
