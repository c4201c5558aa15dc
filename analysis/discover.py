"""Which folders under `results/` hold a study."""

import pyarrow.fs as pafs

from sweeps.ledger.files import Store
from sweeps.ledger.schema import LedgerError

MANIFEST = "study.json"


def studies_in(root: str) -> list[str]:
    """Folders or URIs of the studies in `root`, by name; `root` itself where it is one.

    Raises:
        LedgerError: there is none.
    """
    store = Store(root)
    if store.exists(MANIFEST):
        return [store.root]
    found = store.fs.get_file_info(pafs.FileSelector(store.path(""), allow_not_found=True))
    names = sorted(info.base_name for info in found if info.type == pafs.FileType.Directory)
    studies = [child.root for name in names if (child := store.child(name)).exists(MANIFEST)]
    if not studies:
        raise LedgerError(
            f"no study in {root}: no {MANIFEST} there nor in a folder of it; name the folder that "
            "the scripts of sweeps/ write to (--results)"
        )
    return studies
