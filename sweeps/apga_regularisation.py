"""How much does APGA depend on the weight against large masks and on its reward baseline?

λ_zeros × baseline decay around the values Cheng et al. 2019 print (0.1 and 0.5) without varying
them. λ_zeros too small: everything is masked; too large: nothing, and the aid mask is empty.

    python sweeps/apga_regularisation.py          # this machine, generated radiographs
    python sweeps/apga_regularisation.py --plan   # what would be computed
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from analysis import reporting
from sweeps.engine.cli import main
from sweeps.engine.study import Study

STUDY = Study(
    name="apga_regularisation",
    question="For which λ_zeros and baseline decay does the mask neither vanish nor fill up?",
    core="apga_core",
    factors={
        "lambda_zeros": (0.01, 0.03, 0.1, 0.3),
        "baseline_decay": (0.0, 0.5, 0.9),
    },
    baseline={"lambda_zeros": 0.1, "baseline_decay": 0.5},
    data="phantom-xray",
    tables=(),
    # The decay belongs to the moving average; the demo preset's own baseline has none.
    fixed={"method": "apga", "reward_baseline": "ema-before"},
)

if __name__ == "__main__":
    main(STUDY, reporting.run, __doc__)
