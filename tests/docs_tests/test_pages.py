"""What the documents promise of themselves: links that lead somewhere, results with an answer."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRACKED = subprocess.run(
    ["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False
).stdout.split()
PAGES = [ROOT / name for name in TRACKED] or sorted(ROOT.glob("*.md"))
RESULTS = sorted(path for path in (ROOT / "docs/results").glob("*.md") if path.name != "README.md")
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(page.read_text())]
    files = [link for link in links if link and "://" not in link]
    assert [link for link in files if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", RESULTS, ids=lambda path: path.stem)
def test_a_page_of_results_opens_with_its_answer_and_the_index_repeats_it(page: Path) -> None:
    title, _, answer, *rest = page.read_text().split("\n")
    assert title.startswith("# ")
    assert re.fullmatch(r"\*\*[^*]+\*\*", answer)
    assert any(".py" in line for line in rest), "a result without its command"
    index = (ROOT / "docs/results/README.md").read_text()
    assert f"| [{title[2:]}]({page.name}) | {answer.strip('*')} |" in index


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports them by it: with two of a name it collects neither room, and runs nothing."""
    names = [path.name for path in ROOT.glob("tests/*/test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
