"""The toy study with the last step of a real one: tables, figures, report, account.

python tests/support/toy_reported.py --seeds 2
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from toy_study import STUDY

from analysis import reporting
from sweeps.engine.cli import main

if __name__ == "__main__":
    main(STUDY, reporting.run, __doc__)
