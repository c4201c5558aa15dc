"""A search whose cells show their curve while they run.

python tests/support/learning_search.py --inline --prune median
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from sweeps.engine.cli import main
from sweeps.engine.search import Range, Search

SEARCH = Search(
    name="learning_search",
    question="Which rate is best?",
    core="learning_core",
    space={"rate": Range(1e-4, 1.0, log=True)},
    data="ihc-colon",
    curve="validation_accuracy",
    trials=9,
    tuning_seeds=2,
    seeds=1,
)


def reporting(results, study, console, *, quiet) -> None:
    """No last step: these tests read the ledger."""


if __name__ == "__main__":
    main(SEARCH, reporting, __doc__)
