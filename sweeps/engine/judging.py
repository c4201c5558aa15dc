"""`--prune`: a search's pruner hears a cell of it while it runs, and may end it.

What the pruner compares with goes with the recipe, and the worker asks it: a verdict waits for no
other process, and is a function of the recipe and of the cell's own curve.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from imaging_core.task import Progress
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_table
from sweeps.search.space import Problem
from sweeps.search.trials import Trial

if TYPE_CHECKING:
    from sweeps.engine.plan import Plan
    from sweeps.search.cell_pruner import CellPruner

Curve = tuple[float, ...]
_curves: dict[tuple[str, str], Curve] = {}  # (ledger, key) → of a committed cell, which never moves


class Ended(Exception):
    """The pruner ends the cell at this step of its curve, from 1."""

    def __init__(self, step: int, curve: Curve) -> None:
        super().__init__(f"ended by the pruner at step {step}")
        self.step, self.curve = step, curve


class Judge:
    """A core's progress callback that asks the pruner at every new step of a cell's curve.

    Args:
        judged: of the recipe, as `judgement` makes it.
        progress: hears everything first.
    """

    def __init__(self, judged: Mapping[str, Any], progress: Progress) -> None:
        self._judged, self._progress = judged, progress
        self._pruner: CellPruner | None = None  # Optuna takes a while to import

    def __call__(
        self, done: float, note: str = "", curves: Mapping[str, Sequence[float]] | None = None
    ) -> None:
        """Raises `Ended`; a cell that has come to its end is not ended."""
        self._progress(done, note, curves)
        curve = (curves or {}).get(self._judged["curve"], ())
        if len(curve) and done < 1.0:
            step = self._asked.hear(curve)
            if step is not None:
                raise Ended(step, tuple(map(float, curve[:step])))

    @property
    def _asked(self) -> "CellPruner":
        if self._pruner is None:
            from sweeps.search.cell_pruner import CellPruner, Known

            judged = self._judged
            self._pruner = CellPruner(
                judged["by"],
                name=judged["name"],
                maximize=judged["maximize"],
                known=[Known(place=p, curve=c, pruned=e) for p, c, e in judged["known"]],
            )
            self._pruner.begin(judged["place"])
        return self._pruner


def record_end(store: Store, judged: Mapping[str, Any], row: Mapping[str, Any], end: Ended) -> None:
    """Write down that the cell was ended: beside its proposal, and never as a cell."""
    content = {
        "key": row["key"],
        "arm": row["arm"],
        "seed": row["seed"],
        "by": judged["by"],
        "curve": judged["curve"],
        "step": end.step,
        "values": list(end.curve),
    }
    store.write(judged["record"], json.dumps(content, indent=1).encode())


def ended_cells(store: Store, folder: str) -> dict[str, Curve]:
    """Key → the curve of each cell that was ended, of the sequence of proposals in `folder`."""
    found = {}
    for name in store.names(_folder(folder), ".json"):
        key = name.removesuffix(".json")
        place = (f"{store.root}/{folder}", key)
        if place not in _curves:
            content = json.loads(store.read(f"{_folder(folder)}/{name}"))
            _curves[place] = tuple(content["values"])
        found[key] = _curves[place]
    return found


def _folder(folder: str) -> str:
    return f"{folder}/ended"


def judgement(
    store: Store, folder: str, problem: Problem, curve: str, trials: Sequence[Trial], plan: "Plan"
) -> dict[str, Any]:
    """What the last of `trials` is judged by on the first seed, as a recipe takes it.

    Args:
        folder: of the sequence of proposals.
        curve: whose best value so far is heard.
        trials: of one group, in order; the last one is judged, by those that it may know.
        plan: of `trials`.
    """
    place, seed = len(trials) - 1, problem.seeds[0]
    ended, committed = ended_cells(store, folder), _committed(store, curve, plan.done)
    known, record = [], ""
    for position, arm in enumerate(plan.arms):
        (key,) = (c.key for c in plan.cells if c.arm is arm and c.seed == seed)
        if position == place:
            record = f"{_folder(folder)}/{key}.json"
        elif position < (problem.round_start(place) if problem.round else place):
            values = ended.get(key) or committed.get(key)
            if values:
                known.append([position, list(values), key in ended])
    return {
        "by": problem.prune,
        "curve": curve,
        "name": f"{problem.name}/{trials[-1].group}",
        "maximize": problem.maximize,
        "place": place,
        "known": known,
        "record": record,
    }


def _committed(store: Store, curve: str, keys: set[str]) -> dict[str, Curve]:
    """Key → the curve of each committed cell that has it; each is read once by a process."""
    missing = {key for key in keys if (store.root, key) not in _curves}
    table, _ = read_table(store, "cells", missing, ["key", "curves"])
    for row in table.to_pylist():
        _curves[store.root, row["key"]] = tuple(dict(row["curves"]).get(curve, ()))
    return {key: _curves[store.root, key] for key in keys if (store.root, key) in _curves}
