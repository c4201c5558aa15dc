"""Which folders under `results/` hold a study."""

from sweeps.ledger import progress
from sweeps.ledger.read import MANIFEST

__all__ = ["MANIFEST", "studies_in"]


def studies_in(root: str) -> list[str]:
    """Folders or URIs of the studies in `root`, by name; `root` itself where it is one.

    Raises:
        LedgerError: there is none.
        StoreError: the folder cannot be read.
    """
    return [store.root for store in progress.studies_in(root)]
