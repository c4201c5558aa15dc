"""Arms whose figures say less than they seem to: masks that hide all or nothing, chance accuracy.

An arm with such masks shows the classifier the original image again (or an empty one), so its
accuracy is not the method's; a comparison with an arm at chance is won by anything.
"""

from dataclasses import replace

import numpy as np

from analysis.comparisons import Arms, arms_of, values_of
from analysis.table import Table
from sweeps.ledger.read import Ledger

EMPTY_SHARE = 0.5  # of a cell's aid masks: from here on it is called empty
FULL_AREA = 0.95  # of an image that the masks keep: from here on a cell's are called full
CHANCE = 0.05
"""Informedness up to which a cell is called at chance: sensitivity + specificity − 1, which is 0
for any answer that does not depend on the image, whatever the number and the sizes of the classes
(macro one-vs-rest of many)."""
MOST_NAMES = 6


def degenerate_notes(ledger: Ledger) -> tuple[str, ...]:
    """One note per way in which most cells of some arm are degenerate; none where no arm is."""
    arms = arms_of(ledger)
    empty, area = (values_of(ledger, arms, name) for name in ("empty_masks", "mask_area"))
    sensitivity, specificity = (
        values_of(ledger, arms, name) for name in ("sensitivity", "specificity")
    )
    found = (
        (
            f"empty masks (at least {EMPTY_SHARE:.0%} of a cell's aid masks keep nothing)",
            "what these arms show is not what the method hides",
            _at_least(empty, EMPTY_SHARE),
        ),
        (
            f"full masks (they keep at least {FULL_AREA:.0%} of the image)",
            "these arms show the original image again",
            _at_least(area, FULL_AREA),
        ),
        (
            f"at chance (sensitivity + specificity − 1 of at most {CHANCE:.2f} on test)",
            "no difference to these arms says anything of a method",
            _at_least(1 - sensitivity - specificity, -CHANCE),
        ),
    )
    return tuple(
        f"warning, {what} in most cells: {named}; {why}."
        for what, why, (there, cells) in found
        if (named := _names(arms, there, cells))
    )


def _at_least(values: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """(arms,) cells of `values` (arms, seeds) from `least` on, and cells there are."""
    known = ~np.isnan(values)
    return (known & (values >= least)).sum(axis=1), known.sum(axis=1)


def _names(arms: Arms, there: np.ndarray, cells: np.ndarray) -> str:
    """`"apga (4 of 5), …"` of the arms with more than half of their cells among these."""
    most = [
        f"{label} ({n} of {of})"
        for label, n, of in zip(arms.labels, there, cells, strict=True)
        if n > of / 2
    ]
    more = f" and {len(most) - MOST_NAMES} more arms" if len(most) > MOST_NAMES else ""
    return ", ".join(most[:MOST_NAMES]) + more


def warned(ledger: Ledger, table: Table) -> Table:
    """`table` with the notes on degenerate arms under its own."""
    return replace(table, notes=table.notes + degenerate_notes(ledger))
