"""What an object store is asked for once although it is read again and again: the files of cells.

A run reads its ledger five times before its first cell (what is there, whether it is whole, how
long it took, what it scored), in 25 ms a request. The names are listed anew each time, and a file
of cells never changes under its name but by a worker that was thought dead and commits the same
cell once more; so a second reader may be given the bytes that the first one saw.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sweeps.ledger.files import Store

_FETCHED: ContextVar[dict[str, bytes] | None] = ContextVar("_FETCHED", default=None)


@contextmanager
def fetched_once() -> Iterator[None]:
    """Until the block ends, or `forget_fetched` is called in it, `read_fetched` keeps what it
    reads of object stores: some 75 MB for 100,000 cells.
    """
    token = _FETCHED.set({})
    try:
        yield
    finally:
        _FETCHED.reset(token)


def forget_fetched() -> None:
    """From now on every file is read when it is asked for; cells are about to come."""
    _FETCHED.set(None)


def read_fetched(store: Store, name: str) -> bytes:
    """The bytes of a file of cells on an object store, maybe as they were read before.

    Raises:
        FileNotFoundError, IsADirectoryError, StoreError: as `Store.read`.
    """
    fetched, place = _FETCHED.get(), store.path(name)
    if fetched is not None and place in fetched:
        return fetched[place]
    content = store.read(name, changes=False)
    if fetched is not None:
        fetched[place] = content
    return content
