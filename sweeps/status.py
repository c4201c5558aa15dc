"""What runs, what is done, failed and left, from another terminal, while a study runs and after.

    python sweeps/status.py                                # every study under results/
    python sweeps/status.py results/controller_ablation    # one study, arm by arm
    python sweeps/status.py s3://bucket/results            # a folder or any URI
    python sweeps/status.py --watch                        # again and again, until nothing runs

Reads the ledger only; exits with 2 where a folder has none, with 3 where one cannot be read.
"""

import signal
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sweeps.engine.pace import duration, no_sign
from sweeps.exits import code_of, of_signal
from sweeps.ledger.files import Store, StoreError
from sweeps.ledger.progress import Item, Progress, progress_of, studies_in
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


def running_line(item: Item) -> str:
    """One item that runs: for how long, how much of it is done, and whether it still moves."""
    line = f"{item.what}, for {duration(item.seconds)}"
    if item.share is not None:
        left = f", about {duration(item.left_s)} left" if item.left_s else ""
        line += f" ({item.share:.0%} done{left})"
    return line if item.silent_s is None else f"{line}, {no_sign(item.silent_s)}"


def details(progress: Progress, *, arms_last: bool = False) -> list[Table | Text]:
    """What a single study has to say beyond its line: arms, what runs now, what failed and why.

    Args:
        arms_last: a page that is drawn anew is cut at the bottom, where it is too long.
    """
    said: list[Table | Text] = [Text(f"\n{progress.question}", style="dim")]
    if not arms_last:
        said.append(arms(progress))
    if progress.holder and progress.holder.running:
        said.append(Text("\nrunning now", style="bold"))
        for item in progress.holder.running:
            style = "" if item.silent_s is None else "yellow"
            said.append(Text(f"  {running_line(item)}", style=style))
    if progress.failures:
        said.append(
            Text.assemble("\n", ("failed", "bold"), " (--retry-failed computes them again)")
        )
        for arm, seed, kind, error in progress.failures[:FAILURES_SHOWN]:
            said.append(Text(f"  {arm}, seed {seed}: {kind}: {error}"))
        if len(progress.failures) > FAILURES_SHOWN:
            said.append(Text(f"  and {len(progress.failures) - FAILURES_SHOWN} more"))
    if arms_last:
        said += [Text(""), arms(progress)]
    return said


@dataclass(frozen=True, kw_only=True)
class Look:
    """What the folders said at one moment; `errors` are of those that could not be read."""

    studies: list[tuple[Store, Progress]]
    errors: list[Exception]

    def page(self, *, arms_last: bool = False) -> list[Table | Text]:
        """All of it; of a single study its `details` too."""
        if not self.studies:
            return []
        alone = len(self.studies) == 1
        more = details(self.studies[0][1], arms_last=arms_last) if alone else []
        return [overview(self.studies), *more]

    @property
    def lines(self) -> list[str]:
        """A line a study, for a log."""
        return [
            f"{progress.study}: {progress.done}/{progress.planned} done, {progress.failed} failed; "
            f"{estimate(progress)}; {controller(progress)}"
            for _, progress in self.studies
        ]

    @property
    def alive(self) -> bool:
        """Whether any of the studies runs."""
        return any(p.holder is not None and p.holder.alive for _, p in self.studies)


def look(roots: Sequence[str]) -> Look:
    """Every study in the folders or URIs `roots`, as it is now."""
    studies: list[tuple[Store, Progress]] = []
    errors: list[Exception] = []
    for root in roots:
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
    return Look(studies=studies, errors=errors)


def watch(roots: Sequence[str], console: Console, every_s: float) -> Look:
    """Look again and again while a study runs; the last look, when none does any more.

    On a terminal the page is drawn anew; elsewhere a study's line is printed when it has changed.
    A look may take a fifth of the time: what it asks of a far store costs.
    """
    said: set[str] = set()
    shown = (
        Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
    )
    with shown or nullcontext():
        while True:
            began = time.monotonic()
            now = look(roots)
            if not now.alive:
                return now
            if shown:
                shown.update(Group(*now.page(arms_last=True)), refresh=True)
            else:
                for line in now.lines:
                    if line not in said:
                        console.print(Text(line), soft_wrap=True)
                said = set(now.lines)
            time.sleep(max(every_s, 4 * (time.monotonic() - began)))


def main(
    results: Annotated[
        list[str] | None,
        typer.Argument(help="Folders or URIs of results, or of single studies. Default: results."),
    ] = None,
    live: Annotated[
        bool, typer.Option("--watch", help="Look again and again until no study runs any more.")
    ] = False,
    every: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="With --watch: how often to look.")
    ] = 3.0,
) -> None:
    console, roots = Console(), results or ["results"]
    try:
        found = watch(roots, console, every) if live else look(roots)
    except KeyboardInterrupt:
        raise typer.Exit(of_signal(signal.SIGINT)) from None
    for part in found.page():
        console.print(part, soft_wrap=isinstance(part, Text))
    for error in found.errors:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", soft_wrap=True)
    if found.errors:
        raise typer.Exit(max(map(code_of, found.errors)))


app = typer.Typer(add_completion=False)
app.command(
    help="What runs, what is done, failed and left, while a study runs and after.",
    epilog="Reads the ledger only. Exit code 2: a folder without a study, or one out of order.",
)(main)

if __name__ == "__main__":
    with command_line():
        app()
