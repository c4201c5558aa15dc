"""The toy search's command line: the engine's own, on the toy core.

python tests/support/toy_search.py --inline
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from sweeps.engine.cli import main
from sweeps.engine.search import Range, Search

SEARCH = Search(
    name="toy_search",
    question="Does a search lose or repeat a proposal?",
    core="toy_core",
    space={
        "ridge": Range(1e-3, 1e3, log=True),
        "k_shot": Range(0, 64, when={"pooling": (8,)}),
    },
    compare={"pooling": (8, 16)},
    data="ihc-colon",
    trials=6,
    tuning_seeds=4,
    seeds=2,
)


def reporting(results, study, console, *, quiet) -> None:
    """No last step: these tests read the ledger."""


if __name__ == "__main__":
    main(SEARCH, reporting, __doc__)
