"""The one table model: every table is built once as these values, then written in each format."""

from collections.abc import Mapping
from dataclasses import dataclass, field

PLUS_MINUS = " ± "
MISSING = "—"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cell of a table.

    Attributes:
        text: what is printed, in plain Unicode ("83.26 ± 0.62").
        under: lines below it (the printed value, "n = 4/5").
        best: whether it is marked as the best.
        values: the numbers behind `text`, for the CSV.
        keys: the ledger's cells that the number aggregates.
        order: what the column is sorted by in the report; None keeps the text's order.
    """

    text: str
    under: tuple[str, ...] = ()
    best: bool = False
    values: Mapping[str, float | int | str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    order: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """A labelled row.

    Attributes:
        label, under: in the column of row labels; `under` names the entries' lines below.
        group: starts a new block of rows where it changes.
    """

    label: str
    entries: tuple[Entry, ...]
    under: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table in reading order.

    Attributes:
        name: file name without the suffix.
        title, notes: above and under the table.
        stub: head of the column of row labels.
        columns: heads of the other columns.
        prose: the columns that hold words and stand at the left of their room.
    """

    name: str
    title: str
    stub: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    prose: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.entries) != len(self.columns):
                raise ValueError(
                    f"table {self.name}: row {row.label!r} has {len(row.entries)} entries for "
                    f"{len(self.columns)} columns"
                )


def number(value: float, digits: int, *, percent: bool = False) -> str:
    """`value` as the papers print it: 83.26 for percent, .835 (no leading zero) for fractions.

    Minus is U+2212, so that a negative difference lines up and never reads as a dash.
    """
    text = f"{abs(value) * (100 if percent else 1):.{digits}f}"
    if not percent and text.startswith("0."):
        text = text[1:]
    negative = value < 0 and any(c not in ".0" for c in text)
    return ("−" if negative else "") + text


MORE_DIGITS = 3


def interval(low: float, high: float, digits: int, *, percent: bool = False) -> str:
    """`"[−.039, .120]"`; a bound gets the digits that say on which side of 0 it is."""

    def bound(value: float) -> str:
        for more in range(MORE_DIGITS + 1):
            text = number(value, digits + more, percent=percent)
            if value == 0 or any(c in "123456789" for c in text):
                return text
        return number(value, digits, percent=percent)

    return f"[{bound(low)}, {bound(high)}]"


def mean_std(mean: float, std: float | None, digits: int, *, percent: bool = False) -> str:
    """`".835 ± .007"`; the mean alone where one value has no spread."""
    shown = number(mean, digits, percent=percent)
    if std is None:
        return shown
    return shown + PLUS_MINUS + number(std, digits, percent=percent)
