"""What a search found, from the files it left in `<study>/search/`: tables and slices.

`trials.csv` has a row per proposal, `importance.csv` the share of the objective's variance that
each axis explains, `winners.json` the best point of each group.
"""

import io
import json
from collections.abc import Iterator

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import plots
from analysis.model import MISSING, Entry, Row, Table
from sweeps.ledger.files import Store

TRIALS, IMPORTANCE, WINNERS = (
    f"search/{name}" for name in ("trials.csv", "importance.csv", "winners.json")
)
COLUMNS = ("number", "group", "state", "seeds", "objective")
"""The columns of trials.csv that are no axis."""


def read_trials(store: Store) -> pd.DataFrame | None:
    """The proposals of the search that the study reports on; None where it is no search's."""
    if not store.exists(TRIALS):
        return None
    return pd.read_csv(io.BytesIO(store.read(TRIALS)), keep_default_na=True).fillna({"group": ""})


def axes_of(trials: pd.DataFrame) -> list[str]:
    """The axes of the space, as declared."""
    return [name for name in trials.columns if name not in COLUMNS]


def _shown(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def settings_table(store: Store) -> Table | None:
    """Default and tuned settings side by side, with the importance of each axis."""
    trials = read_trials(store)
    if trials is None:
        return None
    winners = json.loads(store.read(WINNERS))
    found = pd.read_csv(io.BytesIO(store.read(IMPORTANCE))).fillna({"group": ""})
    shares = {(row.group, row.axis): row.importance for row in found.itertuples()}
    rows = []
    for group, winner in winners.items():
        for axis in axes_of(trials):
            if axis not in winner["default"] and axis not in winner["point"]:
                continue
            share = shares.get((group, axis))
            rows.append(
                Row(
                    label=f"{group}: {axis}" if group else axis,
                    group=group,
                    entries=(
                        Entry(text=_shown(winner["default"].get(axis, MISSING))),
                        Entry(text=_shown(winner["point"].get(axis, MISSING))),
                        Entry(text=MISSING if share is None else f"{share:.0%}"),
                    ),
                )
            )
    states = trials["state"].value_counts()
    counted = ", ".join(f"{n} {state}" for state, n in states.items())
    return Table(
        name="search_settings",
        title="Settings that the search chose",
        stub="setting",
        columns=("default", "tuned", "importance"),
        rows=tuple(rows),
        notes=(
            f"{len(trials)} proposals: {counted}; chosen on the tuning seeds alone.",
            "importance: share of the variance of the objective over the complete proposals that "
            "the axis explains (fANOVA); — where the axis is conditional or there are too few.",
        ),
    )


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
    ax.set(xlabel=axis, ylabel="objective, mean over tuning seeds")
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


def search_bytes(store: Store) -> bytes:
    """What the figures are drawn from; empty where the study is no search's."""
    return store.read(TRIALS) if store.exists(TRIALS) else b""
