"""LaTeX: special characters written out, the same number of fields a line, and it compiles."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from toy_ledgers import make_ledger

from analysis import tables
from analysis.render import to_latex
from analysis.table import Entry, Row, Table


def table(text: str) -> Table:
    entry = Entry(text=text, under=("n = 4/5", "x"), best=True)
    rows = (
        Row(label="[18]* " + text, entries=(entry, Entry(text="1")), under=("  printed",)),
        Row(label="b", entries=(Entry(text="—"), Entry(text="−.5")), group="g"),
    )
    title = f"Title {text}"
    return Table(name="a_b", title=title, stub="s", columns=("c_1", "d%"), rows=rows, notes=(text,))


def test_every_line_has_every_field_and_no_bare_special_character() -> None:
    text = to_latex(table(r"50 % & #1_x ${a}~^ \ λ_zeros ≤ 3 · ± −1 … “q” |z| → ∞ <>"))
    lines = [x for x in text.splitlines() if x.endswith((r"\\", r"\tabularnewline"))]
    assert len(lines) == 5  # heads, three lines of the first row, one of the second
    for line in lines:
        assert len(re.findall(r"(?<!\\)&", line)) == 2
    assert text.isascii()
    assert r"\textbf{50 \%" in text
    assert text.count(r"\midrule") == 2


def test_a_verdict_stands_beside_its_p_in_one_float() -> None:
    columns = (*(f"column {i} is long" for i in range(4)), "p", "verdict")
    entries = tuple(Entry(text=f"entry {i}") for i in range(6))
    wide = Table(
        name="v", title="t", stub="claim", columns=columns, prose=("verdict",),
        rows=(Row(label="a claim that is long", entries=entries),),
    )  # fmt: skip
    floats = to_latex(wide).split(r"\end{table}")[:-1]
    assert len(floats) > 1
    assert ["verdict" in text for text in floats] == [" p &" in text for text in floats]
    assert sum(text.count("entry ") for text in floats) == 6


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_every_table_of_a_study_compiles(tmp_path: Path) -> None:
    root = make_ledger(tmp_path / "study", seeds=(0, 1), missing=(1,), predictions=True)
    files = [path for path in tables.rebuild(str(root)) if path.endswith(".tex")]
    strange = r"50 % & #1_x ${a}~^ \ λ_zeros ≤ 3 · ± −1 … “q” |z| → ∞ <>"
    (tmp_path / "strange.tex").write_text(to_latex(table(strange)))
    inputs = "".join(f"\\input{{{path}}}\\clearpage\n" for path in [*files, "strange.tex"])
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
        f"{inputs}\\end{{document}}\n"
    )
    run = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stdout[-1500:].decode(errors="replace")
