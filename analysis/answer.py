"""The answer first: what a study decided, by how much, on what, with what error, what is open.

One to three sentences by rule from `analysis.decisions`; `tables/answer.md`, the terminal's last
lines and the top of a study in the report are these.
"""

from collections.abc import Callable, Sequence

from analysis.aggregate import data_names
from analysis.comparisons import baseline_name
from analysis.decisions import Decision, Decisions, decisions
from analysis.effects import effect_sentence
from analysis.render import markdown_text
from analysis.table import number
from sweeps.ledger.read import Ledger

MOST_NAMED = 4
SPACE = "space"  # what the ledger of a search says in place of a declaration
NOTHING = "Nothing is compared here: there is one arm alone, or no metric says which arm is better."
OF_A_SEARCH = (
    "A search declares no comparison; its winners and the defaults are compared by the study that "
    "reruns both."
)
NO_CELLS = "Nothing is decided yet: no arm and its baseline have a finished seed in common."


def answer_sentences(ledger: Ledger) -> tuple[str, ...]:
    """The study's answer, one to three plain sentences.

    Raises:
        LedgerError: what the study declared is damaged.
    """
    if SPACE in ledger.manifest.extra:
        return (OF_A_SEARCH,)
    found = decisions(ledger)
    if found is None:
        return (NOTHING,)
    if not any(decision.pair.n for decision in found.every):
        return (NO_CELLS,)
    there = f"Against {baseline_name(ledger)} on {', '.join(data_names(ledger.manifest))}"
    said = [f"{there}, {_decided(found)}."]
    if averaged := effect_sentence(ledger):
        said.append(averaged)
    left = [decision for decision in found.every if decision.answer == "undecided"]
    if left:
        said.append(f"Open: {_named(found, left, _price)}.")
    if len(left) < len(found.every):
        said.append(_error(found, everything=not left))
    elif found.declared is None:
        said.append("Nothing was declared before the run.")
    return tuple(said)


def _decided(found: Decisions) -> str:
    """`"accuracy is better with a (+.050, 12 seeds) and worse with b (−.041, 12 seeds)"`."""
    of = {
        answer: [decision for decision in found.every if decision.answer == answer]
        for answer in ("better", "worse", "equivalent")
    }
    parts = [
        f"{word} with {_named(found, of[word], _size)}" for word in ("better", "worse") if of[word]
    ]
    if of["equivalent"]:
        margin = number(found.rule.margin, 3)
        same = _named(found, of["equivalent"], _where)
        parts.append(f"no different by as much as {margin} with {same}")
    if not parts:
        return f"no arm is decided by {found.metric.label}"
    return f"{found.metric.label} is {_joined(parts)}"


def _joined(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"


def _named(
    found: Decisions,
    of: Sequence[Decision],
    more: Callable[[Decisions, Decision], str],
) -> str:
    """The arms with the largest differences first, each with what `more` says of it."""
    first = sorted(of, key=lambda decision: -abs(decision.pair.mean))[:MOST_NAMED]
    names = _names(found)
    said = [names[one.row] + (f" ({what})" if (what := more(found, one)) else "") for one in first]
    rest = len(of) - len(first)
    between = "; " if any(", " in names[one.row] for one in first) else ", "
    return between.join(said) + (f" and {rest} more" if rest else "")


def _names(found: Decisions) -> dict[int, str]:
    """Row → the levels in which the arm differs from its baseline; all, where that is ambiguous."""
    full = {one.row: found.arms.labels[one.row] for one in found.every}
    short, places = {}, set()
    for one in found.every:
        own, base = (found.arms.labels[row].split(", ") for row in (one.row, one.reference))
        if len(own) != len(base):
            return full
        places |= {*enumerate(own), *enumerate(base)}
        short[one.row] = ", ".join(a for a, b in zip(own, base, strict=True) if a != b)
    several = len({level for _, level in places}) < len(places)  # factors have a level's name
    return full if several or len(set(short.values())) < len(short) else short


def _size(found: Decisions, decision: Decision) -> str:
    sign = "+" if decision.pair.mean > 0 else ""
    mean = number(decision.pair.mean, found.metric.digits)
    small = decision.text.partition(", ")[2]
    more = f",{decision.scope}" * bool(decision.scope) + f", {small}" * bool(small)
    return f"{sign}{mean}, {decision.pair.n} {decision.over}{more}"


def _where(found: Decisions, decision: Decision) -> str:
    return decision.scope.strip()


def _price(found: Decisions, decision: Decision) -> str:
    return decision.price


def _error(found: Decisions, *, everything: bool) -> str:
    """With what error, for which source of variance, and declared when."""
    count = len(found.every)
    these = f"any of the {count} answers" if count > 1 else "the answer"
    the = "Nothing is open; the" if everything else "The"
    text = (
        f"{the} chance that {these} is wrong is at most {found.rule.error:.0%}, {_sources(found)}"
    )
    if found.declared is None:
        return f"{text}; nothing was declared before the run."
    if found.before:
        return f"{text}, had the declaration not been changed after cells were there."
    if found.declared.after_cells:
        return f"{text}; declared when {found.declared.after_cells} cells were there."
    return f"{text}, as declared before the run."


def _sources(found: Decisions) -> str:
    """Which sources of variance the error is about."""
    if found.partitioned is not None:
        return "for training anew on other partitions of such patients"
    known = [one.for_others for one in found.every if one.answer != "undecided"]
    if not known or None in known:
        return "for training anew and the same test patients"
    if all(known):
        return "for training anew and other test patients"
    return "for training anew and, where not said otherwise, other test patients"


def answer_markdown(ledger: Ledger) -> str:
    """`tables/answer.md`: the study's question and its answer."""
    manifest = ledger.manifest
    said = "\n\n".join(markdown_text(sentence) for sentence in answer_sentences(ledger))
    return f"### {markdown_text(manifest.study)}: {markdown_text(manifest.question)}\n\n{said}\n"
