"""Which settings of APGA are best, and which of them matter?

Cheng et al. 2019 tuned λ_zeros and print no range; the released script uses other learning rates
and another weight of the policy gradient than the paper. The defaults are proposed first, and the
winner is compared with them on seeds that the search never saw.

    python sweeps/search_apga.py                     # this machine, generated radiographs
    python sweeps/search_apga.py --trials 60 --plan  # what would be computed
    optuna-dashboard sqlite:///results/search_apga_tuning/optuna.db

The base classifier's learning rate is one of three, not a range: arms that agree in it share the
converged classifier, so a search trains three of them per tuning seed and not one per proposal.
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from analysis import reporting
from sweeps.engine.cli import main
from sweeps.engine.search import Choice, Range, Search

SEARCH = Search(
    name="search_apga",
    question="Which settings of the method are best, and which matter?",
    core="apga_core",
    space={
        "base_learning_rate": Choice((1e-3, 3e-3, 1e-2)),
        "learning_rate": Range(1e-5, 1e-2, log=True),
        "policy_learning_rate": Range(1e-5, 1e-2, log=True),
        "lambda_zeros": Range(1e-3, 1.0, log=True),
        "pg_scale": Range(0.1, 100.0, log=True),  # paper: 1; released script: 100
        "grid": Choice((2, 4, 8)),
        "reward_baseline": Choice(("ema-before", "leave-one-out")),
        "baseline_decay": Range(0.0, 0.95, when={"reward_baseline": ("ema-before",)}),
        "samples": Choice((2, 4, 8), when={"reward_baseline": ("leave-one-out",)}),
    },
    per_preset={
        "paper": {
            "base_learning_rate": Choice((3e-5, 1e-4, 3e-4)),
            "grid": Choice((0, 7, 14, 28)),
        }
    },
    # Greedy actions allow one sample only, so that there would be nothing to leave out.
    fixed={"method": "apga", "sampling": "bernoulli-grid"},
    data="phantom-xray",
    curve="validation_accuracy",
    trials=40,
    tables=("apga_t1_mura_val_acc",),
)

if __name__ == "__main__":
    main(SEARCH, reporting.run, __doc__)
