"""Figures as functions of a frame: each returns its axes, opens no file, and states units and n."""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from scipy import stats

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 140,
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.hashsalt": "analysis",  # equal figures give equal files
    "pdf.fonttype": 42,
}
# Okabe and Ito's palette keeps its order apart for the common kinds of colour blindness; yellow is
# left out because it fades on paper. Dashes and markers carry the same distinction in grey.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@contextmanager
def style() -> Iterator[None]:
    """The one style, as a context: `with style(): ...`.

    From matplotlib's own defaults on: what a user's matplotlibrc says must not show, nor stop a
    figure (`text.usetex` without LaTeX).
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({**sns.axes_style("ticks"), **STYLE})
        yield


def looks(number: int) -> tuple[str, object, str]:
    """Colour, dash and marker of the `number`-th arm; beyond seven, colours repeat with others."""
    return (
        PALETTE[number % len(PALETTE)],
        DASHES[(number + number // len(PALETTE)) % len(DASHES)],
        MARKERS[(number + number // len(PALETTE)) % len(MARKERS)],
    )


LIMITS = {
    "entropy": (0.0, float(np.log(2))),
    "kept_fraction": (0.0, 1.0),
    "validation_accuracy": (0.0, 1.0),
}
"""curve → what its values can be; a t-interval may go beyond, which would mean nothing."""
LABEL = 34
"""Characters of a label on one line."""


def wrapped(label: str) -> str:
    """A long label (several decisions of an arm) over several lines."""
    return "\n".join(textwrap.wrap(label, LABEL)) or label


def counted(label: str, n: object) -> str:
    """A label over several lines, its n never broken apart."""
    return wrapped(f"{label} (n\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}{n})")


def beside_a_legend(arms: Sequence[str]) -> Axes:
    """Axes of a figure that is high enough for a legend of these arms at its right."""
    lines = sum(counted(arm, "00").count("\n") + 1 for arm in arms)
    height = max(3.6, 0.8 + 0.19 * lines)
    return plt.subplots(figsize=(7.2, height), layout="constrained")[1]


def t_halfwidth(values: np.ndarray) -> np.ndarray:
    """Half width of the 95 % t-interval of the mean over axis 0; NaN below two values.

    Args:
        values: (n, ...), NaN where a value is missing.
    """
    n = np.sum(~np.isnan(values), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        std = np.sqrt(np.nansum((values - np.nanmean(values, axis=0)) ** 2, axis=0) / (n - 1))
        return stats.t.ppf(0.975, n - 1) * std / np.sqrt(n)


def band(curve: str, mean: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of an interval, within what the curve can be."""
    low, high = LIMITS.get(curve.partition("/")[0], (-np.inf, np.inf))
    return np.clip(mean - half, low, high), np.clip(mean + half, low, high)


def with_curve(frame: pd.DataFrame, curve: str) -> pd.DataFrame:
    """The rows of `frame` whose `curves` hold `curve`; ValueError where there is none."""
    there = frame[[isinstance(c, dict) and curve in c for c in frame["curves"]]]
    if there.empty:
        raise ValueError(f"no cell has the curve {curve!r}")
    return there


def stacked(curves: "pd.Series[dict]", curve: str) -> np.ndarray:
    """(cells, steps): one row a cell, NaN where its curve is shorter than the longest."""
    lines = [np.asarray(c[curve], dtype=float) for c in curves]
    values = np.full((len(lines), max(map(len, lines))), np.nan)
    for row, line in zip(values, lines, strict=True):
        row[: len(line)] = line
    return values


def learning_panels(frame: pd.DataFrame, curve: str, *, ylabel: str, xlabel: str) -> list[Axes]:
    """A panel per arm, axes shared: its seeds as thin lines, their mean and 95 % t-interval.

    For many arms, whose bands over each other would hide everything. Arguments and errors are
    those of `learning_curves`.
    """
    groups = list(with_curve(frame, curve).groupby("arm", sort=False))
    across = min(3, len(groups))
    down = -(-len(groups) // across)
    _, grid = plt.subplots(
        down, across, figsize=(2.6 * across + 0.6, 2.1 * down + 0.5), sharex=True, sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    panels = list(grid.flat)
    for unused in panels[len(groups) :]:
        unused.set_visible(False)
    for number, (ax, (arm, rows)) in enumerate(zip(panels, groups, strict=False)):
        values = stacked(rows["curves"], curve)
        x, mean, half = (
            np.arange(1, values.shape[1] + 1),
            np.nanmean(values, axis=0),
            t_halfwidth(values),
        )
        colour, _, _ = looks(number)
        ax.plot(x, values.T, color=colour, alpha=0.35, linewidth=0.7)
        ax.plot(x, mean, color=colour, linewidth=2, marker="o" if len(x) == 1 else "")
        ax.fill_between(x, *band(curve, mean, half), color=colour, alpha=0.15, linewidth=0)
        ax.set_title(counted(arm, len(values)), fontsize=9)
        ax.xaxis.get_major_locator().set_params(integer=True)
        if number % across == 0:
            ax.set_ylabel(ylabel)
        if number >= len(groups) - across:
            ax.set_xlabel(xlabel)
    return panels[: len(groups)]


def part_panels(
    frame: pd.DataFrame, curves: Sequence[str], *, ylabel: str, xlabel: str
) -> list[Axes]:
    """A panel per part of a curve ("reward/class1", "reward/class2"), a line per arm, axes shared.

    Args:
        frame: as for `learning_curves`.
        curves: the names within `curves`; what follows the "/" heads the panel.
        ylabel, xlabel: with units.
    """
    across = min(3, len(curves))
    down = -(-len(curves) // across)
    figure, grid = plt.subplots(
        down, across, figsize=(2.4 * across + 2.2, 2.1 * down + 0.5), sharex=True, sharey=True,
        squeeze=False, layout="constrained",
    )  # fmt: skip
    panels = list(grid.flat)
    for unused in panels[len(curves) :]:
        unused.set_visible(False)
    for number, (ax, curve) in enumerate(zip(panels, curves, strict=False)):
        learning_curves(frame, curve, ylabel="", xlabel="", ax=ax)
        handles, labels = ax.get_legend_handles_labels()
        ax.get_legend().remove()
        ax.set_title(curve.partition("/")[2], fontsize=9)
        if number % across == 0:
            ax.set_ylabel(ylabel)
        if number >= len(curves) - across:
            ax.set_xlabel(xlabel)
    figure.legend(handles, labels, loc="outside right center", title="arm (seeds)", fontsize=8)
    return panels[: len(curves)]


def learning_curves(
    frame: pd.DataFrame, curve: str, *, ylabel: str, xlabel: str, ax: Axes | None = None
) -> Axes:
    """A line per arm with the 95 % t-interval of its mean over seeds as a band.

    Args:
        frame: columns `arm`, `seed`, `curves` (a dict with `curve`: one value per step).
        curve: the name within `curves`.
        ylabel, xlabel: with units.
        ax: where to draw; a new figure by default.

    Raises:
        ValueError: no row has the curve.
    """
    there = with_curve(frame, curve)
    ax = ax or beside_a_legend(there["arm"].unique())
    for number, (arm, rows) in enumerate(there.groupby("arm", sort=False)):
        values = stacked(rows["curves"], curve)
        colour, dash, _ = looks(number)
        x, mean = np.arange(1, values.shape[1] + 1), np.nanmean(values, axis=0)
        name = counted(arm, len(values))
        point = "o" if len(x) == 1 else ""  # a line through one step shows nothing
        ax.plot(x, mean, color=colour, linestyle=dash, marker=point, label=name)
        half = t_halfwidth(values)
        ax.fill_between(x, *band(curve, mean, half), color=colour, alpha=0.15, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="arm (seeds)", fontsize=8)
    return ax


def means(frame: pd.DataFrame, metric: str, *, label: str, ax: Axes | None = None) -> Axes:
    """Mean and 95 % t-interval per arm, over a strip of the seeds themselves.

    Args:
        frame: columns `arm`, `seed` and `metric`; rows where it is missing are left out.
        metric: the column.
        label: of the metric, with its unit.
        ax: where to draw; a new figure by default.
    """
    arms: Sequence[str] = list(dict.fromkeys(frame["arm"]))
    lines = max(counted(arm, "00").count("\n") for arm in arms) + 1
    height = 0.9 + (0.18 + 0.14 * lines) * len(arms)
    ax = ax or plt.subplots(figsize=(6.4, height), layout="constrained")[1]
    names = []
    for number, arm in enumerate(arms):
        values = frame.loc[frame["arm"] == arm, metric].dropna().to_numpy(dtype=float)
        names.append(counted(arm, len(values)))
        if not len(values):
            continue
        colour, _, marker = looks(number)
        # A fixed spread by rank keeps equal seeds apart, and the figure the same every time.
        offsets = np.linspace(-0.18, 0.18, len(values)) if len(values) > 1 else np.zeros(1)
        ax.scatter(values, number + offsets, s=14, color=colour, alpha=0.55, linewidths=0)
        half = t_halfwidth(values) if len(values) > 1 else np.nan
        ax.errorbar(
            values.mean(),
            number,
            xerr=half,
            fmt=marker,
            color=colour,
            capsize=3,
            markersize=8,
            markeredgecolor="black",
            ecolor="black",
            zorder=3,  # over its own seeds, which have its colour
        )
    ax.set(xlabel=f"{label}\npoints: seeds; bar: 95 % t-interval of the mean")
    ax.set_yticks(range(len(arms)), names)
    ax.set_ylim(len(arms) - 0.5, -0.5)
    return ax


ANSWERS = {
    "better": (PALETTE[2], "^", "full"),
    "worse": (PALETTE[1], "v", "full"),
    "equivalent": (PALETTE[0], "D", "full"),
    "undecided": ("0.45", "o", "none"),
}
"""answer → its colour, marker and filling, wherever answers are drawn."""


def forest(
    frame: pd.DataFrame, *, label: str, baseline: str, margin: float, ax: Axes | None = None
) -> Axes:
    """Paired differences against the baseline with their 95 % t-intervals, zero marked.

    Args:
        frame: columns `arm`, `n`, `mean`, `low`, `high`, `answer`; one row a comparison.
        label: of the metric, with its unit.
        baseline: the arm that was subtracted.
        margin: differences smaller than this do not matter; shaded.
        ax: where to draw; a new figure by default.
    """
    lines = max(counted(arm, "00").count("\n") for arm in frame["arm"]) + 1
    height = 1.1 + (0.16 + 0.14 * lines) * len(frame)
    ax = ax or plt.subplots(figsize=(6.4, height), layout="constrained")[1]
    ax.axvspan(-margin, margin, color="0.92", linewidth=0, zorder=0)
    for place, row in enumerate(frame.itertuples()):
        colour, marker, filling = ANSWERS[row.answer]
        ax.errorbar(
            row.mean,
            place,
            xerr=[[row.mean - row.low], [row.high - row.mean]],
            fmt=marker,
            fillstyle=filling,
            color=colour,
            capsize=3,
            markersize=6,
        )
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(frame)), [counted(row.arm, row.n) for row in frame.itertuples()])
    ax.set_ylim(len(frame) - 0.5, -0.5)
    ax.set_xlabel(
        f"{label}\narm minus {baseline}\nmean and 95 % t-interval; shaded: within the margin\n"
        "▲ better   ▼ worse   ◆ equivalent   ○ undecided"
    )
    return ax


def seeds_strip(frame: pd.DataFrame, metric: str, *, label: str, ax: Axes | None = None) -> Axes:
    """Every seed of every arm as a point, one grey line per seed: what pairing removes.

    Args:
        frame: columns `arm`, `seed` and `metric`.
        metric: the column.
        label: of the metric, with its unit.
        ax: where to draw; a new figure by default.
    """
    wide = frame.pivot_table(index="seed", columns="arm", values=metric)
    wide = wide[[arm for arm in dict.fromkeys(frame["arm"]) if arm in wide]]
    lines = max(counted(arm, "00").count("\n") for arm in wide.columns) + 1
    height = 0.9 + (0.18 + 0.14 * lines) * wide.shape[1]
    ax = ax or plt.subplots(figsize=(6.4, height), layout="constrained")[1]
    places = np.arange(wide.shape[1])
    for _, values in wide.iterrows():
        ax.plot(values, places, color="0.75", linewidth=0.8, zorder=1)
    for place, arm in enumerate(wide.columns):
        colour, _, marker = looks(place)
        values = wide[arm].dropna()
        ax.scatter(values, np.full(len(values), place), s=18, color=colour, marker=marker, zorder=2)
    counts = wide.notna().sum()
    ax.set_yticks(places, [counted(arm, counts[arm]) for arm in wide.columns])
    ax.set_ylim(len(places) - 0.5, -0.5)
    ax.set(xlabel=f"{label}\na line joins one seed")
    return ax
