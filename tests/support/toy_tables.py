"""The toy study with a last step that says so and, told to, takes its time.

TOY_TABLES_S=60 python tests/support/toy_tables.py --inline
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

import os
import time

from toy_study import STUDY

from sweeps.engine.cli import main
from sweeps.ledger.read import read_ledger


def reporting(results, study, console, *, quiet) -> None:
    """The number of cells stands for the tables."""
    status = read_ledger(f"{results}/{study}").cells["status"]
    console.print(f"tables of {(status == 'ok').sum()} cells")
    time.sleep(float(os.environ.get("TOY_TABLES_S", "0")))


if __name__ == "__main__":
    main(STUDY, reporting, __doc__)
