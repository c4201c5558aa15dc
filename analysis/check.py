"""Whether a ledger accounts for every planned cell, and which of its files are damaged.

    python analysis/check.py results/controller_ablation
    python analysis/check.py results                       # every study found

Exit codes: 0 planned = committed + listed failures, no file damaged; 1 cells are missing or files
damaged; 2 no study there; 3 a disk or a store did not give a file, which may be in order.
"""

import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from analysis.command import run_command
from analysis.discover import studies_in
from analysis.reading import ledger_of
from sweeps.ledger.read import committed_keys
from sweeps.ledger.schema import LedgerError
from sweeps.process import command_line

INCOMPLETE = 1


@dataclass(frozen=True, kw_only=True)
class Account:
    """What a study's folder holds, against its plan.

    Attributes:
        planned, committed, failed, missing: cells.
        failures: (arm, seed, error) of each failed cell.
        unplanned: committed cells that the last plan does not list (an earlier, larger plan).
        damaged: (file, reason).
        quarantined: names in `quarantine/`.
    """

    study: str
    planned: int
    committed: int
    failed: int
    missing: int
    failures: tuple[tuple[str, int, str], ...]
    unplanned: int
    damaged: tuple[tuple[str, str], ...]
    quarantined: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every planned cell is committed or a listed failure, and every file whole."""
        return self.missing == 0 and not self.damaged


def account(root: str, *, predictions: bool = True) -> Account:
    """Read every file of the study in `root`.

    Args:
        root: the study's folder.
        predictions: whether the predictions are read as well.

    Raises:
        LedgerError: `root` is no study's results.
    """
    ledger = ledger_of(root)  # every column, so that damage in any of them is found
    cells, damaged = ledger.cells, list(ledger.damaged)
    there = cells.loc[cells["status"] == "ok", "key"]
    reader = ledger.predictions()
    for key in there if predictions else ():
        try:
            reader.table(key)
        except FileNotFoundError:
            continue  # a study need not store any
        except LedgerError as error:
            damaged.append((f"predictions of {key}", str(error)))
    failed = cells[cells["status"] == "failed"]
    return Account(
        study=ledger.manifest.study,
        planned=len(cells),
        committed=len(there),
        failed=len(failed),
        missing=int((cells["status"] == "missing").sum()),
        failures=tuple(
            (str(r.arm), int(r.seed), f"{r.error_type}: {r.error}") for r in failed.itertuples()
        ),
        unplanned=len(committed_keys(ledger.store) - set(cells["key"])),
        damaged=tuple(damaged),
        quarantined=tuple(ledger.store.names("quarantine", "")),
    )


def lines(found: Account) -> list[str]:
    """The account as text: one line, then failures and files by name."""
    return [
        f"{found.study}: {found.planned} planned = {found.committed} committed + "
        f"{found.failed} failed + {found.missing} missing"
        + (f"; {found.unplanned} more committed that the last plan does not list"
           if found.unplanned else ""),
        *(f"  failed: {arm}, seed {seed}: {error}" for arm, seed, error in found.failures),
        *(f"  damaged: {name}: {reason}" for name, reason in found.damaged),
        *(f"  in quarantine: {name}" for name in found.quarantined),
    ]  # fmt: skip


def main(
    results: Annotated[str, typer.Argument(help="a study's folder, or results/ for all of them")],
    predictions: Annotated[
        bool, typer.Option(help="read every file of predictions as well")
    ] = True,
) -> None:
    """Check that planned = committed + listed failures, and name damaged files."""
    complete = True

    def command() -> None:
        nonlocal complete
        for root in studies_in(results):
            found = account(root, predictions=predictions)
            print("\n".join(lines(found)))
            complete &= found.complete

    run_command(command)
    if not complete:
        print("not complete: run the study's script again", file=sys.stderr)
        raise typer.Exit(INCOMPLETE)


if __name__ == "__main__":
    with command_line():
        typer.run(main)
