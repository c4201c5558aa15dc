"""The course of one search: which arm next, which one goes on, which one is over. No Ray.

The same object drives a search in this process and one on a cluster (`cluster.tune`). It decides
whose turn it is and when an arm is over; the points come from the groups' searches, which are told
what came of them.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sweeps.search.optuna_study import STEP, GroupStudy, PlainSearch, build
from sweeps.search.proposals import COMPLETE, FAILED, OBJECTIVE, OPEN, STOPPED, Proposal, best_of
from sweeps.search.pruner import should_prune
from sweeps.search.space import Problem
from sweeps.search.storage import Warn, to_log


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

    def steps(self, proposal: Proposal) -> list[tuple[int, list[Any]]]:
        """(seed, its missing stages and its cell) of every seed that is not there."""


class Search(Protocol):
    """Who proposes for one group: Ray's `OptunaSearch`, or what stands for it without Ray."""

    def suggest(self, trial_id: str) -> Mapping[str, Any]:
        """The trial's point."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """One more step of the trial."""

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The trial is over: complete with a result, else failed after an error, else pruned."""


class Campaign:
    """Proposes until every group has its trials; resumes what an earlier run left open.

    Args:
        work: reads and writes the ledger.
        database: where Optuna's studies go; None keeps them in memory.
        search: makes a group's search.
        warn: hears of it, once, where the database cannot be written.
    """

    def __init__(
        self,
        problem: Problem,
        work: Work,
        *,
        database: Path | None,
        search: Callable[[GroupStudy], Search] = PlainSearch,
        warn: Warn = to_log,
    ) -> None:
        self.problem, self.work = problem, work
        self.proposals = work.known()
        self._studies = build(problem, self.proposals, database, warn)
        self._searches = {group: search(study) for group, study in self._studies.items()}
        self._told: dict[int, int] = {}  # proposal → steps that its search has heard of
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
        while (proposal := self._resumed() or self._new()) is not None:
            over = self._over(proposal)
            self.tell(proposal)
            if not over:
                return proposal
        return None

    def _resumed(self) -> Proposal | None:
        if not self._resume:
            return None
        proposal = self._resume.pop(0)
        self._suggest(proposal.group, proposal.number)  # it waits in the study, in this order
        return proposal

    def _new(self) -> Proposal | None:
        ready = [group for group in self.problem.groups if self._ready(group)]
        if not ready:
            return None
        group, number = min(ready, key=self._count), len(self.proposals)
        point = self._suggest(group, number)
        self._studies[group].mark(number)
        proposal = Proposal(number=number, group=group, point=point)
        self.work.record(proposal)
        proposal.values = self.work.values(proposal)
        self.proposals.append(proposal)
        return proposal

    def _suggest(self, group: str, number: int) -> dict[str, Any]:
        self._told[number] = 0
        return dict(self._searches[group].suggest(str(number)))

    def _ready(self, group: str) -> bool:
        count = self._count(group)
        if count >= self.problem.trials:
            return False
        earlier = self._known_to(group, count)
        return not self.problem.round or all(p.state != OPEN for p in earlier)

    def _known_to(self, group: str, position: int) -> Sequence[Proposal]:
        """The group's proposals whose end the one at `position` among them may know.

        In rounds, those of earlier rounds (the sampler keeps to the same rule).
        """
        ours = [p for p in self.proposals if p.group == group]
        return ours[: self.problem.round_start(position)] if self.problem.round else ours

    def report(self, proposal: Proposal, seed: int, value: float) -> bool:
        """A seed has finished; returns whether the arm goes on to its next seed."""
        proposal.values[seed] = value
        return not self._over(proposal)

    def fail(self, proposal: Proposal) -> None:
        """A cell of the arm failed: the arm is over, and has no objective."""
        proposal.state = FAILED

    def tell(self, proposal: Proposal) -> None:
        """Tell its search what is new of the arm since it was last told; where nothing is, nothing.

        A step is one more seed, its value the mean so far; a complete arm ends with its mean.
        """
        if (told := self._told.get(proposal.number)) is None:
            return  # the search knows how it ended
        search, trial = self._searches[proposal.group], str(proposal.number)
        means = proposal.running_means
        for step, mean in enumerate(means[told:], start=told + 1):
            search.on_trial_result(trial, {OBJECTIVE: mean, STEP: step})
        self._told[proposal.number] = len(means)
        if proposal.state == OPEN:
            return
        ended = {OBJECTIVE: proposal.mean} if proposal.state == COMPLETE else None
        search.on_trial_complete(trial, ended, error=proposal.state == FAILED)
        del self._told[proposal.number]

    def _over(self, proposal: Proposal) -> bool:
        if len(proposal.values) == len(self.problem.seeds):
            proposal.state = COMPLETE
            return True
        position = sum(
            p.group == proposal.group and p.number < proposal.number for p in self.proposals
        )
        known = self._known_to(proposal.group, position)
        best = best_of(self.problem, proposal.group, known)
        if best is None or not should_prune(
            proposal.values,
            best.values,
            alpha=self.problem.alpha,
            maximize=self.problem.maximize,
        ):
            return False
        self.work.record_stop(proposal, best)
        proposal.state = STOPPED
        return True
