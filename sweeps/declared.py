"""A study that is declared in a YAML file, for those who would rather not write Python.

    python sweeps/declared.py my_study.yaml --plan     # and every other option of a study
    python sweeps/declared.py my_study.yaml --help     # its factors

The file's keys are those of `Study` (`sweeps/engine/study.py`): name, question, core, factors,
baseline and data, and where wanted tables, objective, seeds, fixed, of_preset, only, bundles. A
study that is declared either way has the same plan, keys and results.
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

import sys

from analysis import reporting
from sweeps.engine.cli import main
from sweeps.engine.session import Session
from sweeps.engine.study import Study
from sweeps.engine.yaml_files import read_study
from sweeps.exits import OK, USAGE
from sweeps.process import command_line

HOW = "usage: python sweeps/declared.py STUDY.yaml [OPTIONS]; --help after the file lists them"

if __name__ == "__main__":
    file, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if not file or file.startswith("-"):
        print(f"{__doc__ or ''}\n{HOW}", file=sys.stderr if file != "--help" else sys.stdout)
        sys.exit(OK if file == "--help" else USAGE)
    found: list[Study] = []
    with command_line():
        code = Session().conclude(lambda: found.append(read_study(file)) or OK)
    if code:
        sys.exit(code)
    main(found[0], reporting.run, None, arguments)
