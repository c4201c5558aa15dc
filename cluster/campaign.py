"""The course of one search: which arm next, which one goes on, which one is over. No Ray.

The same object drives a search in this process and one on a cluster (`cluster.tuning`).
"""

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

    def _count(self, group: str) -> int:
        return sum(p.group == group for p in self.proposals)

    def next(self) -> Proposal | None:
        """The next arm to compute, recorded already; None once every group has its trials.

        The groups take turns. An arm that a killed run left open is judged on the seeds it has,
        as that run would have done, and goes on where it stopped.
        """
        while (proposal := self._resume.pop(0) if self._resume else self._new()) is not None:
            if not self._over(proposal):
                return proposal
        return None

    def _new(self) -> Proposal | None:
        group = min(self.problem.groups, key=self._count)
        if self._count(group) >= self.problem.trials:
            return None
        point = propose(self.problem, group, self.proposals)
        proposal = Proposal(number=len(self.proposals), group=group, point=point)
        self.work.record(proposal)
        proposal.values = self.work.values(proposal)
        self.proposals.append(proposal)
        self._view.add(proposal)
        return proposal

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
        best = best_of(self.problem, proposal.group, self.proposals)
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
