"""The toy study's command line: the engine's own, on the toy core.

python tests/support/toy_study.py --seeds 2
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from sweeps.engine.cli import main
from sweeps.engine.study import Study

STUDY = Study(
    name="toy",
    question="Does the engine lose a cell?",
    core="toy_core",
    factors={"ridge": (0.1, 1.0, 10.0), "pooling": (8, 16)},
    baseline={"ridge": 1.0, "pooling": 8},
    data="ihc-colon",
    tables=(),
    seeds=2,
)


def reporting(results, study, console, *, quiet) -> None:
    """No last step: these tests read the ledger."""


if __name__ == "__main__":
    main(STUDY, reporting, __doc__)
