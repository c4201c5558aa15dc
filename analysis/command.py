"""What the four commands share: a ledger that cannot be used ends in one line and exit code 2, and
so does a disk or a store that fails, with exit code 3."""

import sys
from collections.abc import Callable

import typer

from sweeps.exits import code_of
from sweeps.ledger.files import StoreError
from sweeps.ledger.schema import LedgerError


def run_command(command: Callable[[], None]) -> None:
    """Run `command`; what the ledger refuses ends in one line on stderr and exit code 2, what the
    disk or the object store does not give in one and exit code 3.
    """
    try:
        command()
    except (LedgerError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(code_of(error)) from None
