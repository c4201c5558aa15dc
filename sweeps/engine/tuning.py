"""A search and its ledger: proposals written down before they run, and what came of each.

    results/<name>_tuning/
      proposals/<space>/00007.json           one proposal, immutable
      proposals/<space>/00007.stopped.json   it was hopeless, and against which one
      proposals/<space>/ended/<key>.json     its cell, ended while it ran, and its curve until then
      cells/, failures/, …                  as in every ledger
      optuna.db                             Optuna's studies, built anew at each start

`<space>` is a hash of all that gives a proposal its meaning: another preset, dataset, range, set of
compared levels or size of a round starts another sequence. Seeds and the number of trials are not
in it: raising them only adds.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.queue import WorkItem
from imaging_core.fields import build
from sweeps.engine.judging import Curve, ended_cells, judgement
from sweeps.engine.plan import Cell, Plan, manifest_of, plan_arms
from sweeps.engine.recipe import Recipes
from sweeps.engine.source import Step
from sweeps.engine.study import Arm, Request, Study
from sweeps.ledger.commit import write_manifest
from sweeps.ledger.files import Store
from sweeps.ledger.lock import must_hold
from sweeps.ledger.read import read_manifest, read_metric
from sweeps.ledger.schema import Manifest, PlannedCell, canonical
from sweeps.search.space import Problem
from sweeps.search.trials import COMPLETE, FAILED, OPEN, STOPPED, Trial

if TYPE_CHECKING:
    from cluster.drive import Experiment
    from sweeps.engine.search import Search
    from sweeps.search.campaign import Campaign

TRIAL = "trial"


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """A search with the command line applied, and its ledger; plain values, so it travels.

    Attributes:
        search: as declared, `compare` restricted.
        request: of the reporting study; `--set` is in `shared` and `problem` already.
        problem: what the sampler sees.
        shared: the fields of every arm, preset and `--set` included.
        data, fingerprint: the dataset.
        reporting_seeds: disjoint from `problem.seeds`.
        notes: what of the preset gave way to the data, a line each.
        results: folder or URI of all studies.
        token: of the lock on the tuning ledger, once this process has it.
        commit: of the checkout, as `provenance.source` says; cells carry it.
        retry_failed: whether a proposal with a failed cell is computed again.
        deadline_s: as in `Recipes`.
    """

    search: "Search"
    request: Request
    problem: Problem
    shared: Mapping[str, Any]
    data: str
    fingerprint: str
    reporting_seeds: tuple[int, ...]
    notes: tuple[str, ...] = ()
    results: str
    token: str = ""
    commit: Mapping[str, Any] = field(default_factory=dict)
    retry_failed: bool = False
    deadline_s: float | None = None

    @property
    def name(self) -> str:
        """Of the ledger's folder."""
        return f"{self.search.name}_tuning"

    @property
    def store(self) -> Store:
        """The tuning ledger."""
        return Store(self.results).child(self.name)

    @property
    def folder(self) -> str:
        """Where this space's proposals are, in the ledger."""
        task, problem = self.search.task, self.problem
        identity = {
            "core": [task.name, task.version],
            "shared": dict(self.shared),
            "groups": dict(problem.groups),
            "space": [[name, _plain(axis)] for name, axis in problem.space.items()],
            "data": self.fingerprint,
            "objective": self.search.objective,
            "seed": problem.seed,
            **({"round": problem.round} if problem.round else {}),
            **({"prune": problem.prune} if problem.prune else {}),
        }
        digest = hashlib.sha256(canonical(identity).encode()).hexdigest()
        return f"proposals/{digest[:12]}"

    def read(self) -> list[Trial]:
        """Every proposal on file, in order, without what came of it."""
        names = [n for n in self.store.names(self.folder, ".json") if n[:-5].isdigit()]
        found = [json.loads(self.store.read(f"{self.folder}/{name}")) for name in names]
        return [Trial(number=p["number"], group=p["group"], params=p["point"]) for p in found]

    def known(self) -> list[Trial]:
        """Every proposal on file with its state and its values, from the committed cells."""
        trials = self.read()
        plan = self.plan(trials)
        values = self._values(plan)
        stopped = {n[:-13] for n in self.store.names(self.folder, ".stopped.json")}
        ended = self.ended
        ended_in = {id(cell.arm): cell.seed for cell in plan.cells if cell.key in ended}
        with_failures = {id(cell.arm) for cell in plan.cells if cell.key in plan.failed}
        for trial, arm in zip(trials, plan.arms, strict=True):
            trial.values = values[arm.label]
            if len(trial.values) == len(self.problem.seeds):
                trial.state = COMPLETE
            elif _leaf(trial.number) in stopped or id(arm) in ended_in:
                trial.state, trial.ended_in = STOPPED, ended_in.get(id(arm))
            elif id(arm) in with_failures and not self.retry_failed:
                trial.state = FAILED
        return trials

    @property
    def ended(self) -> Mapping[str, Curve]:
        """Key → the curve of each cell that a pruner ended while it ran."""
        return ended_cells(self.store, self.folder) if self.problem.prune else {}

    def _values(self, plan: Plan) -> dict[str, dict[int, float]]:
        values = read_metric(self.store, set(plan.done), self.search.objective)
        found: dict[str, dict[int, float]] = {arm.label: {} for arm in plan.arms}
        for cell in plan.cells:
            if cell.key in values:
                found[cell.arm.label][cell.seed] = values[cell.key]
        return found

    def record(self, trial: Trial) -> dict[int, float]:
        """Write the proposal down, and its cells into the plan that `status.py` shows.

        Returns:
            seed → objective of the cells that are there, from another space's proposals perhaps.

        Raises:
            LedgerError: this controller no longer holds the ledger.
        """
        must_hold(self.store, self.token)
        content = {
            "number": trial.number,
            "group": trial.group,
            "point": dict(trial.params),
        }
        name = f"{self.folder}/{_leaf(trial.number)}.json"
        self.store.write(name, json.dumps(content, indent=1).encode())
        plan = self.plan([trial])
        self._add_to_manifest(trial, plan)
        return self._values(plan)[plan.arms[0].label]

    def record_stop(self, trial: Trial, best: Trial) -> None:
        """Write down that the arm was hopeless after these seeds."""
        must_hold(self.store, self.token)
        content = {
            "number": trial.number,
            "lost_to": best.number,
            "seeds": list(trial.values),
        }
        name = f"{self.folder}/{_leaf(trial.number)}.stopped.json"
        self.store.write(name, json.dumps(content, indent=1).encode())

    def arm(self, trial: Trial) -> Arm:
        """The proposal as an arm of the tuning ledger."""
        fields = self.problem.groups[trial.group]
        config = build(
            self.search.task.config,
            {**self.shared, **fields, **trial.params},
        )
        levels = {**fields, TRIAL: trial.number}
        return Arm(levels=levels, config=config, data=self.data)

    @property
    def _study(self) -> Study:
        return replace(
            self.search.as_study,
            name=self.name,
            question=f"Which settings are best? ({self.search.question})",
            tables=(),
        )

    def plan(self, trials: Sequence[Trial], *, retry_failed: bool = False) -> Plan:
        """What of the proposals is there, and what is left."""
        numbers = tuple(p.number for p in trials)
        return plan_arms(
            replace(self._study, factors={**self.search.compare, TRIAL: numbers}),
            self.request,
            self.problem.seeds,
            [self.arm(p) for p in trials],
            {self.data: self.fingerprint},
            results=self.results,
            retry_failed=retry_failed,
        )

    def write_manifest(self, trials: Sequence[Trial]) -> None:
        """`study.json` of the tuning ledger, without what an arm that is over never computed."""
        plan = self.plan(trials)
        over = {
            arm.label
            for p, arm in zip(trials, plan.arms, strict=True)
            if p.state in (STOPPED, FAILED)
        }
        there = plan.done | plan.failed
        cells = tuple(c for c in plan.cells if c.arm.label not in over or c.key in there)
        plan = replace(plan, cells=cells)
        baseline = plan.arms[0].levels if plan.arms else {}
        plan = replace(plan, study=replace(plan.study, baseline=baseline))
        space = {name: _plain(axis) for name, axis in self.problem.space.items()}
        write_manifest(self.store, manifest_of(plan, {"space": space}))

    def _add_to_manifest(self, trial: Trial, plan: Plan) -> None:
        """One proposal more in `study.json`."""
        before: Manifest = read_manifest(self.store)
        cells = tuple(
            PlannedCell(key=c.key, arm=c.arm.label, levels=c.arm.text_levels, seed=c.seed)
            for c in plan.cells
        )
        numbers = (*before.factors.get(TRIAL, ()), str(trial.number))
        baseline = before.baseline or plan.arms[0].text_levels
        write_manifest(
            self.store,
            replace(
                before,
                cells=before.cells + cells,
                factors={**before.factors, TRIAL: numbers},
                baseline=baseline,
            ),
        )

    def wanted(self, trial: Trial) -> list[Step]:
        """Every seed of the proposal that is not there."""
        # An arm that is open is to be computed, whatever failed under another sequence.
        plan = self.plan([trial], retry_failed=True)
        first = self.problem.seeds[0]
        judged = self._judged(trial) if any(cell.seed == first for cell in plan.todo) else None
        return [
            Step(
                cell=cell,
                stages=plan.missing(cell),
                judged=judged if cell.seed == first else None,
            )
            for cell in plan.todo
        ]

    def _judged(self, trial: Trial) -> Mapping[str, Any] | None:
        """What a pruner judges the proposal's cell on the first seed by; None without one.

        Once there are more seeds the paired test of `sweeps.search.pruner` says more, and a
        verdict on each of them would end the best arm about half as often again.
        """
        problem = self.problem
        if not problem.prune:
            return None
        ours = [p for p in self.read() if p.group == trial.group and p.number <= trial.number]
        curve = self.search.curve
        return judgement(self.store, self.folder, problem, curve, ours, self.plan(ours))

    def steps(self, trial: Trial) -> list[list[WorkItem]]:
        """The same as the queue takes them: each seed's missing stages, and its cell last."""
        recipes = self.recipes
        return [recipes.items(step) for step in self.wanted(trial)]

    @property
    def recipes(self) -> Recipes:
        """Of the tuning ledger's cells; networks are kept of the winners and defaults alone."""
        return Recipes(
            self._study,
            replace(self.request, keep=()),
            results=self.results,
            token=self.token,
            commit=self.commit,
            deadline_s=self.deadline_s,
        )


class Proposed:
    """A search as `engine.source.ArmSource`: one arm at a time, and of it one seed at a time.

    On Ray its campaign only looks: another leads, in the Tune process (`cluster.tune.search`).
    """

    def __init__(self, tuning: Tuning, campaign: "Campaign") -> None:
        self.tuning, self.campaign = tuning, campaign
        self._trial: Trial | None = None
        self._steps: list[Step] = []  # of this proposal, those to come

    def next(self) -> Step | None:
        if not self._steps:
            self._trial = self.campaign.next()
            if self._trial is None:
                return None
            self._steps = self.tuning.wanted(self._trial)
        return self._steps.pop(0)

    def tell(self, cell: Cell, objective: float | None) -> None:
        assert self._trial is not None, "told of a cell that was not wanted"
        goes_on = self.campaign.report(self._trial, cell.seed, objective)
        self.campaign.tell(self._trial)
        if not goes_on:
            self._steps = []

    def ended(self, cell: Cell) -> None:
        """A pruner ended the cell while it ran: its arm is over."""
        assert self._trial is not None, "told of a cell that was not wanted"
        self.campaign.end(self._trial, cell.seed)
        self.campaign.tell(self._trial)
        self._steps = []

    @property
    def left(self) -> int:
        """As if no arm were stopped any more."""
        problem = self.campaign.problem
        there = sum(len(p.values) for p in self.campaign.trials if p.state == OPEN)
        return self.campaign.unfinished * len(problem.seeds) - there

    @property
    def plan(self) -> Plan:
        return self.tuning.plan(self.campaign.trials)

    def experiment(self, database: Path | None) -> "Experiment":
        from cluster.drive import Experiment

        return Experiment(
            run="cluster.tune:search",
            arguments={
                "tuning": self.tuning,
                "database": database,
            },
            leads=True,
        )


def _leaf(number: int) -> str:
    return f"{number:05d}"


def _plain(axis: Any) -> dict[str, Any]:
    return json.loads(json.dumps({"kind": type(axis).__name__, **asdict(axis)}))
