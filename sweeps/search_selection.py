"""How good is each controller when each is tuned with the same budget?

The ablation of Ye et al. 2020 (Table 3) compares controllers at one setting; a difference there may
be a difference in how well that setting suits each. Here each controller gets the same number of
proposals, its default first, and the winners are compared on seeds that the search never saw.

    python sweeps/search_selection.py                           # this machine
    python sweeps/search_selection.py --address auto            # the cluster it belongs to
    python sweeps/search_selection.py --trials 40 --plan        # what would be computed
    optuna-dashboard sqlite:///results/search_selection_tuning/optuna.db
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from analysis import reporting
from sweeps.engine.cli import main
from sweeps.engine.search import Choice, Range, Search

SEARCH = Search(
    name="search_selection",
    question="Which controller selects best once each is tuned with an equal budget?",
    core="selection_core",
    compare={"controller": ("gru", "gru_attention", "transformer")},
    space={
        "learning_rate": Range(1e-5, 1e-2, log=True),
        "attention_learning_rate": Range(
            1e-5, 1e-2, log=True, when={"controller": ("gru_attention",)}
        ),
        "entropy_weight": Range(1e-4, 1e-1, log=True),
        "ppo_epochs": Range(1, 8),
        "controller_width": Choice((16, 32, 64)),
        # The share of the pool that the controller chooses from.
        "pool_per_class": Choice((32, 64, 128)),
    },
    per_preset={
        "paper": {
            "controller_width": Choice((128, 256, 512)),
            "pool_per_class": Choice((256, 512, 1024)),
        }
    },
    fixed={"policy_gradient": "ppo"},
    data="ihc-colon",
    tables=("ye2020_t3_cervical_ablation_test",),
)

if __name__ == "__main__":
    main(SEARCH, reporting.run, __doc__)
