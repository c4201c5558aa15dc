"""Optuna's pruners on running cells: literal verdicts, replays, and how often the best is ended."""

import numpy as np
import pytest
from cell_pruner_errors import simulate

from sweeps.engine.judging import Ended, Judge
from sweeps.search.cell_pruner import PRUNERS, CellPruner, Known, make_pruner

FLAT = [Known(place=p, curve=[0.5] * 4) for p in range(5)]


def test_an_unknown_pruner_or_option_is_refused_by_name():
    for spec, words in (
        ("mediann", '--prune must be one of median, halving, hyperband, got "mediann"'),
        ("median:warmup=3", 'median has no option "warmup"; it has n_startup_trials, n_warmup'),
        (
            "median:n_warmup_steps=x",
            "--prune median:n_warmup_steps must be a whole number, or auto",
        ),
        ("median:n_warmup_steps=-1", "--prune median:n_warmup_steps=-1 is refused by Optuna: "),
    ):
        with pytest.raises(ValueError, match=words.replace("(", r"\(")):
            make_pruner(spec)
    assert type(make_pruner("halving:reduction_factor=3")) is PRUNERS["halving"]


def asked(maximize: bool, *curve: float, known=FLAT) -> int | None:
    pruner = CellPruner("median", name="s", maximize=maximize, known=known)
    pruner.begin(7)
    return pruner.hear(curve)


def test_a_cell_is_ended_at_the_step_at_which_its_best_is_below_the_median():
    assert asked(True, 0.6, 0.1, 0.1) is None  # its best stays above
    assert asked(True, 0.5, 0.5) is None  # no worse than the median
    assert asked(True, 0.4, 0.6) == 1
    assert asked(False, 0.6, 0.4) == 1
    assert asked(False, 0.4, 0.6) is None


def test_four_cells_are_not_enough_and_one_that_was_ended_does_not_count():
    assert asked(True, 0.4, known=FLAT[:4]) is None
    ended = Known(place=4, curve=[0.5], pruned=True)
    assert asked(True, 0.4, known=[*FLAT[:4], ended]) is None


def test_places_come_in_order():
    pruner = CellPruner("median", name="s", maximize=True, known=FLAT)
    with pytest.raises(ValueError, match="order of their places, got 3 at 5"):
        pruner.begin(3)


@pytest.mark.parametrize("spec", ["median", "halving:reduction_factor=2", "hyperband"])
def test_a_study_that_is_built_anew_gives_the_verdicts_of_the_one_that_lived(spec):
    generator = np.random.default_rng(3)
    places = [p for p in range(24) if p not in (2, 9, 10)]  # arms without a cell on this seed
    curves = {p: np.cumsum(generator.random(12)) + generator.normal() for p in places}
    lived = CellPruner(spec, name="s", maximize=True, known=())
    over: list[Known] = []
    for place in places:
        lived.begin(place)
        steps = range(1, 13)
        ended = next((k for k in steps if lived.hear(curves[place][:k]) is not None), None)
        lived.end(pruned=ended is not None)
        if place % 4 == 3:
            anew = CellPruner(spec, name="s", maximize=True, known=reversed(over))
            anew.begin(place)
            assert anew.hear(curves[place]) == ended  # all of it at once, as after a kill
        over.append(Known(place=place, curve=curves[place][:ended], pruned=ended is not None))
    assert 3 < sum(cell.pruned for cell in over) < 20


def judged(**changes):
    known = [[cell.place, list(cell.curve), cell.pruned] for cell in FLAT]
    return {"by": "median", "curve": "score", "name": "s", "maximize": True, "place": 5,
            "known": known, "record": "r.json", **changes}  # fmt: skip


def test_a_judge_ends_the_work_and_not_a_cell_that_is_through():
    told = []
    judge = Judge(judged(), lambda *said: told.append(said[0]))
    judge(0.1, "", None)
    judge(0.2, "", {"other": [0.0]})
    judge(1.0, "", {"score": [0.1, 0.1, 0.1, 0.1]})
    with pytest.raises(Ended) as end:
        judge(0.5, "", {"score": [0.1]}) or judge(0.6, "", {"score": [0.1, 0.2, 0.3, 0.4, 0.1]})
    assert told == [0.1, 0.2, 1.0, 0.5]
    assert (end.value.step, end.value.curve) == (1, (0.1,))


@pytest.mark.slow
@pytest.mark.parametrize(("spec", "most_ended", "least_saved"), [
    ("median:n_startup_trials=8,n_warmup_steps=10", 0.2, 0.35),
    ("hyperband", 0.35, 0.5),
])  # fmt: skip
def test_how_often_the_truly_best_of_twenty_arms_is_ended(spec, most_ended, least_saved):
    """A lead of two standard deviations; sweeps/README.md has the whole table."""
    ended, saved = simulate(spec, gap=2.0, runs=60)
    assert ended <= most_ended
    assert saved >= least_saved
