"""What is sent to a worker: everything it needs to compute a stage or a cell, as JSON values."""

from collections.abc import Mapping
from typing import Any

from cluster.queue import WorkItem
from sweeps.engine.plan import Cell, StageWork
from sweeps.engine.provenance import source
from sweeps.engine.source import Step
from sweeps.engine.study import Request, Study
from sweeps.ledger.files import Store

EXECUTE = "sweeps.engine.worker:execute"


class Recipes:
    """The recipes of a study's work.

    Args:
        request: its protocol, and what is kept beside the cells.
        token: of the lock on the study's ledger.
        commit: what `provenance.source` says, where this process cannot know.
        deadline_s: a cell or stage that runs longer is ended and counts as failed.
    """

    def __init__(
        self,
        study: Study,
        request: Request,
        *,
        results: str,
        token: str,
        commit: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
    ) -> None:
        self.ledger, self.token = Store(results).child(study.name), token
        self._deadline_s = deadline_s
        self._common = {
            "study": study.name,
            "core": study.core,
            "results": results,
            "token": token,
            "protocol": request.protocol,
            "objective": study.objective,
            "keep": list(request.keep),
            **(source() if commit is None else commit),
        }

    def cell(self, cell: Cell) -> dict[str, Any]:
        """The recipe of a cell."""
        return {
            "kind": "cell",
            "key": cell.key,
            "arm": cell.arm.label,
            "levels": cell.arm.text_levels,
            "config": cell.arm.values,
            "seed": cell.seed,
            "data": cell.arm.data,
            "fingerprint": cell.fingerprint,
            **self._common,
        }

    def stage(self, work: StageWork) -> dict[str, Any]:
        """The recipe of a stage: that of a cell which needs it, and the stage's key."""
        return {**self.cell(work.cell), "kind": "stage", "stage": work.key}

    def items(self, step: Step, cost_s: float = 0.0) -> list[WorkItem]:
        """A step as the queue takes it: its stages, and its cell last."""
        stages = [
            WorkItem(
                id=work.key,
                payload=self.stage(work),
                needs=work.needs,
                turn=step.turn,
                deadline_s=self._deadline_s,
            )
            for work in step.stages
        ]
        cell = WorkItem(
            id=step.cell.key,
            payload=self.cell(step.cell),
            needs=tuple(work.key for work in step.stages),
            arm=step.cell.arm.label,
            cost_s=cost_s,
            turn=step.turn,
            deadline_s=self._deadline_s,
        )
        return [*stages, cell]
