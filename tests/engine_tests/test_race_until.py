"""`--until decided`: seeds are added in looks until every comparison has its answer."""

from pathlib import Path

import pytest
import toy_study
from studies import elsewhere
from typer.testing import CliRunner

from analysis.decisions import decisions
from sweeps.engine import run
from sweeps.engine.cli import build_app
from sweeps.engine.display import Display
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_ledger, read_manifest

RACE = ("--until", "decided", "--max-seeds", "16")


def here(*arguments: object):
    app = build_app(toy_study.STUDY, toy_study.reporting, toy_study.__doc__)
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "250"})


def answers(results: Path) -> dict[str, tuple[str, int]]:
    found = decisions(read_ledger(str(results / "toy")))
    assert found.declared.looks == (12, 16)
    assert found.declared.after_cells == 0
    return {found.arms.labels[one.row]: (one.answer, one.decided.seeds) for one in found.every}


def seeds_spent(results: Path) -> dict[str, int]:
    cells = read_manifest(Store(results / "toy")).cells
    return {arm: sum(cell.arm == arm for cell in cells) for arm in {cell.arm for cell in cells}}


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[int, int]]:
    """(done, total) as the display has them, after each cell; what runs is in `study.json`."""
    seen = []

    class Watched(Display):
        def started(self, key, label) -> None:
            super().started(key, label)
            planned = [read_manifest(Store(study)).cells for study in tmp_path.glob("*/toy")]
            assert key.stage or any(cell.key == key for cells in planned for cell in cells)

        def expect(self, left: int) -> None:
            super().expect(left)
            seen.append((self.done, self.total))

    monkeypatch.setattr(run, "Display", Watched)
    return seen


@pytest.mark.slow
def test_a_race_stops_what_is_decided_and_is_the_same_when_killed(tmp_path: Path, counts) -> None:
    whole = here("--inline", "--results", tmp_path / "whole", *RACE)
    assert whole.exit_code == 0, whole.output
    found = answers(tmp_path / "whole")
    assert len(found) == 5
    assert all(done <= total for done, total in counts)
    assert counts[-1] == (sum(seeds_spent(tmp_path / "whole").values()),) * 2
    assert all(seeds in (12, 16) for _, seeds in found.values())
    # An arm's cells end with the look that decided it, the open ones' with the last.
    spent = seeds_spent(tmp_path / "whole")
    assert sum(spent.values()) == max(spent.values()) + sum(seeds for _, seeds in found.values())
    # Stopped after the first seeds, then resumed: no cell is lost, and the answers are the same.
    killed = tmp_path / "killed"
    assert here("--inline", "--results", killed, "--seeds", "3").exit_code == 0
    again = here("--inline", "--results", killed, *RACE)
    assert again.exit_code == 0, again.output
    assert seeds_spent(killed) == spent
    cells, others = (read_ledger(str(root / "toy")).cells for root in (killed, tmp_path / "whole"))
    assert set(cells["key"]) == set(others["key"])
    nothing = here("--inline", "--results", tmp_path / "whole", *RACE)
    assert "nothing was left to compute" in nothing.output


@pytest.mark.ray
def test_a_race_on_ray_ends_with_the_answers_of_one_in_this_process(tmp_path: Path) -> None:
    here("--inline", "--results", tmp_path / "here", *RACE)
    answer = elsewhere("--results", tmp_path / "ray", *RACE)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answers(tmp_path / "ray") == answers(tmp_path / "here")


@pytest.mark.slow
def test_the_plan_says_what_a_race_may_cost(tmp_path: Path) -> None:
    said = here("--plan", "--results", tmp_path, *RACE)
    assert said.exit_code == 0, said.output
    assert "decides by accuracy: margin 0.01, error 5% over 5 comparisons, at 12, 16 seeds" in (
        said.output
    )
    assert "a race until every comparison is decided: at least 72 cells, at most 96" in said.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-seeds", "9"), "--max-seeds belongs to a race; write --until decided beside it"),
        (("--until", "bored"), '--until must be decided, got "bored"'),
        ((*RACE, "--seeds", "5"), '--until decided chooses the seeds, got --seeds "5"'),
        (("--until", "decided", "--max-seeds", "5"), "--max-seeds must be from 6 to 10000, got 5"),
    ],
)
def test_options_that_do_not_fit_a_race_are_refused(tmp_path: Path, options, said: str) -> None:
    answer = here("--inline", "--results", tmp_path, *options)
    assert answer.exit_code == 2
    assert said in answer.output
