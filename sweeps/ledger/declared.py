"""What a study declared before it ran: how its comparisons are decided.

It stands in `study.json` under `extra`: `declared`, and what it replaced under `declared_before`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from sweeps.ledger.schema import LedgerError, Manifest

DECLARED, BEFORE = "declared", "declared_before"
TASK_FACTORS = ("data", "body_part", "view", "k_shot", "pool", "pool_kind", "pool_label_noise")
"""Factors that change the task and not the method: an arm is compared within its own task."""
PARTITIONS = ("split_seed", "fold")
"""Factors whose levels deal the same images out to other parts: replicates, as seeds are."""


@dataclass(frozen=True, kw_only=True)
class Declared:
    """How a study decides.

    Attributes:
        metric: the primary one; every other is exploratory.
        higher_is_better: its direction.
        margin: the smallest difference of it that matters, in its unit.
        error: the chance of one wrong answer or more among the comparisons.
        comparisons: every arm with the baseline of its task.
        baseline: the levels of the arm that the others are compared with.
        looks: seeds at which answers are looked for; one look where the study is no race.
        partitions: of the images into parts that each arm has; 0 where the split is no factor.
        overlap: test images for each one that is learned from (training and validation), on
            average; partitions share most of those, so that their differences are correlated.
        after_cells: cells of this plan that were there when it was declared; 0: before the run.
    """

    metric: str
    higher_is_better: bool
    margin: float
    error: float
    comparisons: int
    baseline: Mapping[str, str]
    looks: tuple[int, ...]
    partitions: int = 0
    overlap: float = 0.0
    after_cells: int = 0

    def same(self, other: "Declared") -> bool:
        """Whether both say the same, whenever they were said."""
        return replace(self, after_cells=0) == replace(other, after_cells=0)


_KIND = TypeAdapter(Declared)


def declared_in(manifest: Manifest) -> tuple[Declared | None, tuple[Declared, ...]]:
    """What the study declared, and what that replaced, oldest first; None where it did not.

    Raises:
        LedgerError: what stands there is no declaration.
    """
    try:
        now = manifest.extra.get(DECLARED)
        before = manifest.extra.get(BEFORE, ())
        return (
            None if now is None else _KIND.validate_python(now),
            tuple(_KIND.validate_python(each) for each in before),
        )
    except (ValidationError, TypeError) as error:
        what = str(error).splitlines()[0]
        raise LedgerError(
            f"study.json of {manifest.study}: what it declared is damaged ({what}); run the "
            "study's script again, which writes it anew"
        ) from None


def declaring(now: Declared, manifest: Manifest, earlier: Manifest | None) -> dict[str, Any]:
    """What `extra` says of `now`, `earlier` being the plan that `manifest` replaces.

    The first declaration of an experiment stands. One that replaces it when cells were there is
    written down as a change; before the first cell nothing was seen, and it may be changed freely.
    """
    before: Sequence[Declared] = ()
    if earlier is not None and _same_experiment(manifest, earlier):
        try:
            first, before = declared_in(earlier)
        except LedgerError:
            first = None
        if first is not None and first.same(now):
            now = first
        elif first is not None and now.after_cells:
            before = (*before, first)
    told = {DECLARED: asdict(now)}
    return told | ({BEFORE: [asdict(each) for each in before]} if before else {})


def _same_experiment(one: Manifest, other: Manifest) -> bool:
    """Whether both are about the same data, seen the same way."""
    names = ("core", "preset", "data_fingerprint", "protocol")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def reference_rows(arms: Sequence[Mapping[str, str]], baseline: Mapping[str, str]) -> np.ndarray:
    """For each arm (its levels), the place of the baseline within the same task; −1: there is none.

    The baseline's own place is its own.
    """
    places = {tuple(sorted(levels.items())): place for place, levels in enumerate(arms)}
    method = {name: level for name, level in baseline.items() if name not in TASK_FACTORS}
    rows = []
    for levels in arms:
        own = {name: level for name, level in method.items() if name in levels}
        rows.append(places.get(tuple(sorted({**levels, **own}.items())), -1))
    return np.array(rows, dtype=int)


def without_partition(levels: Mapping[str, str]) -> dict[str, str]:
    """The levels of an arm, whatever its partition."""
    return {name: level for name, level in levels.items() if name not in PARTITIONS}


def partition_of(levels: Mapping[str, str]) -> tuple[str, ...]:
    """The levels that `without_partition` leaves out, in the order of PARTITIONS."""
    return tuple(levels[name] for name in PARTITIONS if name in levels)


def compared(arms: Sequence[Mapping[str, str]], baseline: Mapping[str, str]) -> list[int]:
    """The places of the arms that have a baseline to be compared with: the family."""
    return [i for i, r in enumerate(reference_rows(arms, baseline)) if r >= 0 and r != i]
