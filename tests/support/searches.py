"""A toy search without an engine: its objective, and a ledger in a list that may die anywhere."""

from sweeps.search.campaign import Campaign
from sweeps.search.optuna_study import PlainSearch
from sweeps.search.proposals import COMPLETE, OPEN, STOPPED, Proposal
from sweeps.search.space import Choice, Problem, Range

SPACE = {
    "rate": Range(1e-4, 1.0, log=True),
    "kind": Choice(("a", "b")),
    "depth": Range(1, 4, when={"kind": ("b",)}),
    "extra": Range(0.0, 1.0, when={"arm": ("two",)}),
}
GROUPS = {"one": {"arm": "one"}, "two": {"arm": "two"}}


def problem(**changes) -> Problem:
    values = {
        "name": "toy",
        "space": SPACE,
        "groups": GROUPS,
        "defaults": {
            "one": {"rate": 0.1, "kind": "a"},
            "two": {"rate": 0.1, "kind": "a", "extra": 0.5},
        },
        "trials": 7,
        "seeds": (10, 11, 12, 13),
        "maximize": True,
        "alpha": 0.125,
        "seed": 0,
    }
    return Problem(**{**values, **changes})


def objective(point, seed) -> float:
    """Best at rate 0.01 and kind b; the seeds shift every arm alike."""
    bonus = 0.2 if point["kind"] == "b" else 0.0
    return bonus - abs(point["rate"] - 0.01) + 0.01 * (seed % 3)


class Stopped(Exception):
    """The process is gone."""


class Book:
    """A ledger in memory that dies after so many writes and cells."""

    def __init__(self) -> None:
        self.recorded, self.stops, self.cells = [], {}, {}
        self.elsewhere: dict[int, float] = {}
        self.left: int | None = None

    def _tick(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Stopped

    def known(self):
        found = []
        for number, group, point in self.recorded:
            values = {s: v for (n, s), v in self.cells.items() if n == number}
            state = COMPLETE if len(values) == 4 else STOPPED if number in self.stops else OPEN
            found.append(
                Proposal(number=number, group=group, point=point, state=state, values=values)
            )
        return found

    def values(self, proposal):
        return dict(self.elsewhere)

    def record(self, proposal) -> None:
        self._tick()
        self.recorded.append((proposal.number, proposal.group, dict(proposal.point)))

    def record_stop(self, proposal, best) -> None:
        self._tick()
        self.stops[proposal.number] = best.number

    def steps(self, proposal):
        return [(seed, []) for seed in problem().seeds if seed not in proposal.values]

    def run(self, asked: Problem, database=None, search=PlainSearch) -> Campaign:
        campaign = Campaign(asked, self, database=database, search=search)
        while (proposal := campaign.next()) is not None:
            for seed, _ in self.steps(proposal):
                self._tick()
                assert (proposal.number, seed) not in self.cells, "a cell was computed twice"
                value = objective(proposal.point, seed)
                self.cells[proposal.number, seed] = value
                goes_on = campaign.report(proposal, seed, value)
                campaign.tell(proposal)
                if not goes_on:
                    break
        return campaign
