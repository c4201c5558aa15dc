"""Figures as functions of a frame: each returns its axes, opens no file, and states units and n."""

from collections.abc import Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from scipy import stats

STYLE = {
    "figure.dpi": 100,
    "savefig.dpi": 200,
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


def style() -> "mpl.RcParams":
    """The one style, as a context: `with style(): ...`."""
    return mpl.rc_context({**sns.axes_style("ticks"), **STYLE})


def looks(number: int) -> tuple[str, object, str]:
    """Colour, dash and marker of the `number`-th arm; beyond seven, colours repeat with others."""
    return (
        PALETTE[number % len(PALETTE)],
        DASHES[(number + number // len(PALETTE)) % len(DASHES)],
        MARKERS[(number + number // len(PALETTE)) % len(MARKERS)],
    )


def t_halfwidth(values: np.ndarray) -> np.ndarray:
    """Half width of the 95 % t-interval of the mean over axis 0; NaN below two values.

    Args:
        values: (n, ...), NaN where a value is missing.
    """
    n = np.sum(~np.isnan(values), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        std = np.sqrt(np.nansum((values - np.nanmean(values, axis=0)) ** 2, axis=0) / (n - 1))
        return stats.t.ppf(0.975, n - 1) * std / np.sqrt(n)


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
    there = frame[[isinstance(c, dict) and curve in c for c in frame["curves"]]]
    if there.empty:
        raise ValueError(f"no cell has the curve {curve!r}")
    ax = ax or plt.subplots(figsize=(6.4, 3.6), layout="constrained")[1]
    for number, (arm, rows) in enumerate(there.groupby("arm", sort=False)):
        curves = [np.asarray(c[curve], dtype=float) for c in rows["curves"]]
        steps = max(map(len, curves))
        values = np.full((len(curves), steps), np.nan)
        for line, one in zip(values, curves, strict=True):
            line[: len(one)] = one
        colour, dash, _ = looks(number)
        x, mean = np.arange(1, steps + 1), np.nanmean(values, axis=0)
        ax.plot(x, mean, color=colour, linestyle=dash, label=f"{arm} (n = {len(curves)})")
        half = t_halfwidth(values)
        ax.fill_between(x, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
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
    height = 0.9 + 0.32 * len(arms)
    ax = ax or plt.subplots(figsize=(6.4, height), layout="constrained")[1]
    names = []
    for number, arm in enumerate(arms):
        values = frame.loc[frame["arm"] == arm, metric].dropna().to_numpy(dtype=float)
        names.append(f"{arm} (n = {len(values)})")
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
            markersize=6,
            markeredgecolor="white",
        )
    ax.set(xlabel=f"{label}; points are seeds, bar is the 95 % t-interval of the mean")
    ax.set_yticks(range(len(arms)), names)
    ax.set_ylim(len(arms) - 0.5, -0.5)
    return ax
