"""What runs, what is done, failed and left, from another terminal, while a study runs and after.

    python sweeps/status.py                                # every study under results/
    python sweeps/status.py results/controller_ablation    # one study, arm by arm
    python sweeps/status.py s3://bucket/results            # a folder or any URI

Reads the ledger only; exits with 2 where a folder has none, with 3 where one cannot be read.
"""

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sweeps.engine.pace import duration
from sweeps.exits import code_of
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.progress import Progress, progress_of, studies_in
from sweeps.ledger.schema import LedgerError
from sweeps.process import command_line

FAILURES_SHOWN = 10


def estimate(progress: Progress) -> str:
    """The time that is left, in words."""
    if not progress.left:
        return "nothing left"
    if progress.eta_s is not None:
        return f"about {duration(progress.eta_s)} left"
    if progress.cells_left_s is None:
        return "unknown until the first cells are there"
    return f"about {duration(progress.cells_left_s)} of compute ÷ slots, beside missing stages"


def controller(progress: Progress) -> str:
    """Who computes the study now, in words."""
    holder = progress.holder
    if holder is None:
        return "not running"
    if not holder.alive:
        return f"not running ({holder.process} stopped without a word)"
    slots = f", {len(holder.running)} running on {holder.slots} slots" if holder.slots else ""
    return f"{holder.process}{slots}"


def overview(studies: list[tuple[Store, Progress]]) -> Table:
    """One line per study."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("study", overflow="fold")
    for name in ("done", "failed", "left"):
        table.add_column(name, justify="right")
    for name in ("time", "controller"):
        table.add_column(name, overflow="fold")
    for store, progress in studies:
        table.add_row(
            escape(store.root),
            f"{progress.done}/{progress.planned}",
            f"[red]{progress.failed}[/]" if progress.failed else "0",
            str(progress.left),
            estimate(progress),
            controller(progress),
        )
    return table


def arms(progress: Progress) -> Table:
    """One line per arm."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("arm", overflow="fold")
    for name in ("done", "failed", "left", "a cell takes"):
        table.add_column(name, justify="right")
    for arm in progress.arms:
        table.add_row(
            escape(arm.arm),
            f"{arm.done}/{arm.planned}",
            f"[red]{arm.failed}[/]" if arm.failed else "0",
            str(arm.left),
            duration(arm.wall_s) if arm.wall_s is not None else "?",
        )
    return table


def details(progress: Progress, console: Console) -> None:
    """What a single study has to say beyond its line: arms, what runs now, what failed and why."""
    console.print(f"\n{escape(progress.question)}", soft_wrap=True, style="dim")
    console.print(arms(progress))
    if progress.holder and progress.holder.running:
        console.print("\n[bold]running now[/]")
        for what, seconds in progress.holder.running:
            console.print(f"  {escape(what)}, for {duration(seconds)}", soft_wrap=True)
    if progress.failures:
        console.print("\n[bold]failed[/] (--retry-failed computes them again)")
        for arm, seed, kind, error in progress.failures[:FAILURES_SHOWN]:
            console.print(f"  {escape(f'{arm}, seed {seed}: {kind}: {error}')}", soft_wrap=True)
        if len(progress.failures) > FAILURES_SHOWN:
            console.print(f"  and {len(progress.failures) - FAILURES_SHOWN} more")


def main(
    results: Annotated[
        list[str] | None,
        typer.Argument(help="Folders or URIs of results, or of single studies. Default: results."),
    ] = None,
) -> None:
    studies, errors = [], []
    for root in results or ["results"]:
        try:
            stores = studies_in(root)
        except (LedgerError, StoreError) as error:
            errors.append(error)
            continue
        for store in stores:
            try:
                studies.append((store, progress_of(store)))
            except (LedgerError, StoreError) as error:
                errors.append(error)
    console = Console()
    if studies:
        console.print(overview(studies))
    if len(studies) == 1:
        details(studies[0][1], console)
    for error in errors:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
    if errors:
        raise typer.Exit(max(map(code_of, errors)))


app = typer.Typer(add_completion=False)
app.command(
    help="What runs, what is done, failed and left, while a study runs and after.",
    epilog="Reads the ledger only. Exit code 2: a folder without a study, or one out of order.",
)(main)

if __name__ == "__main__":
    with command_line():
        app()
