"""The rules by which a claim of the papers is confirmed, contradicted or left undecided."""

from dataclasses import dataclass
from typing import Literal

from analysis.inference import Paired
from analysis.likeness import Unlike
from sweeps.search.decide import Answer

Label = Literal[
    "confirmed",
    "smaller effect",
    "contradicted",
    "equivalent",
    "undecided",
    "exploratory",
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


def _on_our_cells(
    found: Paired, answer: Answer | None, printed: float, price: str, scope: str
) -> Verdict:
    count = f"n = {found.n}{scope}"
    if answer is None:
        return Verdict(label="exploratory", text=f"exploratory ({count})")
    if answer == "better" and found.high < printed:
        return Verdict(
            label="smaller effect", text=f"same direction, smaller effect than printed ({count})"
        )
    if answer == "better":
        return Verdict(label="confirmed", text=f"confirmed ({count})")
    if answer == "worse":
        return Verdict(label="contradicted", text=f"contradicted ({count})")
    if answer == "equivalent":
        return Verdict(label="equivalent", text=f"no difference that matters ({count})")
    return Verdict(label="undecided", text=f"undecided ({count}; {price})")


def verdict(
    found: Paired,
    answer: Answer | None,
    unlike: Unlike,
    *,
    printed: float,
    price: str = "",
    scope: str = "",
) -> Verdict:
    """The verdict on "A beats B", `found` being A minus B over common seeds.

    1. The study did not run on the paper's dataset: *different data*, whatever the numbers. It did,
       but with another protocol, image size, network or other value that the paper states:
       *different setting*. What our own cells say stands under it.
    2. The claim is none of the study's declared comparisons (another metric than the primary one,
       or neither arm is its baseline): *exploratory*, which decides nothing.
    3. What `analysis.decisions` decided: B better: *contradicted*; A better: *confirmed* if the
       95 % interval reaches the printed difference, else *same direction, smaller effect*: a
       replication is of the effect and not of its sign; equivalent: *no difference that matters*.
    4. Otherwise *undecided*, with n and what would settle it.

    Args:
        found: sign turned so that a positive mean favours A (for a metric where lower is better,
            B minus A).
        answer: of A against B; None where no decision was asked for.
        printed: the printed difference, A minus B, in the unit of `found`.
        unlike: what keeps the cells of A and B from being the paper's experiment
            (`analysis.likeness.unlike`).
        price: of an open comparison, in words.
        scope: where the answer holds, if not for other test patients too.
    """
    ours = _on_our_cells(found, answer, printed, price, scope)
    if not unlike:
        return ours
    label: Label = "different data" if unlike.data else "different setting"
    return Verdict(label=label, text=label, ours=f"on ours: {ours.text}")
