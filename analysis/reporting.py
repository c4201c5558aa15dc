"""The last step of every study: what the four commands do, on the cells that are there.

    tables.py, figures.py   of this study
    report.py               of every study in the results folder, in its one report.html
    check.py                planned = committed + listed failures

Each stands alone. The cells are safe by now, so a plotting library that fails, or a full disk,
costs its own output and one line that says so; the study's exit code stays that of its cells.
"""

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from analysis.discover import MANIFEST
from analysis.reading import read_once
from sweeps.ledger.files import Store

TUNING = "_tuning"
"""What the name of a search's own ledger adds to that of the study it reports as."""


def _short(path: str) -> str:
    """A local path from here on where it lies below; else as it is."""
    if "://" in path:
        return path
    whole, here = Path(path).absolute(), Path.cwd()
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


def run(results: str, study: str, console: Console, *, quiet: bool = False) -> None:
    """Print and write the study's tables, draw its figures, rebuild the report, account for cells.

    Args:
        results: folder or URI of all studies.
        study: the study's name, and its folder in `results`.
        console: where tables and paths are printed.
        quiet: write only; what could not be written and what is missing are still said.
    """
    folder = Store(results).child(study)
    root = folder.base.rstrip("/") if folder.local else folder.root
    written: list[str] = []

    def attempt(what: str, command: str, of: str, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            Console(stderr=True).print(
                f"[yellow]no {what}:[/] {escape(f'{type(error).__name__}: {error}')}; again: "
                f"python analysis/{command}.py {escape(of)}",
                soft_wrap=True,
            )

    # Imported one by one: without matplotlib there are still tables.
    def show() -> None:
        from analysis.tables import print_tables

        if not quiet:
            print_tables(root, console)

    def tables() -> None:
        from analysis.tables import rebuild

        rebuild(root)
        written.append(f"{_short(root)}/tables/")

    def figures() -> None:
        from analysis.figures import rebuild

        if rebuild(root):
            written.append(f"{_short(root)}/figures/")

    def report() -> None:
        from analysis.report import rebuild

        written.extend(map(_short, rebuild(results)))

    def check() -> None:
        from analysis.check import account, lines

        tuned = Store(results).child(f"{study}{TUNING}")  # a search has a ledger of its own
        for store in [folder, *([tuned] if tuned.exists(MANIFEST) else [])]:
            found = account(store.root, predictions=False)
            if not quiet or not found.complete:
                console.print(escape("\n".join(lines(found))), soft_wrap=True)

    def answer() -> None:
        from analysis.tables import print_answer

        if not quiet:
            print_answer(root, console)

    with read_once(root):
        attempt("tables on the terminal", "tables", root, show)
        attempt("tables", "tables", root, tables)
        attempt("figures", "figures", root, figures)
        attempt("report", "report", results, report)
        if written and not quiet:
            console.print(escape(", ".join(written)), soft_wrap=True, style="dim")
        attempt("account of the cells", "check", root, check)
        attempt("answer", "tables", root, answer)
