"""The report: self-contained, and every number opens to its cells in a real browser."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from toy_ledgers import make_ledger

from analysis import report

# Its figures take seconds to draw; the fast part holds the report in test_reporting.py.
pytestmark = pytest.mark.slow

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

CLICK = """
<script>
const number = document.querySelector("#table-ye2020_t3_cervical_ablation_test button.open");
number.click();
const rows = [...document.querySelectorAll("#cells-body tbody tr[data-cell]")];
const below = rows[0].nextElementSibling;
below.querySelector("summary").click();
const seen = {
  open: document.getElementById("cells").open,
  number: number.textContent,
  cells: rows.map(row => row.dataset.cell),
  shown: below.querySelector("details").open,
  text: below.textContent,
};
document.getElementById("cells").close();
const table = number.closest("table");
const head = table.querySelector("thead th:nth-child(2)");
const column = () => [...table.tBodies[0].rows].map(row => row.children[1].dataset.order);
head.click();
seen.up = column();
head.querySelector("button").click();
seen.down = column();
document.title = JSON.stringify(seen);
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(the report's path, the study's folder); one cell failed, one is missing."""
    results = tmp_path_factory.mktemp("results")
    four = ("accuracy", "auc", "sensitivity", "specificity")
    study = {"failed": (7,), "missing": (8,), "seeds": (0, 1, 2), "metrics": four}
    make_ledger(results / "controller_ablation", **study)
    other = {"factors": {"method": ("a", "b")}, "tables": (), "metrics": ("accuracy",)}
    make_ledger(results / "other", study="other", seeds=(0, 1), data="</script><b>x", **other)
    (path,) = report.rebuild(str(results))
    return Path(path), results / "controller_ablation"


def embedded(text: str, study: str) -> dict:
    found = re.search(rf'class="cells" data-study="{study}">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_one_file_with_every_study_and_no_network(page: tuple[Path, Path]) -> None:
    text = page[0].read_text()
    assert text.count("<section id=") == 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
    assert "@import" not in text
    assert "6 planned" not in text
    assert "18 planned = 16 committed + 1 failed + 1 missing." in text
    assert "ValueError: loss is NaN" in text


def test_text_from_a_ledger_cannot_become_markup(page: tuple[Path, Path]) -> None:
    text = page[0].read_text()
    assert "<b>x" not in text
    assert html.escape("</script><b>x") in text
    assert embedded(text, "other")["cells"][0]["data"] == "</script><b>x"


def test_every_number_names_cells_that_are_in_the_file(page: tuple[Path, Path]) -> None:
    text = page[0].read_text()
    section = text[text.index('<section id="study-controller_ablation"') :]
    section = section[: section.index("</section>")]
    known = embedded(text, "controller_ablation")["cells"]
    named = re.findall(r'data-cells="([^"]+)"', section)
    assert len(named) > 50
    assert {int(place) for places in named for place in places.split()} == set(range(len(known)))
    done = [cell for cell in known if cell["status"] == "ok"]
    assert len(done) == 16
    for cell in done:
        for field in ("git_commit", "host", "device", "started", "wall_s", "data_fingerprint"):
            assert cell[field] not in (None, "")
        assert set(cell["metrics"]) >= {"accuracy", "auc"}


def test_an_unreadable_study_is_named_and_the_others_are_shown(tmp_path: Path) -> None:
    factors = {"method": ("a", "b")}
    make_ledger(tmp_path / "good", factors=factors, seeds=(0, 1), tables=(), metrics=("accuracy",))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "study.json").write_text("{")
    (path,) = report.rebuild(str(tmp_path))
    text = Path(path).read_text()
    assert "study.json in" in text
    assert "is damaged" in text
    assert text.count("<section id=") == 1


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on this machine")
def test_a_click_on_a_number_opens_its_cells_and_their_provenance(
    page: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "clicked.html"
    copy.write_text(page[0].read_text().replace("</body>", CLICK + "</body>"))
    run = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000",
            "--dump-dom",
            copy.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    title = re.search(r"<title>(.*?)</title>", run.stdout, re.DOTALL)
    assert title, run.stderr[-2000:]
    seen = json.loads(html.unescape(title[1]))
    assert seen["open"] is True
    assert seen["shown"] is True
    assert "±" in seen["number"]
    cells = [json.loads((page[1] / "study.json").read_text())["cells"][i]["key"] for i in range(3)]
    assert seen["cells"] == cells  # reinforce, gru: the first three of the plan
    for said in ("0123456789abcdef", "bench-1", "torch 2.15.0", '"k_shot": 16', "2026-11-21T03:00"):
        assert said in seen["text"]
    up, down = (list(map(float, seen[name])) for name in ("up", "down"))
    assert up == sorted(up)
    assert down == sorted(up, reverse=True)
