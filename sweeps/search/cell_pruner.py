"""When is a cell that runs hopeless? Optuna's own pruners, asked while it learns. No Ray.

A group has a study of its own for it, whose trials are the arms' cells on the first tuning seed: a
cell is compared with cells that share its split, weights and batch order. Step k is the best value
of the cell's curve until then, what its objective would be if it ended there. A cell is judged
against what was known when its arm was taken up, so that the verdict is a function of that and of
its own curve: whoever computes it again ends it at the same step. Cells on further seeds run to
their end: `sweeps.search.pruner` has a paired test for them.

`tests/benchmarks/cell_pruner_errors.py` simulates how often the truly best arm is ended.
"""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

PRUNERS: Mapping[str, Callable[..., optuna.pruners.BasePruner]] = {
    "median": optuna.pruners.MedianPruner,
    "halving": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
}
"""Name → Optuna's class, whose arguments are the options and whose defaults are its own."""


def make_pruner(spec: str) -> optuna.pruners.BasePruner:
    """`"median"`, `"halving:reduction_factor=3,min_resource=2"`: Optuna's pruner of that name.

    Raises:
        ValueError: an unknown name or option, or a value that Optuna refuses.
    """
    name, _, text = spec.partition(":")
    if name not in PRUNERS:
        raise ValueError(f'--prune must be one of {", ".join(PRUNERS)}, got "{name}"')
    known = list(inspect.signature(PRUNERS[name]).parameters)
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        option, _, value = (each.strip() for each in part.partition("="))
        if option not in known:
            raise ValueError(
                f'--prune {name} has no option "{option}"; it has {", ".join(known)} '
                "(optuna.pruners says what they mean)"
            )
        try:
            options[option] = value if value == "auto" else int(value)
        except ValueError:
            raise ValueError(
                f'--prune {name}:{option} must be a whole number, or auto, got "{value}"'
            ) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            return PRUNERS[name](**options)
        except (TypeError, ValueError) as error:
            raise ValueError(f"--prune {spec} is refused by Optuna: {error}") from None


@dataclass(frozen=True, kw_only=True)
class Known:
    """A cell of the same seed that is over.

    Attributes:
        place: its arm's place among the proposals of its group, from 0.
        curve: its values, all of them or until it was ended.
        pruned: whether it was ended.
    """

    place: int
    curve: Sequence[float]
    pruned: bool = False


class CellPruner:
    """Optuna's pruner and the study that it reads: the cells of one group on one seed.

    Args:
        spec: as `make_pruner` takes it.
        name: of the study; Hyperband assigns its brackets by this and the arms' places.
        known: the cells that are over, each replayed as it was, in the order of their places.
    """

    def __init__(self, spec: str, *, name: str, maximize: bool, known: Iterable[Known]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._maximize = maximize
        self._study = optuna.create_study(
            study_name=name,
            direction="maximize" if maximize else "minimize",
            pruner=make_pruner(spec),
            # Nothing is sampled: the trials have no parameters.
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        for cell in sorted(known, key=lambda cell: cell.place):
            self.begin(cell.place)
            self.hear(cell.curve)
            self.end(pruned=cell.pruned)

    def begin(self, place: int) -> None:
        """The cell of the arm at `place`, above those before, begins; places between have none.

        Raises:
            ValueError: it comes after one with a higher place.
        """
        there = len(self._study.get_trials(deepcopy=False))
        if place < there:
            raise ValueError(
                f"cells must come in the order of their places, got {place} at {there}"
            )
        for _ in range(there, place):
            self._study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
        self._trial = self._study.ask()
        self._best: list[float] = []

    def hear(self, curve: Sequence[float]) -> int | None:
        """The cell's curve so far, with what was heard before; the step at which it is to end.

        Every step is judged in its turn, however many are new. None: the cell goes on.
        """
        ended = None
        for step in range(len(self._best) + 1, len(curve) + 1):
            better = max if self._maximize else min
            value = float(curve[step - 1])
            self._best.append(better([value, *self._best[-1:]]))
            self._trial.report(self._best[-1], step)
            if self._trial.should_prune() and ended is None:
                ended = step
        return ended

    def end(self, *, pruned: bool) -> None:
        """The cell is over, all of it or because it was ended."""
        if pruned or not self._best:
            self._study.tell(self._trial, state=TrialState.PRUNED)
        else:
            self._study.tell(self._trial, self._best[-1])
