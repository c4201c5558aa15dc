"""Reading the text files that come with data: UTF-8, with the numbers that an editor shows."""

import csv
import re
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from imaging_core.datasets.base import DataError
from imaging_core.datasets.images import refuse
from imaging_core.fields import did_you_mean

MISSING = frozenset(
    (
        "nan",
        "na",
        "n/a",
        "#n/a",
        "<na>",
        "nat",
        "null",
        "none",
        "nil",
        "?",
        "-",
        "unknown",
        "missing",
    )
)
"""What tables write for a value that is not there, as `one_form` gives it."""

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def one_form(text: str) -> str:
    """What two spellings of one name share: Unicode form, case, spaces, characters without ink."""
    shown = "".join(c for c in text if unicodedata.category(c) != "Cf")
    folded = unicodedata.normalize("NFKC", shown).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]\d{1,3})?")
"""A number as spreadsheets and pandas write it; without a sign `1e3` is rather a name."""


def number_in(text: str) -> Fraction | None:
    """The number that a name is when a spreadsheet or pandas reads it; None for any other name."""
    form = one_form(text)
    return Fraction(form) if form.isascii() and _NUMBER.fullmatch(form) else None


class Spellings:
    """Refuses two spellings of one name: `Jose` and `jose `, `12`, `012` and `12.0`."""

    def __init__(self, column: str) -> None:
        """`column` is what the names are of, as a message calls it."""
        self._column = column
        self._first: dict[str | Fraction, tuple[str, int]] = {}
        self._fine: set[str] = set()  # names that are the first of their form: 300,000 rows repeat

    def problem(self, name: str, line: int) -> str | None:
        """What is wrong with `name` in `line` of the file, None where nothing is."""
        if name in self._fine:
            return None
        number = number_in(name)
        key = one_form(name) if number is None else number
        first, where = self._first.setdefault(key, (name, line))
        if first == name:
            self._fine.add(name)
            return None
        start = f'{self._column} "{name}" must be spelled as in line {where} ("{first}")'
        if number is None or one_form(first) == one_form(name):
            return f"{start}, or differ in more than case, spaces or Unicode form"
        return (
            f"{start}: both are the number {number}, as a spreadsheet changes numbers; write one "
            f"form, or put a letter before numbers that are names (P{one_form(first)})"
        )


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        DataError: it cannot be read, or is in another encoding; its first line that is so is named.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} must be a file that can be read: {error.strerror}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path} must be text in UTF-8, line {line} is not ({error.reason}); save it as UTF-8"
        ) from None


def read_rows_of(path: Path) -> list[tuple[int, list[str]]]:
    """(line, fields) of each row of a CSV file, as an editor counts lines; blank lines have none.

    Raises:
        DataError: no UTF-8, or no CSV.
    """
    reader = csv.reader(read_text(path).splitlines(keepends=True))
    try:
        return [(reader.line_num, record) for record in reader if record]
    except csv.Error as error:
        raise DataError(f"{path} must be a CSV file: line {reader.line_num}: {error}") from None


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(line, column → field) of each row under the header.

    Raises:
        DataError: no UTF-8, no CSV, a header without one of `columns` or with a name twice, or
            rows that are wider or narrower than the header (all listed).
    """
    rows = read_rows_of(path)
    header = [name.strip() for name in rows[0][1]] if rows else []
    missing = [name for name in columns if name not in header]
    if missing:
        for mark, name in SEPARATORS.items():
            if len(header) == 1 and mark in header[0]:
                raise DataError(
                    f"{path} must have commas between its columns, it has {name}; export it as CSV "
                    "with commas"
                )
        got = ", ".join(header) or "nothing"
        raise DataError(
            f'{path} must have a column "{missing[0]}"{did_you_mean(missing[0], header)}, got {got}'
        )
    forms = [one_form(name) for name in header]
    twice = sorted(
        {name for name, form in zip(header, forms, strict=True) if forms.count(form) > 1}
    )
    if any(twice):
        listed = ", ".join(f'"{name}"' for name in twice if name)
        raise DataError(f"{path} must name each column once, its header repeats {listed}")
    _refuse_other_widths(path, header, rows[1:])
    return [(line, dict(zip(header, record, strict=True))) for line, record in rows[1:]]


def _refuse_other_widths(
    path: Path, header: Sequence[str], rows: Sequence[tuple[int, list[str]]]
) -> None:
    width, problems = len(header), []
    for line, record in rows:
        rule = f"a row must have the header's {width} fields, got {len(record)}"
        if len(record) < width:
            problems.append(f"line {line}: {header[len(record)]} must be there; {rule}")
        elif len(record) > width:
            problems.append(
                f'line {line}: {rule} (the last is "{record[-1]}"); a field with a comma stands in '
                '"quotes"'
            )
    refuse(path, problems, len(rows), "rows")
