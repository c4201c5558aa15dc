"""A search and its ledger: proposals written down before they run, and what came of each.

    results/<name>_tuning/
      proposals/<space>/00007.json           one proposal, immutable
      proposals/<space>/00007.stopped.json   it was hopeless, and against which one
      cells/, failures/, …                  as in every ledger
      optuna.db                             Optuna's studies, built anew at each start

`<space>` is a hash of all that gives a proposal its meaning: another preset, dataset, range, set of
compared levels or size of a round starts another sequence. Seeds and the number of trials are not
in it: raising them only adds.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from cluster.queue import WorkItem
from imaging_core.fields import build
from sweeps.engine.plan import Plan, manifest_of, plan_arms
from sweeps.engine.run import Recipes
from sweeps.engine.search import Tuning
from sweeps.engine.study import Arm
from sweeps.ledger.commit import write_manifest
from sweeps.ledger.files import Store
from sweeps.ledger.lock import must_hold
from sweeps.ledger.read import read_manifest, read_metric
from sweeps.ledger.schema import Manifest, PlannedCell, canonical
from sweeps.search.proposals import COMPLETE, FAILED, STOPPED, Proposal

TRIAL = "trial"


@dataclass(frozen=True, kw_only=True)
class TuningWork:
    """What a search needs of the engine (`campaign.Work`); plain values, so it travels.

    Attributes:
        token: of the lock on the tuning ledger.
        commit: of the checkout, as `provenance.source` says; cells carry it.
        retry_failed: whether a proposal with a failed cell is computed again.
    """

    tuning: Tuning
    results: str
    token: str
    commit: Mapping[str, Any]
    retry_failed: bool
    deadline_s: float | None

    @property
    def store(self) -> Store:
        """The tuning ledger."""
        return Store(self.results).child(self.tuning.name)

    @property
    def folder(self) -> str:
        """Where this space's proposals are, in the ledger."""
        tuning, problem = self.tuning, self.tuning.problem
        task = tuning.search.task
        identity = {
            "core": [task.name, task.version],
            "shared": dict(tuning.shared),
            "groups": dict(problem.groups),
            "space": [[name, _plain(axis)] for name, axis in problem.space.items()],
            "data": tuning.fingerprint,
            "objective": tuning.search.objective,
            "seed": problem.seed,
            **({"round": problem.round} if problem.round else {}),
        }
        digest = hashlib.sha256(canonical(identity).encode()).hexdigest()
        return f"proposals/{digest[:12]}"

    def read(self) -> list[Proposal]:
        """Every proposal on file, in order, without what came of it."""
        names = [n for n in self.store.names(self.folder, ".json") if n[:-5].isdigit()]
        found = [json.loads(self.store.read(f"{self.folder}/{name}")) for name in names]
        return [Proposal(number=p["number"], group=p["group"], point=p["point"]) for p in found]

    def known(self) -> list[Proposal]:
        """Every proposal on file with its state and its values, from the committed cells."""
        proposals = self.read()
        plan = self.plan(proposals)
        values = self._values(plan)
        stopped = {n[:-13] for n in self.store.names(self.folder, ".stopped.json")}
        with_failures = {id(cell.arm) for cell in plan.cells if cell.key in plan.failed}
        for proposal, arm in zip(proposals, plan.arms, strict=True):
            proposal.values = values[arm.label]
            if len(proposal.values) == len(self.tuning.problem.seeds):
                proposal.state = COMPLETE
            elif _leaf(proposal.number) in stopped:
                proposal.state = STOPPED
            elif id(arm) in with_failures and not self.retry_failed:
                proposal.state = FAILED
        return proposals

    def values(self, proposal: Proposal) -> dict[int, float]:
        """Seed → objective of the cells that are there, from another space's proposals perhaps."""
        plan = self.plan([proposal])
        return self._values(plan)[plan.arms[0].label]

    def _values(self, plan: Plan) -> dict[str, dict[int, float]]:
        values = read_metric(self.store, set(plan.done), self.tuning.search.objective)
        found: dict[str, dict[int, float]] = {arm.label: {} for arm in plan.arms}
        for cell in plan.cells:
            if cell.key in values:
                found[cell.arm.label][cell.seed] = values[cell.key]
        return found

    def record(self, proposal: Proposal) -> None:
        """Write the proposal down, and its cells into the plan that `status.py` shows.

        Raises:
            LedgerError: this controller no longer holds the ledger.
        """
        must_hold(self.store, self.token)
        content = {
            "number": proposal.number,
            "group": proposal.group,
            "point": dict(proposal.point),
        }
        name = f"{self.folder}/{_leaf(proposal.number)}.json"
        self.store.write(name, json.dumps(content, indent=1).encode())
        self.add_to_manifest(proposal)

    def record_stop(self, proposal: Proposal, best: Proposal) -> None:
        """Write down that the arm was hopeless after these seeds."""
        must_hold(self.store, self.token)
        content = {
            "number": proposal.number,
            "lost_to": best.number,
            "seeds": list(proposal.values),
        }
        name = f"{self.folder}/{_leaf(proposal.number)}.stopped.json"
        self.store.write(name, json.dumps(content, indent=1).encode())

    def arm(self, proposal: Proposal) -> Arm:
        """The proposal as an arm of the tuning ledger."""
        fields = self.tuning.problem.groups[proposal.group]
        config = build(
            self.tuning.search.task.config,
            {**self.tuning.shared, **fields, **proposal.point},
        )
        levels = {**fields, TRIAL: proposal.number}
        return Arm(levels=levels, config=config, data=self.tuning.data)

    def plan(self, proposals: Sequence[Proposal], *, retry_failed: bool = False) -> Plan:
        """What of the proposals is there, and what is left."""
        search = self.tuning.search
        factors = {**search.compare, TRIAL: tuple(p.number for p in proposals)}
        study = replace(
            search.as_study,
            name=self.tuning.name,
            question=f"Which settings are best? ({search.question})",
            factors=factors,
            tables=(),
        )
        return plan_arms(
            study,
            self.tuning.request,
            self.tuning.problem.seeds,
            [self.arm(p) for p in proposals],
            {self.tuning.data: self.tuning.fingerprint},
            results=self.results,
            retry_failed=retry_failed,
        )

    def write_manifest(self, proposals: Sequence[Proposal]) -> None:
        """`study.json` of the tuning ledger, without what an arm that is over never computed."""
        plan = self.plan(proposals)
        over = {
            arm.label
            for p, arm in zip(proposals, plan.arms, strict=True)
            if p.state in (STOPPED, FAILED)
        }
        there = plan.done | plan.failed
        cells = tuple(c for c in plan.cells if c.arm.label not in over or c.key in there)
        plan = replace(plan, cells=cells)
        baseline = plan.arms[0].levels if plan.arms else {}
        plan = replace(plan, study=replace(plan.study, baseline=baseline))
        space = {name: _plain(axis) for name, axis in self.tuning.problem.space.items()}
        write_manifest(self.store, manifest_of(plan, {"space": space}))

    def add_to_manifest(self, proposal: Proposal) -> None:
        """One proposal more in `study.json`."""
        before: Manifest = read_manifest(self.store)
        plan = self.plan([proposal])
        cells = tuple(
            PlannedCell(key=c.key, arm=c.arm.label, levels=c.arm.text_levels, seed=c.seed)
            for c in plan.cells
        )
        numbers = (*before.factors.get(TRIAL, ()), str(proposal.number))
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

    def steps(self, proposal: Proposal) -> list[tuple[int, list[WorkItem]]]:
        """(seed, its missing stages and its cell) of every seed that is not there."""
        # An arm that is open is to be computed, whatever failed under another sequence.
        plan = self.plan([proposal], retry_failed=True)
        recipes = self._recipes(plan)
        stages = {work.key: work for work in plan.stages}
        steps = []
        for cell in plan.todo:
            items = [
                WorkItem(
                    id=key,
                    payload=recipes.stage(stages[key]),
                    needs=stages[key].needs,
                    deadline_s=self.deadline_s,
                )
                for key in plan.needs(cell)
            ]
            items.append(
                WorkItem(
                    id=cell.key,
                    payload=recipes.cell(cell),
                    needs=plan.needs(cell),
                    arm=cell.arm.label,
                    deadline_s=self.deadline_s,
                )
            )
            steps.append((cell.seed, items))
        return steps

    def payload(self, key: str) -> Mapping[str, Any]:
        """The recipe of a cell of any proposal on file.

        Raises:
            KeyError: no proposal has such a cell.
        """
        plan = self.plan(self.read())
        cells = {cell.key: cell for cell in plan.cells}
        return self._recipes(plan).cell(cells[key])

    def _recipes(self, plan: Plan) -> Recipes:
        return Recipes(plan, results=self.results, token=self.token, commit=self.commit)


def _leaf(number: int) -> str:
    return f"{number:05d}"


def _plain(axis: Any) -> dict[str, Any]:
    return json.loads(json.dumps({"kind": type(axis).__name__, **asdict(axis)}))
