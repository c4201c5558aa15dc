"""The ledgers that tables, figures and report are made of: in one last step each is read once.

Each command reads its study for itself; the last step of a run is five of them one after the other,
and a ledger of 100,000 cells in a bucket takes seconds to read, its decisions as long to make.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, TypeVar

from sweeps.ledger.files import Store
from sweeps.ledger.read import Ledger, read_ledger

_KEPT: ContextVar[dict[str, Ledger | None] | None] = ContextVar("_KEPT", default=None)


@contextmanager
def read_once(root: str) -> Iterator[None]:
    """While the block runs, `ledger_of` gives one and the same ledger of the study in `root`.

    For a time in which nobody commits: whoever holds the study's lock, after its last cell.
    """
    token = _KEPT.set({_place(root): None})
    try:
        yield
    finally:
        _KEPT.reset(token)


def ledger_of(root: str, *, details: bool = True) -> Ledger:
    """The study in `root`; see `sweeps.ledger.read.read_ledger`.

    Args:
        details: whether the columns that tables do without are needed; in `read_once` they come
            along, since another step will ask.

    Raises:
        LedgerError: `root` is no study's results.
    """
    kept, place = _KEPT.get(), _place(root)
    if kept is None or place not in kept:
        return read_ledger(root, details=details)
    found = kept[place]
    if found is None:
        kept[place] = found = read_ledger(root)
    return found


Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Same(Generic[Thing]):
    """A ledger or a frame, equal to itself alone, so that what is found out of it can be kept."""

    thing: Thing

    def __hash__(self) -> int:
        return id(self.thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.thing is self.thing


def _place(root: str) -> str:
    """Where a folder or URI is, however it is written."""
    store = Store(root)
    kind = "" if store.local else root.partition("://")[0]
    return f"{kind}:{store.path('')}"
