"""Which of the decisions that Cheng et al. 2019 leave open, or print wrongly, change the result?

Leave-one-out of the decisions: from the demo preset's settings, each factor moves to its other
levels while the rest stay (`apga_core/README.md`, "Departures from the paper", says what each is).

    python sweeps/apga_ambiguities.py          # this machine, generated radiographs
    python sweeps/apga_ambiguities.py --plan   # what would be computed
    python sweeps/apga_ambiguities.py --design screening   # main effects of ten factors, 32 arms
"""

if __name__ == "__main__":  # before the imports, which take a second
    from sweeps.engine.session import listen

    listen()

from analysis import reporting
from sweeps.engine.cli import main
from sweeps.engine.study import Study

DEFAULT = {
    "target": "taken-action",
    "sampling": "bernoulli-grid",
    "samples": 4,
    "reward_granularity": "image",
    "reward_baseline": "leave-one-out",
    "reward_images": "positives",
    "advantage_scale": "running-rms",
    "lambda_mode": "constant",
    "erase_value": "blur",
    "bn_mode": "matched",
    "second_view_statistics": "separate",
    "empty_aid": "original",
}
SINGLE = {"samples": 1, "reward_baseline": "ema-before"}  # one action per image: no others to leave
MOVES = (
    {"target": "as-printed"},
    {"reward_baseline": "ema-before"},
    SINGLE,
    SINGLE | {"reward_baseline": "none"},
    SINGLE | {"reward_baseline": "ema-after"},
    SINGLE | {"sampling": "greedy"},
    SINGLE | {"sampling": "greedy", "target": "as-printed"},
    {"reward_granularity": "batch"},
    {"reward_images": "all"},
    {"advantage_scale": "none"},
    {"lambda_mode": "abs-advantage"},
    {"erase_value": "zero"},
    {"erase_value": "mean"},
    {"bn_mode": "released"},
    {"second_view_statistics": "shared"},
    {"second_view_statistics": "frozen"},
    {"second_view_statistics": "re-estimated"},
    {"empty_aid": "as-printed"},
)
ARMS = ({}, *MOVES)
# One action per image and greedy sampling exclude levels of other factors: not in a fraction.
SCREENING = {
    "sampling": ("bernoulli-grid",),
    "samples": (4,),
    "reward_baseline": ("leave-one-out", "ema-before"),
    "erase_value": ("blur", "zero"),
    "second_view_statistics": ("separate", "shared"),
}

STUDY = Study(
    name="apga_ambiguities",
    question="Which open or misprinted decision of the method changes what it learns?",
    core="apga_core",
    factors={
        name: tuple(dict.fromkeys((DEFAULT | move)[name] for move in ARMS)) for name in DEFAULT
    },
    baseline=DEFAULT,
    data="phantom-xray",
    tables=(),
    fixed={"method": "apga"},
    only=tuple(DEFAULT | move for move in ARMS),
    screening=SCREENING,
)

if __name__ == "__main__":
    main(STUDY, reporting.run, __doc__)
