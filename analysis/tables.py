"""Every table of a study, from its ledger alone.

python analysis/tables.py results/controller_ablation
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from analysis.answer import answer_markdown, answer_sentences
from analysis.calibration import calibration_table
from analysis.claims import claims_table, verdict_table
from analysis.command import run_command
from analysis.comparisons import arms_table
from analysis.degenerate import warned
from analysis.effects import effect_table
from analysis.generic import factor_table
from analysis.layouts import rebuilt
from analysis.paired import paired_tables
from analysis.partitions import partitioned_in, read_study
from analysis.profiles import improvement_table
from analysis.published import PublishedTable, published_tables
from analysis.reading import Same
from analysis.render import FORMATS, print_table
from analysis.rises import rise_table
from analysis.searches import settings_table
from analysis.table import Table
from analysis.variance import iqm_table, variance_table
from sweeps.ledger.files import Store
from sweeps.ledger.read import Ledger
from sweeps.ledger.schema import LedgerError
from sweeps.process import command_line

INDEX = "tables/index.json"
ANSWER = "tables/answer.md"


def named_tables(ledger: Ledger) -> list[PublishedTable]:
    """The published tables that the study's manifest names.

    Raises:
        LedgerError: the manifest names a table that `analysis/published` does not have.
    """
    known = published_tables()
    unknown = [name for name in ledger.manifest.tables if name not in known]
    if unknown:
        raise LedgerError(
            f"no published table {unknown[0]!r}; analysis/published has {', '.join(known)}"
        )
    return [known[name] for name in ledger.manifest.tables]


def paper_tables(ledger: Ledger, own: Sequence[Table] = ()) -> list[Table]:
    """The published tables of the study, rebuilt; the study's own layout where it has none.

    Args:
        own: the study's own layouts, best first, where somebody has made them already.
    """
    found = [table for published in named_tables(ledger) for table in rebuilt(ledger, published)]
    found = found or [own[0] if own else factor_table(ledger) or arms_table(ledger)]
    found = [warned(ledger, table) for table in found]
    settings = settings_table(ledger.store)
    return [*found, settings] if settings else found


def study_tables(ledger: Ledger) -> list[Table]:
    """Every table of the study, the papers' first."""
    return list(_study_tables(Same(ledger)))


@lru_cache(maxsize=1)
def _study_tables(same: Same[Ledger]) -> tuple[Table, ...]:
    """A run's last step writes them, and then shows them in the report."""
    ledger = same.thing
    published = named_tables(ledger)
    papers = tuple(dict.fromkeys(table.paper for table in published))
    own = [table for table in (factor_table(ledger), arms_table(ledger)) if table is not None]
    every = [
        *paper_tables(ledger, own),
        *(verdict_table(ledger, table) for table in published),
        settings_table(ledger.store),
        *(warned(ledger, table) for table in own),
        effect_table(ledger),
        *paired_tables(ledger),
        rise_table(ledger),
        iqm_table(ledger),
        improvement_table(ledger),
        variance_table(ledger),
        calibration_table(ledger),
        *([claims_table(papers)] if papers else []),
    ]
    found = {table.name: table for table in every if table is not None}
    return tuple(_of_replicates(ledger, table) for table in found.values())


def _of_replicates(ledger: Ledger, table: Table) -> Table:
    """The table, its notes saying what stands for a seed where partitions are replicates."""
    partitioned = partitioned_in(ledger.manifest)
    if partitioned is None or table.name == "claims_checked":
        return table
    note = (
        f"What these notes call a seed is a replicate: one of {partitioned.count} partitions of "
        f"the patients with one of {partitioned.seeds} seeds."
    )
    return replace(table, notes=(*table.notes, note))


def rebuild(root: str) -> list[str]:
    """Write every table of the study in `root` to `<root>/tables/`, in each format.

    Returns:
        the paths written, in order.

    Raises:
        LedgerError: `root` is no study's results.
    """
    ledger = read_study(root, details=False)
    store = Store(root)
    files = {
        f"tables/{table.name}.{suffix}": write(table).encode()
        for table in study_tables(ledger)
        for suffix, write in FORMATS.items()
    }
    store.write_all(files)
    names = list(files)
    # A table of an earlier plan must not stay among these.
    store.delete_all(set(_written_before(store)) - set(names))
    names.append(ANSWER)
    store.write(ANSWER, answer_markdown(ledger).encode())
    store.write(INDEX, json.dumps(names, indent=1).encode())
    return [f"{store.root.rstrip('/')}/{name}" for name in names]


def _written_before(store: Store) -> list[str]:
    """The files that the last call wrote; none where nothing says so."""
    try:
        return [str(name) for name in json.loads(store.read(INDEX)) if name.startswith("tables/")]
    except (FileNotFoundError, IsADirectoryError, ValueError, AttributeError, TypeError):
        return []


def print_tables(root: str, console: Console) -> None:
    """The tables of `paper_tables` of the study in `root`, on the terminal.

    Raises:
        LedgerError: `root` is no study's results.
    """
    for table in paper_tables(read_study(root, details=False)):
        print_table(table, console)


def print_answer(root: str, console: Console) -> None:
    """The answer of the study in `root`, on the terminal.

    Raises:
        LedgerError: `root` is no study's results.
    """
    for sentence in answer_sentences(read_study(root, details=False)):
        console.print(Text(sentence, style="bold"))


def main(
    results: Annotated[str, typer.Argument(help="a study's folder or URI: results/<study>")],
) -> None:
    """Write the study's tables (.md, .tex, .csv, .html) and print the paper's."""

    def command() -> None:
        paths = rebuild(results)
        print_tables(results, Console())
        print_answer(results, Console())
        print(f"{len(paths)} files in {Store(results).root.rstrip('/')}/tables")

    run_command(command)


if __name__ == "__main__":
    with command_line():
        typer.run(main)
