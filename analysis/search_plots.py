"""The slices of a search: the objective of every proposal against each axis."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import plots
from analysis.searches import axes_of, read_trials
from sweeps.ledger.files import Store


def slice_plot(trials: pd.DataFrame, axis: str, *, ax: Axes) -> Axes:
    """The objective of each proposal against one axis; hollow where the arm was stopped early.

    Args:
        trials: one group's proposals: `number`, `state`, `objective` and the axis.
    """
    here = trials.dropna(subset=[axis, "objective"])
    for state, filled in (("complete", True), ("stopped", False)):
        part = here[here["state"] == state]
        ax.plot(
            part[axis],
            part["objective"],
            "o",
            color=plots.PALETTE[0],
            mfc=plots.PALETTE[0] if filled else "none",
            alpha=0.7,
            label=f"{state} (n = {len(part)})",
        )
    default = here[here["number"] == trials["number"].min()]
    ax.plot(default[axis], default["objective"], "D", color=plots.PALETTE[1], label="default")
    if pd.api.types.is_numeric_dtype(here[axis]):
        values = here[axis].to_numpy(dtype=float)
        if len(values) and values.min() > 0 and values.max() / values.min() > 30:
            ax.set_xscale("log")
    ax.set(xlabel=axis, ylabel="objective,\nmean over tuning seeds")
    return ax


def search_figures(store: Store) -> Iterator[tuple[str, Figure]]:
    """(name, figure): one per group, a slice per axis."""
    trials = read_trials(store)
    if trials is None:
        return
    for number, (group, rows) in enumerate(trials.groupby("group", sort=False)):
        axes = [name for name in axes_of(trials) if rows[name].notna().any()]
        columns = min(3, len(axes))
        lines = -(-len(axes) // columns)
        figure, grid = plt.subplots(
            lines,
            columns,
            figsize=(3.4 * columns, 2.6 * lines),
            layout="constrained",
            squeeze=False,
        )
        for place, axis in zip(grid.flat, axes, strict=False):
            slice_plot(rows, axis, ax=place)
        for place in grid.flat[len(axes) :]:
            place.set_axis_off()
        for place in grid[:, 1:].flat:
            place.set_ylabel("")
        grid.flat[0].legend(fontsize=7)
        figure.suptitle(f"search, {group}: {len(rows)} proposals" if group else "search")
        yield f"search_slices_{number + 1}", figure
