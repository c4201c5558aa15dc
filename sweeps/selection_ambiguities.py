"""Which of the decisions that Ye et al. 2020 leave open, or print wrongly, change the result?

Leave-one-out of the decisions: from the demo preset's settings, each factor moves to its other
levels while the rest stay (`selection_core/README.md`, "Departures from the paper", says what each
is). `episode=batch` trains eight times as many classifiers as its neighbours.

    python sweeps/selection_ambiguities.py          # this machine
    python sweeps/selection_ambiguities.py --plan   # what would be computed
"""

from analysis import last_step
from sweeps.engine.cli import main
from sweeps.engine.study import Study

DEFAULT = {
    "reward_smoothing": "baseline",
    "value_baseline": "on",
    "ratio": "candidate",
    "candidate_order": "sorted",
    "positions": "on",
    "candidate_label": "crossed",
    "reward_statistic": "mean",
    "episode": "pass",
    "classifier_reset": "reset",
    "final_selection": "drawn",
}
MOVES = (
    {"reward_smoothing": "reward"},
    {"reward_smoothing": "reward", "value_baseline": "off"},
    {"ratio": "joint"},
    {"candidate_order": "shuffled"},
    {"positions": "off"},
    {"candidate_order": "shuffled", "positions": "off"},
    {"candidate_label": "embedding"},
    {"candidate_label": "off"},
    {"reward_statistic": "max"},
    {"episode": "batch"},
    {"classifier_reset": "warm"},
    {"final_selection": "threshold"},
    {"final_selection": "expected_count"},
)
ARMS = ({}, *MOVES)

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
    only=tuple(DEFAULT | move for move in ARMS),
)

if __name__ == "__main__":
    main(STUDY, last_step.run, __doc__)
