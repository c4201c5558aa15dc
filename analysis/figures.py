"""Every figure of a study, from its ledger alone.

python analysis/figures.py results/controller_ablation
"""

import io
from collections.abc import Iterator
from typing import Annotated

import matplotlib as mpl

mpl.use("Agg")  # files only: no display is needed, and none is opened

import matplotlib.pyplot as plt
import typer
from matplotlib.figure import Figure

from analysis import plots
from analysis.aggregate import metric_table
from analysis.tables import run_command
from sweeps.ledger.files import Store
from sweeps.ledger.read import Ledger, read_ledger

MOST_ARMS = 40
CURVES = {
    "reward": ("reward", "RL iteration"),
}
"""curve → its label with unit, and what a step is; others are labelled by their name."""


def _arm_names(ledger: Ledger) -> dict[str, str]:
    """arm → the levels of the factors that vary, which is what a reader compares."""
    varied = [name for name, levels in ledger.manifest.factors.items() if len(levels) > 1]
    return {
        cell.arm: ", ".join(cell.levels[name] for name in varied) or cell.arm
        for cell in ledger.manifest.cells
    }


def study_figures(ledger: Ledger) -> Iterator[tuple[str, Figure]]:
    """(name, figure) for every figure that the study's cells can fill."""
    names = _arm_names(ledger)
    cells = ledger.cells[ledger.cells["status"] == "ok"].copy()
    cells["arm"] = cells["arm"].map(names)
    if cells.empty or cells["arm"].nunique() > MOST_ARMS:
        return
    curves = list(dict.fromkeys(name for row in cells["curves"] for name in row))
    for name in curves:
        label, step = CURVES.get(name, (name, "step"))
        ax = plots.learning_curves(cells, name, ylabel=label, xlabel=step)
        ax.set_title(f"{ledger.manifest.study}: {label} per {step}, mean and 95 % t-interval")
        yield f"curve_{name}", ax.figure
    for metric in metric_table(ledger.manifest).values():
        column = f"metric.{metric.name}"
        if column in cells and cells[column].notna().any():
            unit = " (fraction)" if metric.fraction else ""
            ax = plots.means(cells, column, label=metric.label + unit)
            ax.set_title(f"{ledger.manifest.study}: {metric.label} per arm")
            yield f"means_{metric.name}", ax.figure


def rebuild(root: str) -> list[str]:
    """Draw every figure of the study in `root` into `<root>/figures/`, as .png and .pdf.

    Returns:
        the paths written, in order.

    Raises:
        LedgerError: `root` is no study's results.
    """
    ledger = read_ledger(root)
    store = Store(root)
    paths = []
    with plots.style():
        for name, figure in study_figures(ledger):
            for suffix in ("png", "pdf"):
                sink = io.BytesIO()
                # No date in the file: the same cells give the same bytes.
                metadata = {"CreationDate": None} if suffix == "pdf" else {"Software": None}
                figure.savefig(sink, format=suffix, metadata=metadata, bbox_inches="tight")
                store.write(f"figures/{name}.{suffix}", sink.getvalue())
                paths.append(f"{store.root.rstrip('/')}/figures/{name}.{suffix}")
            plt.close(figure)
    return paths


def main(
    results: Annotated[str, typer.Argument(help="a study's folder or URI: results/<study>")],
) -> None:
    """Draw the study's figures (.png, .pdf)."""

    def command() -> None:
        paths = rebuild(results)
        print(f"{len(paths)} files in {Store(results).root.rstrip('/')}/figures")

    run_command(command)


if __name__ == "__main__":
    typer.run(main)
