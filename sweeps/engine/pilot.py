"""`--plan --pilot`: one cell of every arm is computed, and kept, so that the plan can be priced."""

from sweeps.engine.pace import duration
from sweeps.engine.plan import Cell, Plan, stage_store
from sweeps.engine.source import Grid
from sweeps.engine.stages import stated_seconds
from sweeps.ledger.files import Store
from sweeps.ledger.read import read_table

HOUR_S = 3600.0


class Pilot(Grid):
    """The first missing cell of every arm of which none is there."""

    def __init__(self, plan: Plan, ledger: Store) -> None:
        super().__init__(plan, ledger)
        seen = {id(cell.arm) for cell in plan.cells if cell.key in plan.done}
        first: dict[int, Cell] = {}
        for cell in self._cells:
            if id(cell.arm) not in seen:
                first.setdefault(id(cell.arm), cell)
        self._cells = iter(first.values())
        self._left = len(first)


def price(plan: Plan, results: str, gpus_per_slot: float) -> str:
    """What the cells that are left would cost, each at the price of its own arm, in slot-hours.

    An arm without a cell is priced as the mean of the others; stages as those that are stored.

    Args:
        gpus_per_slot: turns slot-hours into GPU-hours; 0: there are none.
    """
    ledger = Store(results).child(plan.study.name)
    table, _ = read_table(ledger, "cells", set(plan.done), ["arm", "wall_s"])
    of_arm: dict[str, list[float]] = {}
    for arm, seconds in zip(table["arm"].to_pylist(), table["wall_s"].to_pylist(), strict=True):
        of_arm.setdefault(arm, []).append(seconds)
    if not of_arm:
        return "price: unknown, no cell of the pilot was finished"
    mean = {arm: sum(seconds) / len(seconds) for arm, seconds in of_arm.items()}
    usual = sum(mean.values()) / len(mean)
    cells = sum(mean.get(cell.arm.label, usual) for cell in plan.todo)
    store = stage_store(results).store
    stored = {w.key.rpartition("-")[0]: 0.0 for w in plan.stages}
    counts = dict.fromkeys(stored, 0)
    for name in store.names("", ".json"):
        kind = name.rpartition("-")[0]
        if kind in stored and (seconds := stated_seconds(store, name[:-5])) is not None:
            stored[kind] += seconds
            counts[kind] += 1
    stages = sum(
        stored[kind] / counts[kind]
        for kind in (w.key.rpartition("-")[0] for w in plan.stages)
        if counts[kind]
    )
    total, left = cells + stages, len(plan.todo)
    low, high = (left * limit(mean.values()) + stages for limit in (min, max))
    gpu = f", {total / HOUR_S * gpus_per_slot:.2f} GPU-hours" if gpus_per_slot else ""
    return (
        f"price of the {left} cells that are left: {total / HOUR_S:.2f} slot-hours{gpu} "
        f"({duration(total)} ÷ slots; {duration(low)} to {duration(high)} if all were as the "
        f"quickest or the slowest arm), from {table.num_rows} cells of {len(of_arm)} arms"
    )
