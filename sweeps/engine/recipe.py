"""What is sent to a worker: everything it needs to compute a stage or a cell, as JSON values."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from cluster.queue import WorkItem
from cluster.traffic import Key, Message
from sweeps.engine.plan import Cell, StageWork
from sweeps.engine.provenance import source
from sweeps.engine.source import Step
from sweeps.engine.study import Request, Study
from sweeps.ledger.files import Store

EXECUTE = "sweeps.engine.worker:execute"


@dataclass(frozen=True, kw_only=True)
class Recipe(Message):
    """One cell, or one of the stages that it needs.

    Attributes:
        stage: key of the stage; None: the cell itself.
        key, arm, levels, config, seed: of the cell; `config` is without the seed.
        data, fingerprint, protocol: "name:path" of the dataset, and what it must be.
        study, core, results, objective: the ledger is `results`/`study`.
        token: of the lock on the ledger.
        keep: what is stored beside the cell.
        judged: what a pruner judges it by while it runs, of a search (`engine.judging`).
        git_commit, git_dirty: of the controller's checkout.
    """

    stage: str | None = None
    key: str
    arm: str
    levels: Mapping[str, str]
    config: Mapping[str, Any]
    seed: int
    data: str
    fingerprint: str
    protocol: str
    study: str
    core: str
    results: str
    objective: str
    token: str
    keep: tuple[str, ...] = ()
    judged: Mapping[str, Any] | None = None
    git_commit: str
    git_dirty: bool

    @property
    def ledger(self) -> Store:
        """Of the study."""
        return Store(self.results).child(self.study)


class Recipes:
    """The recipes of a study's work.

    Args:
        request: its protocol, and what is kept beside the cells.
        token: of the lock on the study's ledger.
        commit: what `provenance.source` says, where this process cannot know.
        deadline_s: a cell or stage without a sign of progress for so long is ended, and has failed.
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
            "keep": request.keep,
            **(source() if commit is None else commit),
        }

    def cell(self, cell: Cell, judged: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe of a cell; `judged` as in `Step`."""
        return Recipe(
            key=cell.key,
            arm=cell.arm.label,
            levels=cell.arm.text_levels,
            config=cell.arm.values,
            seed=cell.seed,
            data=cell.arm.data,
            fingerprint=cell.fingerprint,
            judged=judged,
            **self._common,
        )

    def stage(self, work: StageWork) -> Recipe:
        """The recipe of a stage: that of a cell which needs it, and the stage's key."""
        return replace(self.cell(work.cell), stage=work.key)

    def items(self, step: Step, cost_s: float = 0.0) -> list[WorkItem]:
        """A step as the queue takes it: its stages, and its cell last."""
        stages = [
            WorkItem(
                id=Key(work.key),
                payload=self.stage(work).to_json(),
                needs=work.needs,
                turn=step.turn,
                deadline_s=self._deadline_s,
            )
            for work in step.stages
        ]
        cell = WorkItem(
            id=Key(step.cell.key),
            payload=self.cell(step.cell, step.judged).to_json(),
            needs=tuple(work.key for work in step.stages),
            arm=step.cell.arm.label,
            cost_s=cost_s,
            turn=step.turn,
            deadline_s=self._deadline_s,
        )
        return [*stages, cell]
