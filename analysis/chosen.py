"""The chosen images of every cell as a manifest: what a user takes home from a selection.

    python analysis/chosen.py results/controller_ablation          # writes its folder chosen/
    python analysis/chosen.py results/controller_ablation --all    # the rejected ones too

One CSV a cell: place in the pool, file (in the user's folder, or the id of a training image; empty
for a generator's candidates, which have a place in the pool and no file), label, keep probability,
whether kept. Of a method with several draws it is the first one.
"""

import csv
import io
import re
from typing import Annotated

import numpy as np
import typer

from analysis.command import run_command
from analysis.render import csv_text
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_artifacts, read_ledger
from sweeps.ledger.schema import LedgerError

COLUMNS = ("pool_index", "file", "label", "keep_probability", "kept")


def lines(array: np.ndarray) -> list[str]:
    """The texts of an artifact that holds UTF-8 bytes, a newline after each."""
    return array.tobytes().decode().splitlines()


def manifest(artifacts: dict[str, np.ndarray], *, everything: bool = False) -> list[tuple]:
    """Rows of COLUMNS, kept candidates only unless `everything`, in the order of the pool."""
    labels, kept = artifacts["pool_labels"], artifacts["kept"]
    names = lines(artifacts["class_names"])
    files = lines(artifacts["pool_files"]) if "pool_files" in artifacts else [""] * len(labels)
    wanted = np.arange(len(labels)) if everything else np.flatnonzero(kept)
    return [
        (
            int(i),
            files[i],
            names[labels[i]],
            f"{artifacts['keep_probability'][i]:.6g}",
            int(kept[i]),
        )
        for i in wanted
    ]


def write(root: str, *, everything: bool = False) -> list[str]:
    """Write a manifest for every finished cell that chose; returns their names.

    Raises:
        LedgerError: `root` is no study's results, or no cell of it chose images.
    """
    ledger, store = read_ledger(root, details=False), Store(root)
    written = []
    for row in ledger.cells[ledger.cells["status"] == "ok"].itertuples():
        artifacts = read_artifacts(store, row.key)
        if "kept" not in artifacts or "class_names" not in artifacts:
            continue
        text = io.StringIO()
        out = csv.writer(text, lineterminator="\n")
        out.writerow(COLUMNS)
        rows = manifest(artifacts, everything=everything)
        out.writerows([csv_text(value) for value in row] for row in rows)
        # A level may be a path: what a file cannot be called becomes "-".
        arm = re.sub(r"[^\w=,.-]+", "-", row.arm)
        written.append(f"chosen/{arm}_seed{row.seed}.csv")
        store.write(written[-1], text.getvalue().encode())
    if not written:
        raise LedgerError(
            f"a manifest needs finished cells that choose from a pool, got none in {root}; run a "
            "study of selection_core first"
        )
    return written


def main(
    results: Annotated[str, typer.Argument(help="a study's folder or URI: results/<study>")],
    everything: Annotated[
        bool, typer.Option("--all", help="list the rejected candidates too")
    ] = False,
) -> None:
    """Write the chosen images of every cell as CSV, to the study's folder chosen/."""

    def command() -> None:
        names = write(results, everything=everything)
        print(f"{len(names)} files in {Store(results).root.rstrip('/')}/chosen")

    run_command(command)


if __name__ == "__main__":
    typer.run(main)
