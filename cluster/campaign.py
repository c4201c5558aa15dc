"""The course of one search: which arm next, which one goes on, which one is over. No Ray.

The same object drives a search in this process and one on a cluster (`cluster.tuning`).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cluster.proposals import COMPLETE, FAILED, OPEN, STOPPED, Proposal, View, best_of, propose
from cluster.queue import WorkItem
from cluster.space import Problem
from cluster.stopping import hopeless


class Work(Protocol):
    """What the engine does for a search."""

    def known(self) -> list[Proposal]:
        """Every proposal that was recorded, in order, with what the ledger holds of it."""

    def values(self, proposal: Proposal) -> dict[int, float]:
        """Seed → objective of the cells of a new proposal that are there already."""

    def record(self, proposal: Proposal) -> None:
        """Write the proposal down, for good."""

    def record_stop(self, proposal: Proposal, best: Proposal) -> None:
        """Write down that the arm was stopped, and which one it lost to."""

    def steps(self, proposal: Proposal) -> list[tuple[int, list[WorkItem]]]:
        """(seed, its missing stages and its cell) of every seed that is not there."""


class Campaign:
    """Proposes until every group has its trials; resumes what an earlier run left open.

    Args:
        work: reads and writes the ledger.
        database: where the view for optuna-dashboard goes; None keeps it in memory.
    """

    def __init__(self, problem: Problem, work: Work, *, database: Path | None) -> None:
        self.problem, self.work = problem, work
        self.proposals = work.known()
        self._view = View(problem, self.proposals, database)
        self._resume = [p for p in self.proposals if p.state == OPEN]

    @property
    def left(self) -> int:
        """Arms that are still to be computed, in part or as a whole."""
        return len(self._resume) + sum(
            max(0, self.problem.trials - self._count(group)) for group in self.problem.groups
        )

    @property
    def unfinished(self) -> int:
        """Arms that are not over: those that run now, and those that are to come."""
        asked = self.problem.trials * len(self.problem.groups)
        return asked - sum(p.state != OPEN for p in self.proposals)

    def _count(self, group: str) -> int:
        return sum(p.group == group for p in self.proposals)

    def next(self) -> Proposal | None:
        """The next arm to compute, recorded already; None where there is none now.

        That is, once every group has its trials (then `left` is 0), or while every group waits for
        its round to end. The groups take turns. An arm that a killed run left open is judged on the
        seeds it has, as that run would have done, and goes on where it stopped.
        """
        while (proposal := self._resume.pop(0) if self._resume else self._new()) is not None:
            if not self._over(proposal):
                return proposal
        return None

    def _new(self) -> Proposal | None:
        ready = [group for group in self.problem.groups if self._ready(group)]
        if not ready:
            return None
        group = min(ready, key=self._count)
        point = propose(self.problem, group, self._seen_by(group, self._count(group)))
        proposal = Proposal(number=len(self.proposals), group=group, point=point)
        self.work.record(proposal)
        proposal.values = self.work.values(proposal)
        self.proposals.append(proposal)
        self._view.add(proposal)
        return proposal

    def _ready(self, group: str) -> bool:
        count = self._count(group)
        if count >= self.problem.trials:
            return False
        earlier = self._seen_by(group, count)[: self._round_start(count)]
        return not self.problem.round or all(p.state != OPEN for p in earlier)

    def _round_start(self, position: int) -> int:
        return position - position % (self.problem.round or 1)

    def _seen_by(self, group: str, position: int) -> Sequence[Proposal]:
        """The group's proposals as the one at `position` among them may know them.

        In rounds: how the earlier rounds ended, and of its own round only where the others are.
        """
        ours = [p for p in self.proposals if p.group == group]
        if not self.problem.round:
            return ours
        start = self._round_start(position)
        return ours[:start] + [replace(p, state=OPEN, values={}) for p in ours[start:position]]

    def report(self, proposal: Proposal, seed: int, value: float) -> bool:
        """A seed has finished; returns whether the arm goes on to its next seed."""
        proposal.values[seed] = value
        self._view.report(proposal)
        return not self._over(proposal)

    def fail(self, proposal: Proposal) -> None:
        """A cell of the arm failed: the arm is over, and has no objective."""
        self._close(proposal, FAILED)

    def _over(self, proposal: Proposal) -> bool:
        if len(proposal.values) == len(self.problem.seeds):
            self._close(proposal, COMPLETE)
            return True
        position = sum(
            p.group == proposal.group and p.number < proposal.number for p in self.proposals
        )
        seen = self._seen_by(proposal.group, position)
        best = best_of(self.problem, proposal.group, seen)
        if best is None or not hopeless(
            proposal.values,
            best.values,
            alpha=self.problem.alpha,
            maximize=self.problem.maximize,
        ):
            return False
        self.work.record_stop(proposal, best)
        self._close(proposal, STOPPED)
        return True

    def _close(self, proposal: Proposal, state: str) -> None:
        proposal.state = state
        self._view.close(proposal)
