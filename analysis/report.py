"""One HTML file for every study found: tables, figures, and the cells behind every number.

    python analysis/report.py results/          # writes results/report.html

The file needs no network and no other file.
"""

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import jinja2
import pandas as pd
import typer
from markupsafe import Markup

from analysis import figures
from analysis.answer import answer_sentences
from analysis.command import run_command
from analysis.discover import studies_in
from analysis.partitions import partitioned_in, read_study
from analysis.render import html_fragment
from analysis.table import Table
from analysis.tables import study_tables
from sweeps.ledger.books import SECTION_BOOK
from sweeps.ledger.files import Store
from sweeps.ledger.read import Ledger
from sweeps.ledger.schema import LedgerError
from sweeps.process import command_line

CELL_FIELDS = (
    "data", "data_fingerprint", "protocol", "git_commit", "git_dirty", "host", "node", "device",
    "wall_s", "cpu_s", "attempts",
)  # fmt: skip
"""Provenance that is shown as it stands in the ledger."""
LONG_FIELDS = ("config", "versions", "stage_keys", "started")
"""And what is written in another form."""
SECTION = "report_section.json"
"""In a study's folder: its part of the page, for the next report. It may go at any time."""


def _plain(value: Any) -> Any:
    """A value that JSON can hold; what is not there becomes None."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NaT:
        return None
    return value.item() if hasattr(value, "item") else value


def _pairs(mapping: Any) -> str:
    """`{"numpy": "2.0"}` as "numpy 2.0"; nothing where there is no mapping."""
    return ", ".join(f"{k} {v}" for k, v in sorted(mapping.items())) if mapping else ""


class _Shared:
    """Texts that many cells repeat, each kept once and named by its place."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def place(self, text: str) -> int:
        return self.places.setdefault(text, len(self.places))


def cells_json(ledger: Ledger, wanted: set[str]) -> str:
    """Every cell of `wanted`, in plan order, with its metrics and provenance, safe inside a script
    element.
    """
    configs, versions = _Shared(), _Shared()
    metrics = [c for c in ledger.cells.columns if c.startswith("metric.")]
    shown = ledger.cells[ledger.cells["key"].isin(wanted)]
    names = ("key", "arm", "seed", "status", *metrics, *CELL_FIELDS, *LONG_FIELDS)
    # Column by column: a frame's rows as mappings take as long as all else here together.
    columns = [shown[name].tolist() for name in names]
    cells = []
    for values in zip(*columns, strict=True):
        row = dict(zip(names, values, strict=True))
        cell = {name: _plain(row[name]) for name in ("key", "arm", "seed", "status")}
        measured = {c.removeprefix("metric."): _plain(row[c]) for c in metrics}
        cell["metrics"] = {name: value for name, value in measured.items() if value is not None}
        if row["status"] != "missing":
            cell |= {name: _plain(row[name]) for name in CELL_FIELDS}
            cell["config"] = configs.place(row["config"])
            cell["versions"] = versions.place(_pairs(row["versions"]))
            cell["stages"] = _pairs(row["stage_keys"]) or "none"
            cell["started"] = row["started"].isoformat()
        cells.append(cell)
    text = json.dumps(
        {"configs": list(configs.places), "versions": list(versions.places), "cells": cells},
        ensure_ascii=False,
        allow_nan=False,
    )
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def keys_behind(tables: Iterable[Table]) -> set[str]:
    """Keys of every cell that a number of these tables aggregates."""
    return {
        key for table in tables for row in table.rows for entry in row.entries for key in entry.keys
    }


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _counts(values: Iterable[Any]) -> str:
    """Each value with how often it occurs, the most frequent first."""
    counted = sorted(Counter(map(str, values)).items(), key=lambda item: (-item[1], item[0]))
    return "; ".join(f"{value} ({count} cells)" for value, count in counted) or "none yet"


def _budget(ledger: Ledger) -> list[tuple[str, str]]:
    there = ledger.cells[ledger.cells["status"] == "ok"]
    if there.empty:
        return [("cells", "none yet")]
    stages = {key for keys in there["stage_keys"] for key in keys.values()}
    used = sum(len(keys) for keys in there["stage_keys"])
    return [
        ("compute", f"{_hours(there['wall_s'].sum())} wall in {len(there)} cells"),
        ("CPU", _hours(there["cpu_s"].sum())),
        (
            "one cell",
            f"median {there['wall_s'].median():.1f} s, longest {there['wall_s'].max():.1f} s",
        ),
        ("stages", f"{len(stages)} distinct, used {used} times"),
        ("attempts", f"{int(there['attempts'].sum())} for {len(there)} cells"),
    ]


def _environment(ledger: Ledger) -> list[tuple[str, str]]:
    there = ledger.cells[ledger.cells["status"] != "missing"]
    commits = [
        f"{commit}{' with uncommitted changes' if dirty else ''}"
        for commit, dirty in zip(there["git_commit"], there["git_dirty"], strict=True)
    ]
    started = there["started"]
    return [
        ("commit", _counts(commits)),
        ("versions", _counts(_pairs(v) for v in there["versions"])),
        ("host", _counts(there["host"])),
        ("device", _counts(there["device"])),
        (
            "time",
            f"{started.min().isoformat()} to {started.max().isoformat()}"
            if len(there)
            else "none yet",
        ),
    ]


def _design(ledger: Ledger) -> list[tuple[str, str]]:
    manifest = ledger.manifest
    factors = [(f"factor {name}", ", ".join(v)) for name, v in manifest.factors.items()]
    baseline = ", ".join(f"{name} = {level}" for name, level in manifest.baseline.items())
    return [
        *factors,
        ("baseline", baseline),
        ("arms", str(ledger.cells["arm"].nunique())),
        ("replicates", partitioned.said)
        if (partitioned := partitioned_in(manifest))
        else ("seeds", ", ".join(map(str, manifest.seeds))),
        ("preset", manifest.preset),
        ("protocol", manifest.protocol),
        ("data", f"{manifest.data} (fingerprint {manifest.data_fingerprint})"),
        ("core", manifest.core),
        ("tables", ", ".join(manifest.tables) or "none of a paper"),
    ]


def _identity(ledger: Ledger) -> str:
    """A hash of all that a section shows: the cells, their files' state, and this code."""
    sha = hashlib.sha256(figures.identity(ledger).encode())
    folder = Path(__file__).parent
    for path in sorted([*folder.glob("*.j2"), *folder.glob("published/*.yaml")]):
        sha.update(path.read_bytes())
    sha.update(repr(ledger.damaged).encode())
    for row in ledger.cells[["attempts", "started", "error"]].itertuples(index=False):
        sha.update(repr(tuple(row)).encode())
    return sha.hexdigest()


def study_section(root: str, *, redraw: bool = False) -> dict[str, Any]:
    """A study's name, question, cells and its part of the page.

    What was made of the very same cells before is taken from `<root>/report_section.json`, so that
    a study's end does not pay for all studies beside it.

    Raises:
        LedgerError: it cannot be read.
    """
    ledger, store = read_study(root), Store(root)
    identity = _identity(ledger)
    kept = SECTION_BOOK.read_or_none(store, SECTION)
    if kept is not None and kept.identity == identity and not redraw:
        return kept.model_dump()
    shown = _shown(ledger, root)
    made = {name: shown[name] for name in ("name", "question", "committed", "planned")}
    made |= {"identity": identity, "html": _filled("section", s=shown)}
    if not shown["no_figures"]:
        store.write(SECTION, json.dumps(made, ensure_ascii=False).encode())
    return made


def _shown(ledger: Ledger, root: str) -> dict[str, Any]:
    """What the section's template shows."""
    store = Store(root)
    tables = study_tables(ledger)
    cells = ledger.cells
    wanted = keys_behind(tables)
    shown = [key for key in cells["key"] if key in wanted]  # in the order of `cells_json`
    places = {key: place for place, key in enumerate(shown)}
    no_figures = ""
    try:
        pictures = [path for path in figures.rebuild(root) if path.endswith(".png")]
    except Exception as error:  # tables and provenance matter more than a picture
        pictures, no_figures = [], f"no figures: {type(error).__name__}: {error}"
    names = [f"figures/{path.rpartition('/')[2]}" for path in pictures]
    failed = cells[cells["status"] == "failed"]
    return {
        "name": ledger.manifest.study,
        "question": ledger.manifest.question,
        "planned": len(cells),
        "committed": int((cells["status"] == "ok").sum()),
        "missing": int((cells["status"] == "missing").sum()),
        "damaged": ledger.damaged,
        "design": _design(ledger),
        "data_card": ledger.manifest.data_card,
        "metrics": ledger.manifest.metrics,
        "answer": answer_sentences(ledger),
        "tables": [Markup(html_fragment(table, places)) for table in tables],
        "figures": [
            (name.rpartition("/")[2], base64.b64encode(store.read(name)).decode())
            for name in _main_first(names)
        ],
        "no_figures": no_figures,
        "budget": _budget(ledger),
        "failures": failed.to_dict("records"),
        "environment": _environment(ledger),
        "cells_json": Markup(cells_json(ledger, wanted)),
    }


def _main_first(names: list[str]) -> list[str]:
    """The picture of the decisions before all others."""
    return sorted(names, key=lambda name: not name.startswith("figures/paired_"))


def _filled(name: str, **values: Any) -> str:
    """The template `report_<name>.html.j2`, filled in."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(f"report_{name}.html.j2").render(**values)


def render(roots: list[str], *, redraw: bool = False) -> str:
    """The report of the studies in `roots`; one that cannot be read is named in it.

    Raises:
        LedgerError: none of them can be read.
    """
    studies, unreadable = [], []
    for root in roots:
        try:
            section = study_section(root, redraw=redraw)
            studies.append({**section, "html": Markup(section["html"])})
        except LedgerError as error:
            unreadable.append((root, str(error)))
    if not studies:
        raise LedgerError("; ".join(problem for _, problem in unreadable))
    return _filled("page", studies=studies, unreadable=unreadable)


def rebuild(root: str, *, redraw: bool = False) -> list[str]:
    """Write `<root>/report.html` for every study in `root`.

    Args:
        root: the folder of all studies, or one study's.
        redraw: make every study's part anew, even of the very same cells.

    Returns:
        its path, in a list.

    Raises:
        LedgerError: there is no study.
    """
    store = Store(root)
    store.write("report.html", render(studies_in(root), redraw=redraw).encode())
    return [f"{store.root.rstrip('/')}/report.html"]


def main(
    results: Annotated[str, typer.Argument(help="results/, or one study's folder or URI")],
) -> None:
    """Write one self-contained HTML file for every study found."""

    def command() -> None:
        (path,) = rebuild(results, redraw=True)
        print(path)

    run_command(command)


if __name__ == "__main__":
    with command_line():
        typer.run(main)
