"""Every figure of a study, from its ledger alone.

python analysis/figures.py results/controller_ablation
"""

import hashlib
import io
import json
import re
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from sweeps.process import command_line, headless

# Files only: no display is needed, and none is opened. Before the import, which fails where a
# notebook's MPLBACKEND names a module that only the notebook has, or a matplotlibrc is no text.
headless()

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import typer
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import factor_plots, plots
from analysis.aggregate import Metric, in_order, level_names
from analysis.command import run_command
from analysis.comparisons import (
    MOST_ROWS,
    arms_of,
    baseline_name,
    present_metrics,
    values_of,
)
from analysis.decisions import decisions
from analysis.galleries import GALLERIES
from analysis.generic import headline_metric, varied_factors
from analysis.partitions import read_study
from analysis.profiles import profiles
from analysis.search_plots import search_figures
from analysis.searches import search_bytes
from sweeps.ledger.declared import TASK_FACTORS
from sweeps.ledger.files import Store
from sweeps.ledger.read import Ledger, read_artifacts

MOST_ARMS = 40
MOST_METRICS = 4
MOST_GALLERIES = 3
"""Beyond these a study's figures would be too many to look at; the tables have every metric."""
INDEX = "figures/index.json"
CURVES = {
    "reward": ("reward", "RL iteration"),
    "entropy": ("entropy of the policy (nats)", "RL iteration"),
    "kept_fraction": ("share of candidates kept", "RL iteration"),
    "kept": ("candidates kept", "RL iteration"),
    "validation_accuracy": ("validation accuracy (fraction)", "epoch"),
    "loss": ("training loss", "epoch"),
}
"""curve → its label with unit, and what a step is; others are labelled by their name."""
Drawn = Iterator[tuple[str, Figure]]


PANELS_FROM, PANELS_TO = 4, 12
"""So many arms get a panel each for their curves: fewer fit one, more would be too small."""


def _unit(metric: Metric) -> str:
    return f"{metric.label} (fraction)" if metric.fraction else metric.label


def _titled(ax: Axes, ledger: Ledger, text: str) -> Figure:
    ax.set_title(textwrap.fill(f"{ledger.manifest.study}: {text}", 56))
    return ax.figure


def curve_figures(ledger: Ledger, cells: pd.DataFrame) -> Drawn:
    """A figure per curve that the cells carry; its parts ("reward/class1") are one's panels."""
    parts: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for row in cells["curves"] for name in row):
        parts.setdefault(name.partition("/")[0], []).append(name)
    for name, curves in parts.items():
        label, step = CURVES.get(name, (name.replace("_", " "), "step"))
        if curves != [name]:
            text = f"{label} per {step}, mean, 95 % t-interval"
            panels = plots.part_panels(cells, curves, ylabel=label, xlabel=step)
            panels[0].figure.suptitle(
                f"{ledger.manifest.study}: {text}", fontsize=10, x=0.01, ha="left"
            )
            yield f"curve_{name}", panels[0].figure
            continue
        text = f"{label} per {step}, mean, 95 % t-interval"
        arms = plots.with_curve(cells, name)["arm"].nunique()
        if PANELS_FROM <= arms <= PANELS_TO:
            figure = plots.learning_panels(cells, name, ylabel=label, xlabel=step)[0].figure
            figure.suptitle(f"{ledger.manifest.study}: {text}, thin: seeds", fontsize=10)
            yield f"curve_{name}", figure
        else:
            ax = plots.learning_curves(cells, name, ylabel=label, xlabel=step)
            yield f"curve_{name}", _titled(ax, ledger, text)


def metric_figures(ledger: Ledger, cells: pd.DataFrame) -> Drawn:
    """Means per arm of each metric; seeds and paired differences of the headline one."""
    headline = headline_metric(ledger)
    arms = arms_of(ledger)
    baseline = baseline_name(ledger)
    directed = [m for m in present_metrics(ledger) if m.higher_is_better is not None]
    chosen = [m for m in directed[:MOST_METRICS] if m != headline] + [headline] * bool(headline)
    for metric in chosen:
        column = f"metric.{metric.name}"
        ax = plots.means(cells, column, label=_unit(metric))
        yield f"means_{metric.name}", _titled(ax, ledger, f"{metric.label} per arm")
        if metric is not headline:
            continue  # one metric's seeds and differences are drawn; the tables have all
        if cells["arm"].nunique() <= MOST_ARMS // 2:
            ax = plots.seeds_strip(cells, column, label=_unit(metric))
            yield f"seeds_{metric.name}", _titled(ax, ledger, "every seed")
        found = decisions(ledger)
        pairs = pd.DataFrame(
            [
                {"arm": arms.labels[one.row], "n": one.pair.n, "mean": one.pair.mean,
                 "low": one.pair.low, "high": one.pair.high, "answer": one.answer}
                for one in (found.every if found else ())
                if one.pair.n > 1
            ]
        )  # fmt: skip
        if len(pairs):
            ax = plots.forest(
                pairs, label=_unit(metric), baseline=baseline, margin=found.rule.margin
            )
            yield f"paired_{metric.name}", _titled(ax, ledger, f"{metric.label}, paired by seed")


def _are_numbers(levels: Iterable[str]) -> bool:
    """Whether these levels have an order of their own; "all" is more than any number."""
    return all(level == "all" or re.fullmatch(r"[-+.\deE]+", level) for level in levels)


def factor_figures(ledger: Ledger, cells: pd.DataFrame) -> Drawn:
    """Heat map and interaction of two factors; curves along k where one of the factors is k."""
    varied = varied_factors(ledger)
    metric = headline_metric(ledger)
    if metric is None:
        return
    column = f"metric.{metric.name}"
    shown = {name: level_names(name, levels) for name, levels in varied.items()}
    cells = cells.assign(
        **{f"factor.{name}": cells[f"factor.{name}"].map(names) for name, names in shown.items()}
    )

    def ordered(factor: str) -> list[str]:
        return [shown[factor][level] for level in in_order(varied[factor], factor)]

    if len(varied) == 2:
        rows, columns = varied
        if rows in TASK_FACTORS:
            rows, columns = columns, rows
        ax = factor_plots.heat_map(
            cells,
            f"factor.{rows}",
            f"factor.{columns}",
            column,
            label=_unit(metric),
            row_order=ordered(rows),
            column_order=ordered(columns),
        )
        text = f"{metric.label}, mean ± 95 % t-interval"
        yield f"heat_{rows}_{columns}", _titled(ax, ledger, text)
        if "k_shot" not in varied:
            ax = factor_plots.level_curves(
                cells.assign(arm=cells[f"factor.{rows}"]),
                f"factor.{columns}",
                column,
                order=ordered(columns),
                label=_unit(metric),
                xlabel=columns,
                ordered=_are_numbers(varied[columns]),
            )
            yield f"interaction_{rows}_{columns}", _titled(ax, ledger, f"{rows} × {columns}")
    if "k_shot" in varied and len(varied) > 1:
        others = [name for name in varied if name != "k_shot"]
        joined = cells[[f"factor.{name}" for name in others]].agg(", ".join, axis=1)
        ax = factor_plots.level_curves(
            cells.assign(arm=joined),
            "factor.k_shot",
            column,
            order=ordered("k_shot"),
            label=_unit(metric),
            xlabel="k (training images per class)",
        )
        yield "k_shot", _titled(ax, ledger, "k-shot")


def specification_figures(ledger: Ledger, cells: pd.DataFrame) -> Drawn:
    """All arms by their mean over the levels they have, where three factors vary or more."""
    varied = [name for name in varied_factors(ledger) if name not in TASK_FACTORS]
    metric = headline_metric(ledger)
    if metric is None or len(varied) < 3 or cells.empty:
        return
    arms = arms_of(ledger)
    values = values_of(ledger, arms, metric.name)
    rows = [i for i, of_arm in enumerate(values) if not np.isnan(of_arm).all()]
    frame = pd.DataFrame([{n: arms.levels[i].get(n, "") for n in varied} for i in rows])
    frame["mean"] = np.nanmean(values[rows], axis=1)
    frame["half"] = [plots.t_halfwidth(values[i]) for i in rows]
    ax = factor_plots.specification_curve(
        frame, varied, label=_unit(metric), baseline=ledger.manifest.baseline
    )
    yield "specification_curve", _titled(ax, ledger, "every arm")


def profile_figures(ledger: Ledger) -> Drawn:
    """The performance profile of each method, where there are several tasks."""
    found = profiles(ledger)
    if found is not None:
        metric, frame = found
        ax = factor_plots.performance_profile(frame, label=metric.label)
        yield "performance_profile", _titled(ax, ledger, "runs of all tasks")


def gallery_figures(ledger: Ledger, cells: pd.DataFrame) -> Drawn:
    """Galleries of the first arms that have any, the baseline arm before all, each of a seed."""
    others = np.zeros(len(cells), dtype=bool)
    for name, level in ledger.manifest.baseline.items():
        if f"factor.{name}" in cells:
            others |= (cells[f"factor.{name}"] != level).to_numpy()
    number = 0
    for arm, rows in cells.iloc[np.argsort(others, kind="stable")].groupby("arm", sort=False):
        arrays = read_artifacts(ledger.store, rows["key"].iloc[0])
        drawn = {name: draw(arrays) for name, draw in GALLERIES.items()}
        number += any(figure is not None for figure in drawn.values())
        for name, figure in drawn.items():
            if figure is not None:
                figure.suptitle(f"{arm}, seed {rows['seed'].iloc[0]}", fontsize=9)
                yield f"gallery_{name}_{number}", figure
        if number == MOST_GALLERIES:
            return


def study_figures(ledger: Ledger) -> Drawn:
    """(name, figure) for every figure that the study's cells can fill."""
    arms = arms_of(ledger)
    cells = ledger.cells.assign(arm=np.array(arms.labels, dtype=object)[arms.row])
    cells = cells[cells["status"] == "ok"]
    if len(arms.labels) <= MOST_ROWS:
        yield from specification_figures(ledger, cells)
    if cells.empty or len(arms.labels) > MOST_ARMS:
        return
    yield from curve_figures(ledger, cells)
    yield from factor_figures(ledger, cells)
    yield from metric_figures(ledger, cells)
    yield from profile_figures(ledger)
    yield from gallery_figures(ledger, cells)
    yield from search_figures(ledger.store)


def identity(ledger: Ledger) -> str:
    """A hash of the cells that are there and of this code: equal ones draw equal figures."""
    sha = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(path.read_bytes())
    sha.update(repr(ledger.manifest).encode())
    sha.update(search_bytes(ledger.store))
    for key, status in zip(ledger.cells["key"], ledger.cells["status"], strict=True):
        sha.update(f"{key} {status}\n".encode())
    return sha.hexdigest()


def _index(store: Store) -> tuple[str, list[str]]:
    """Identity and names of the figures drawn last; empty where there are none."""
    try:
        index = json.loads(store.read(INDEX))
        return index["identity"], index["names"]
    except (FileNotFoundError, ValueError, KeyError):
        return "", []


def _drawn(ledger: Ledger) -> dict[str, bytes]:
    """Path in the study's folder → the file, for every figure in both formats."""
    files = {}
    with plots.style():
        for name, figure in study_figures(ledger):
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # laid out once, for both formats
            for suffix in ("png", "pdf"):
                sink = io.BytesIO()
                # No date in the file: the same cells give the same bytes.
                metadata = {"CreationDate": None} if suffix == "pdf" else {"Software": None}
                figure.savefig(sink, format=suffix, metadata=metadata)
                files[f"figures/{name}.{suffix}"] = sink.getvalue()
            plt.close(figure)
    return files


def rebuild(root: str, *, redraw: bool = False) -> list[str]:
    """Draw every figure of the study in `root` into `<root>/figures/`, as .png and .pdf.

    Drawing takes seconds, so figures of the very same cells are left as they are.

    Args:
        root: the study's folder.
        redraw: draw even so.

    Returns:
        the paths, in order.

    Raises:
        LedgerError: `root` is no study's results.
    """
    ledger = read_study(root)
    store, now = Store(root), identity(ledger)
    before, names = _index(store)
    if redraw or before != now or not all(store.exists(name) for name in names):
        drawn = _drawn(ledger)  # all of them before the first old one goes
        for name in set(names) - set(drawn):
            store.delete(name)  # a figure of other cells must not stay among these
        for name, content in drawn.items():
            store.write(name, content)
        names = list(drawn)
        store.write(INDEX, json.dumps({"identity": now, "names": names}).encode())
    return [f"{store.root.rstrip('/')}/{name}" for name in names]


def main(
    results: Annotated[str, typer.Argument(help="a study's folder or URI: results/<study>")],
) -> None:
    """Draw the study's figures (.png, .pdf)."""

    def command() -> None:
        paths = rebuild(results, redraw=True)
        print(f"{len(paths)} files in {Store(results).root.rstrip('/')}/figures")

    run_command(command)


if __name__ == "__main__":
    with command_line():
        typer.run(main)
