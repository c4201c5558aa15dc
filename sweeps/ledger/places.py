"""Where results are, as a person types it: a folder, made absolute, or a URI."""

import re
from pathlib import Path

from sweeps.ledger.schema import LedgerError

SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def whole(text: str, what: str = "--results") -> str:
    """A folder as every process of this machine names it (`~` is the home), or the URI as it is.

    Args:
        text: as typed; it need not exist.
        what: what the user calls it, for the message.

    Raises:
        LedgerError: nothing at all, half a URI, a path that no folder can have, a home directory
            that is unknown, or a working directory that is gone.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise LedgerError(
            f"{what} must be text in UTF-8, got {text!a}; set PYTHONUTF8=1 where the terminal's "
            "language hides it (LC_ALL=C), or use another name"
        ) from None
    if "://" in text:
        return text
    if not text.strip():
        raise LedgerError(f'{what} must name a folder or a URI, got "{text}"')
    if "\0" in text:
        raise LedgerError(f"{what} must be a path without NUL characters, got {text!r}")
    scheme = SCHEME.match(text)
    if scheme:
        rest = text[scheme.end() :].lstrip("/")
        slashes = ":///" if scheme[1].lower() == "file" else "://"
        raise LedgerError(
            f'{what} must be a folder or a URI, got "{text}": a URI is written '
            f"{scheme[1]}{slashes}{rest}, a folder of that name ./{text}"
        )
    if "\\" in text:
        raise LedgerError(
            f'{what} must have / between folders, got "{text}"; write {text.replace(chr(92), "/")}'
        )
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError:  # no HOME and no entry in the user database, or nobody of that name
        raise LedgerError(
            f'the home directory in {what} "{text}" is not known; set HOME, or write the path in '
            "full"
        ) from None
    except FileNotFoundError:
        raise LedgerError(
            f'{what} must be a whole path here, got "{text}": the working directory is gone; '
            "change to one that is there"
        ) from None
