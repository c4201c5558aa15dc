"""The rules by which a claim of the papers is confirmed, contradicted or left undecided."""

from dataclasses import dataclass
from typing import Literal

from analysis.inference import ALPHA, MOST_SEEDS, Paired
from analysis.likeness import Unlike

Label = Literal[
    "confirmed",
    "smaller effect",
    "contradicted",
    "undecided",
    "different data",
    "different setting",
]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What our cells say about one claim.

    Attributes:
        label: the verdict.
        text: the verdict with its n; where the experiment is another one, without.
        ours: what our own cells say where the experiment is another one.
    """

    label: Label
    text: str
    ours: str = ""


def more_seeds(found: Paired) -> str:
    """`"about 7 more seeds"`, or why there is no number.

    At least one where the power says that the seeds there suffice.
    """
    if found.n == 0:
        return "not run here"
    if found.n < 2:
        return "too few common seeds to say how many more"
    if found.mean == found.std == 0:
        return "equal on every seed"
    if found.seeds_needed is None:
        return f"more than {MOST_SEEDS} seeds in all"
    more = max(found.seeds_needed - found.n, 1)
    return f"about {more} more seed{'' if more == 1 else 's'}"


def _on_our_cells(found: Paired, printed: float) -> Verdict:
    if found.n >= 2 and found.p_holm <= ALPHA and found.mean != 0:
        if found.mean > 0 and found.high < printed:
            return Verdict(
                label="smaller effect",
                text=f"same direction, smaller effect than printed (n = {found.n})",
            )
        if found.mean > 0:
            return Verdict(label="confirmed", text=f"confirmed (n = {found.n})")
        return Verdict(label="contradicted", text=f"contradicted (n = {found.n})")
    return Verdict(label="undecided", text=f"undecided (n = {found.n}; {more_seeds(found)})")


def verdict(found: Paired, unlike: Unlike, *, printed: float) -> Verdict:
    """The verdict on "A beats B", `found` being A minus B over common seeds.

    1. The study did not run on the paper's dataset: *different data*, whatever the numbers. It did,
       but with another protocol, image size, network or other value that the paper states:
       *different setting*. What our own cells say stands under it.
    2. Holm-adjusted p ≤ 0.05 over the claims of the table: *contradicted* where B is the better
       one; where A is, *confirmed* if the 95 % interval reaches the printed difference, else *same
       direction, smaller effect*: a replication is of the effect and not of its sign. p is the
       exact sign-flip p up to 12 common seeds, the paired t-test's above.
    3. Otherwise *undecided*, with n and the seeds that 80 % power would need at the effect seen.
       Fewer than two common seeds are always undecided.

    Args:
        found: sign turned so that a positive mean favours A (for a metric where lower is better,
            B minus A).
        printed: the printed difference, A minus B, in the unit of `found`.
        unlike: what keeps the cells of A and B from being the paper's experiment
            (`analysis.likeness.unlike`).
    """
    ours = _on_our_cells(found, printed)
    if not unlike:
        return ours
    label: Label = "different data" if unlike.data else "different setting"
    return Verdict(label=label, text=label, ours=f"on ours: {ours.text}")
