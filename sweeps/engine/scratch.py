"""Where Ray keeps its books of a run: a folder of its own, a cache that nothing reads again."""

import contextlib
import json
import shutil
import uuid

from sweeps.ledger.files import Store

FOLDER = "ray"


def scratch(ledger: Store) -> str:
    """A new folder for the books of this run, as Ray takes it; what dead runs left is cleared.

    The caller holds the ledger's lock: a run elsewhere, which cannot be looked at from here, is
    over. One of this machine that still runs (it lost its lock) keeps its books.
    """
    from cluster.owner import OWNER, this_process

    books, own = ledger.child(FOLDER), uuid.uuid4().hex[:8]
    for name in ledger.names(FOLDER, ""):
        if not _in_use(books, name):
            _remove(books, name)
    books.write(f"{own}/{OWNER}", json.dumps(this_process()).encode())
    return books.path(own) if books.local else books.child(own).root


def _in_use(books: Store, name: str) -> bool:
    from cluster.owner import OWNER, lives

    try:
        return lives(json.loads(books.read(f"{name}/{OWNER}"))) is True
    except (OSError, ValueError, TypeError, AttributeError):
        return False  # no run of ours without an owner


def _remove(books: Store, name: str) -> None:
    path = books.path(name)
    if books.local:
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):  # of no use to anybody, and in nobody's way
        books.fs.delete_dir(path)
