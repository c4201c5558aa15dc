"""What a run keeps in memory does not grow with the cells that it has finished."""

import gc
import io
import tracemalloc
from dataclasses import replace

import pytest
import toy_study
from rich.console import Console

from sweeps.engine.display import Display
from sweeps.engine.plan import make_plan
from sweeps.engine.recipe import Recipes
from sweeps.engine.run import run_inline
from sweeps.engine.source import Grid
from sweeps.engine.study import Request
from sweeps.ledger.files import Store
from sweeps.ledger.lock import Lock

WARM = 10  # cells
BYTES_PER_CELL = 2000  # what pyarrow keeps fits; a row, predictions or arrays would not


@pytest.mark.long
def test_memory_is_flat_in_the_number_of_finished_cells(tmp_path):
    # One seed: its stages are in memory before the first cell is over.
    ridges = tuple(0.1 + i / 100 for i in range(35))
    study = replace(toy_study.STUDY, factors={"ridge": ridges}, baseline={})
    plan = make_plan(study, Request(seeds="1"), results=str(tmp_path), retry_failed=False)
    for cell in plan.todo:  # kept once an arm, and here each cell is an arm of its own
        assert cell.arm.values
        assert cell.arm.label
    held = []

    class Watched(Display):
        def record_end(self, *args, **named) -> None:
            super().record_end(*args, **named)
            if self.finished == WARM:  # imports and caches are there
                tracemalloc.start()
            elif self.finished == len(plan.todo):
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])

    display = Watched(
        Console(file=io.StringIO()), total=len(plan.keys), committed=0, todo=len(plan.todo),
        stages=[work.key for work in plan.stages], quiet=True, tell=lambda *_: None,
        tell_every_s=60.0,
    )  # fmt: skip
    ledger = Store(tmp_path).child(study.name)
    with Lock(ledger) as lock:
        recipes = Recipes(study, Request(), results=str(tmp_path), token=lock.token)
        try:
            run_inline(Grid(plan, ledger), recipes, display)
        finally:
            tracemalloc.stop()
    growth = held[0] / (len(plan.todo) - WARM)
    assert growth < BYTES_PER_CELL, f"{growth:.0f} bytes a cell"
