"""A study of two small cells of the selection core, for tests that kill it while it is computed.

python tests/support/often_saved_study.py --inline
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from sweeps.engine.cli import main
from sweeps.engine.study import Study

STUDY = Study(
    name="often_saved",
    question="Does a kill show in the bytes?",
    core="often_saved",
    factors={"method": ("controller", "random_subset_search")},
    baseline={},
    data="ihc-colon",
    tables=(),
    seeds=1,
    fixed={
        "generator_steps": 6,
        "generator_snapshots": 2,
        "pool_per_class": 16,
        "batches": 2,
        "iterations": 3,
        "episodes": 2,
        "reward_steps": 10,
        "classifier_steps": 20,
    },
)


def reporting(results, study, console, *, quiet) -> None:
    """No last step: these tests read the ledger."""


if __name__ == "__main__":
    main(STUDY, reporting, __doc__)
