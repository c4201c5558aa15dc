"""What the four commands share: a ledger that cannot be used ends in one line and exit code 2."""

import sys
from collections.abc import Callable

import typer

from sweeps.ledger.schema import LedgerError

USAGE = 2


def run_command(command: Callable[[], None]) -> None:
    """Run `command`; what the ledger refuses ends in one line on stderr and exit code 2."""
    try:
        command()
    except LedgerError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(USAGE) from None
