"""Figures over the levels of factors: a heat map of two, and lines or points along one."""

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.plots import LABEL, beside_a_legend, counted, looks, t_halfwidth

SHORT_LABEL = 25  # characters a line beside a low panel
LEAST_RANGE = 0.2
"""A scale of colours that is narrower makes noise look like an effect."""


def colour_limits(values: np.ndarray) -> tuple[float, float]:
    """From the lowest to the highest value, or LEAST_RANGE around their middle where that is more.

    Args:
        values: any shape, NaN where there is none.
    """
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    missing = max(0.0, LEAST_RANGE - (high - low))
    return low - missing / 2, high + missing / 2


def heat_map(
    frame: pd.DataFrame,
    rows: str,
    columns: str,
    metric: str,
    *,
    label: str,
    row_order: Sequence[str],
    column_order: Sequence[str],
    ax: Axes | None = None,
) -> Axes:
    """Mean of `metric` over two factors, each field with its 95 % t-interval and n.

    Args:
        frame: columns `rows`, `columns`, `metric`.
        rows, columns: names of the factor columns.
        metric: the column.
        label: of the metric, with its unit.
        row_order, column_order: the levels as they are to stand.
        ax: where to draw; a new figure by default.
    """
    values = np.full((len(row_order), len(column_order)), np.nan)
    texts = np.full(values.shape, "n = 0", dtype=object)
    for r, row in enumerate(row_order):
        for c, column in enumerate(column_order):
            chosen = (frame[rows] == row) & (frame[columns] == column)
            here = frame.loc[chosen, metric].dropna().to_numpy(dtype=float)
            if len(here):
                values[r, c] = here.mean()
                half = t_halfwidth(here) if len(here) > 1 else np.nan
                spread = f"\n± {half:.3f}" if np.isfinite(half) else ""
                texts[r, c] = f"{here.mean():.3f}{spread}\nn = {len(here)}"
    size = (max(2.2 + 1.0 * len(column_order), 5.6), 1.2 + 0.72 * len(row_order))
    ax = ax or plt.subplots(figsize=size, layout="constrained")[1]
    limits = colour_limits(values) if np.isfinite(values).any() else (0.0, 1.0)
    sns.heatmap(
        pd.DataFrame(values, index=list(row_order), columns=list(column_order)),
        annot=texts,
        fmt="",
        cmap="cividis",
        vmin=limits[0],
        vmax=limits[1],
        annot_kws={"fontsize": 8},
        cbar_kws={"label": "\n".join(textwrap.wrap(label, 24))},
        linewidths=0.5,
        ax=ax,
    )
    ax.set(xlabel=columns.removeprefix("factor."), ylabel=rows.removeprefix("factor."))
    ax.tick_params(axis="y", rotation=0)
    ax.tick_params(axis="x", rotation=0 if max(map(len, column_order)) <= 10 else 30)
    return ax


def specification_curve(
    arms: pd.DataFrame, factors: Sequence[str], *, label: str, baseline: Mapping[str, str]
) -> Axes:
    """Every arm from the lowest mean to the highest with its 95 % t-interval, and under each the
    levels that differ from the baseline's. Simonsohn, Simmons and Nelson 2020, "Specification curve
    analysis".

    Args:
        arms: a row for each arm: `mean`, `half` (NaN: no interval), and a column for each factor.
        factors: columns, from top to bottom.
        label: of the metric, with its unit.
        baseline: factor → level; the arm that has all of them is marked.
    """
    arms = arms.sort_values("mean", kind="stable").reset_index(drop=True)
    moved = np.array([[arms[f][i] != baseline.get(f) for f in factors] for i in arms.index])
    _, (ax, below) = plt.subplots(
        2,
        1,
        sharex=True,
        figsize=(max(5.6, 1.8 + 0.16 * len(arms)), 2.8 + 0.2 * len(factors)),
        height_ratios=(2.2, 0.2 * len(factors) + 0.2),
        layout="constrained",
    )
    x, is_baseline = arms.index.to_numpy(), ~moved.any(axis=1)
    half = np.nan_to_num(arms["half"].to_numpy(dtype=float))
    for chosen, number, name in ((~is_baseline, 0, "other arms"), (is_baseline, 1, "baseline")):
        if not chosen.any():
            continue
        colour, _, marker = looks(number)
        mean = arms["mean"].to_numpy(dtype=float)[chosen]
        ax.errorbar(
            x[chosen], mean, yerr=half[chosen], fmt=marker, color=colour, markersize=4, capsize=1.5,
            linewidth=0.8, label=name,
        )  # fmt: skip
    ax.set(ylabel=textwrap.fill(f"{label}, mean and 95 % t-interval", SHORT_LABEL))
    ax.legend(fontsize=8)
    place, arm = np.nonzero(moved.T)
    below.scatter(arm, place, s=9, color=looks(0)[0], marker="s")
    below.set_yticks(range(len(factors)), [textwrap.shorten(f, 40) for f in factors], fontsize=8)
    below.set(ylim=(len(factors) - 0.4, -0.6), xlabel="arms by their mean; ■: another level")
    below.set_xticks([])
    return ax


def performance_profile(frame: pd.DataFrame, *, label: str, ax: Axes | None = None) -> Axes:
    """A line per arm: the share of its runs on all tasks above each score, with its band.

    Args:
        frame: of `analysis.profiles.profiles`.
        label: of the metric.
        ax: where to draw; a new figure by default.
    """
    ax = ax or beside_a_legend(frame["arm"].unique())
    for number, (arm, rows) in enumerate(frame.groupby("arm", sort=False)):
        colour, dash, _ = looks(number)
        name = counted(arm, f"{rows['runs'].iloc[0]}")
        ax.plot(rows["threshold"], rows["share"], color=colour, linestyle=dash, label=name)
        ax.fill_between(
            rows["threshold"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0
        )
    text = f"score τ of {label} (0: mean of a task's worst arm, 1: of its best)"
    ax.set(
        xlabel=textwrap.fill(text, 2 * LABEL), ylabel="share of runs above τ", ylim=(-0.02, 1.02)
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="arm (runs)", fontsize=8)
    return ax


def level_curves(
    frame: pd.DataFrame,
    along: str,
    metric: str,
    *,
    order: Sequence[str],
    label: str,
    xlabel: str,
    ordered: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """An arm's means over the levels of one factor (k of k-shot), with 95 % t-intervals.

    Levels stand at equal distances, so that "all" has its place. A line joins them where they have
    an order; between names there is nothing, and arms stand side by side.

    Args:
        frame: columns `arm`, `along`, `metric`.
        along: the column of levels.
        metric: the column.
        order: the levels from left to right.
        label, xlabel: with units.
        ordered: whether the levels are numbers.
        ax: where to draw; a new figure by default.
    """
    ax = ax or beside_a_legend(frame["arm"].unique())
    arms = frame["arm"].nunique()
    for number, (arm, rows) in enumerate(frame.groupby("arm", sort=False)):
        here = [rows.loc[rows[along] == x, metric].dropna().to_numpy(dtype=float) for x in order]
        mean = np.array([v.mean() if len(v) else np.nan for v in here])
        half = np.array([t_halfwidth(v) if len(v) > 1 else 0.0 for v in here])
        colour, dash, marker = looks(number)
        counts = sorted({len(v) for v in here})
        n = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
        name = counted(arm, n)
        x = np.arange(len(order), dtype=float)
        if not ordered:
            x += 0.5 * ((number + 0.5) / arms - 0.5)
            ax.errorbar(
                x, mean, yerr=half, fmt=marker, color=colour, markersize=5, capsize=2, label=name
            )
            continue
        ax.plot(x, mean, color=colour, linestyle=dash, marker=marker, markersize=4, label=name)
        ax.fill_between(x, mean - half, mean + half, color=colour, alpha=0.15, linewidth=0)
    ax.set_xticks(range(len(order)), list(order))
    text = textwrap.fill(f"{label}, mean and 95 % t-interval", LABEL)
    ax.set(xlabel=xlabel, ylabel=text)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), title="arm (seeds)", fontsize=8)
    return ax
