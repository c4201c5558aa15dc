"""Reading the text files that come with data: UTF-8, with the numbers that an editor shows."""

import csv
from collections.abc import Sequence
from pathlib import Path

from imaging_core.datasets.base import DataError
from imaging_core.fields import did_you_mean

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


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


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str | None]]]:
    """(line, column → field) of each row under the header; None where a row is too short.

    Raises:
        DataError: no UTF-8, no CSV, or a header without one of `columns`.
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
    return [
        (line, dict.fromkeys(header) | dict(zip(header, record, strict=False)))
        for line, record in rows[1:]
    ]
