"""Which of the decisions that Ye et al. 2020 leave open, or print wrongly, change the result?

Leave-one-out of the decisions: from the demo preset's settings, each factor moves to its other
levels while the rest stay (`selection_core/README.md`, "Departures from the paper", says what each
is). The pool is that of `ablation_controller`, where there is something to find. `episode=batch`
trains eight times as many classifiers as its neighbours, `reward_repeats=2` twice as many.

    python sweeps/selection_ambiguities.py          # this machine
    python sweeps/selection_ambiguities.py --plan   # what would be computed
    python sweeps/selection_ambiguities.py --design screening   # main effects of twelve factors
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from analysis import reporting
from imaging_core.fields import build
from selection_core.config import PRESETS, SelectionConfig
from sweeps.ablation_controller import SOMETHING_TO_FIND
from sweeps.engine.cli import main
from sweeps.engine.study import Study

LEVELS = {
    "reward_smoothing": ("baseline", "reward"),
    "value_baseline": ("on", "off"),
    "value_target": ("normalised", "raw"),
    "ratio": ("candidate", "joint"),
    "candidate_order": ("sorted", "shuffled"),
    "positions": ("on", "off"),
    "candidate_label": ("crossed", "embedding", "off"),
    "reward_statistic": ("mean", "max"),
    "reward_metric": ("accuracy", "log_likelihood"),
    "reward_repeats": (1, 2),
    "episode": ("pass", "batch"),
    "classifier_reset": ("reset", "warm"),
    "final_selection": ("drawn", "threshold", "expected_count"),
    "policy_readout": ("last", "best_smoothed_reward"),
}
TOGETHER = (
    {"reward_smoothing": "reward", "value_baseline": "off"},
    {"candidate_order": "shuffled", "positions": "off"},
)
DEMO = build(SelectionConfig, PRESETS["demo"])
DEFAULT = {name: getattr(DEMO, name) for name in LEVELS}
MOVES = (
    *(
        {name: level}
        for name, levels in LEVELS.items()
        for level in levels
        if level != DEFAULT[name]
    ),
    *TOGETHER,
)
ARMS = ({}, *MOVES)
# Twice or eight times as many trainings would be those of half of a fraction's arms.
SCREENING = {
    "candidate_label": ("crossed", "off"),
    "final_selection": ("expected_count", "threshold"),
    "reward_repeats": (1,),
    "episode": ("pass",),
}

STUDY = Study(
    name="selection_ambiguities",
    question="Which open or misprinted decision of the method changes what it selects?",
    core="selection_core",
    factors={
        name: tuple(dict.fromkeys((DEFAULT | move)[name] for move in ARMS)) for name in DEFAULT
    },
    baseline=DEFAULT,
    data="ihc-colon",
    tables=(),
    of_preset={"demo": SOMETHING_TO_FIND},
    only=tuple(DEFAULT | move for move in ARMS),
    screening=SCREENING,
)

if __name__ == "__main__":
    main(STUDY, reporting.run, __doc__)
