"""A study's cells in TensorBoard, MLflow or Weights & Biases, made from the ledger alone.

    python analysis/export.py results/kshot --to tensorboard        # results/kshot/tensorboard/
    python analysis/export.py results/kshot --to tensorboard:DIR
    python analysis/export.py results/kshot --to mlflow:sqlite:///mlflow.db
    WANDB_MODE=offline python analysis/export.py results/kshot --to wandb:PROJECT

What is there already is not written again, so it may follow a study that runs, and it makes up for
a tracker that was dead. Needs the tracker's package, and neither Ray nor torch.
"""

import sys
from typing import Annotated

import typer

from analysis.command import run_command
from sweeps.ledger.files import Store
from sweeps.ledger.read import committed_keys, read_manifest
from sweeps.ledger.schema import LedgerError
from sweeps.tracking.runs import runs_of
from sweeps.tracking.writers import TrackerError, open_writer


def export(root: str, to: str) -> tuple[int, int, str]:
    """Write what is missing; how many runs were written, how many are there, and where.

    Raises:
        LedgerError: no study in `root`, an unknown tracker, or one that does not answer.
    """
    store = Store(root)
    manifest = read_manifest(store)
    there = committed_keys(store)
    try:
        writer = open_writer(to, manifest.study, store, "--to")
        keys = dict.fromkeys(cell.key for cell in manifest.cells if cell.key in there)
        runs = runs_of(store, keys)
        missing = [run for run in runs if not writer.has(run)]
        for run in missing:
            writer.write(run)
        writer.close()
    except TrackerError as error:
        raise LedgerError(str(error)) from None
    return len(missing), len(runs), writer.where


def main(
    results: Annotated[str, typer.Argument(help="a study's folder or URI: results/<study>")],
    to: Annotated[
        str, typer.Option(metavar="TRACKER[:PLACE]", help="tensorboard, mlflow or wandb")
    ],
) -> None:
    """Write the committed cells of a study to a tracker, those that it does not have."""

    def command() -> None:
        written, there, where = export(results, to)
        print(f"{written} of {there} cells written; {where}")

    run_command(command)


if __name__ == "__main__":
    sys.exit(typer.run(main))
