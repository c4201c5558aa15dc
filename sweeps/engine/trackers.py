"""`--track`: the committed cells of a run, in the trackers that the user named, as they come."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sweeps.engine.display import Display
from sweeps.engine.plan import Plan
from sweeps.ledger.files import Store
from sweeps.tracking.follow import Follower

PATIENCE_S = 120.0
"""The longest that a run waits at its end for a tracker; the ledger has everything by then."""


@contextmanager
def tracked(
    plan: Plan, ledger: Store, say: Callable[..., None], display: Display | None = None
) -> Iterator[None]:
    """Inside, every cell that `display` sees committed goes to the trackers; those that were there
    before go first. The curves of what runs are shown while it does.

    Args:
        say: `say(text)` prints a line, `say(text, always=True)` a warning.

    Raises:
        LedgerError: a tracker that there is not, or whose package is not installed.
    """
    specs = dict.fromkeys(plan.request.track)
    if not specs:
        yield
        return
    follower = Follower(
        specs, plan.study.name, ledger, lambda text: say(f"warning: {text}", always=True)
    )
    for where in follower.where:
        say(f"tracked: {where}")
    follower.committed(dict.fromkeys(cell.key for cell in plan.cells if cell.key in plan.done))
    if display is not None:
        display.on_commit = follower.committed
        display.on_points, display.on_end = follower.points, follower.ended
    try:
        yield
    finally:
        follower.close(PATIENCE_S)
