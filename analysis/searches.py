"""What a search found, from the files it left in `<study>/search/`.

`trials.csv` has a row per proposal, `importance.csv` the share of the objective's variance that
each axis explains, `winners.json` the best point of each group.
"""

import io
import json

import pandas as pd

from analysis.table import MISSING, Entry, Row, Table
from sweeps.ledger.files import Store

TRIALS, IMPORTANCE, WINNERS = (
    f"search/{name}" for name in ("trials.csv", "importance.csv", "winners.json")
)
COLUMNS = ("number", "group", "state", "seeds", "objective", "ended_in")
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


def search_bytes(store: Store) -> bytes:
    """What the figures are drawn from; empty where the study is no search's."""
    return store.read(TRIALS) if store.exists(TRIALS) else b""
