"""Which folders under `results/` hold a study."""

from sweeps.ledger.files import Store
from sweeps.ledger.schema import LedgerError

MANIFEST = "study.json"


def studies_in(root: str) -> list[str]:
    """Folders or URIs of the studies in `root`, by name; `root` itself where it is one.

    Raises:
        LedgerError: there is none.
        StoreError: the folder cannot be read.
    """
    store = Store(root)
    if store.takes(MANIFEST):
        return [store.root]
    names = store.names("", "")
    studies = [child.root for name in names if (child := store.child(name)).takes(MANIFEST)]
    if not studies:
        raise LedgerError(
            f"no study in {root}: no {MANIFEST} there nor in a folder of it; name the folder that "
            "the scripts of sweeps/ write to (--results)"
        )
    return studies
