"""Files and folders as a person types them: made absolute once, where they are typed.

A worker runs elsewhere than the command line, so a relative path means another place to it.
"""

from pathlib import Path

from imaging_core.fields import ConfigError


def must_be_text(text: str, field: str) -> None:
    """Refuse what a row of the ledger cannot hold: bytes of another encoding than UTF-8.

    Raises:
        ConfigError: names the field and the remedy.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"{field} must be text in UTF-8, got {text!a}; set PYTHONUTF8=1 where the terminal's "
            "language hides it (LC_ALL=C), or rename the file"
        ) from None


def absolute(text: str, field: str) -> Path:
    """`text` as every process of this machine names it; `~` is the home directory.

    Args:
        text: a path as typed; it need not exist.
        field: what the user calls it, for the message.

    Raises:
        ConfigError: an empty path, one that no file can have or that is no UTF-8, a home directory
            that is unknown, or a working directory that is gone.
    """
    if not text.strip():
        raise ConfigError(f'{field} must name a file or folder, got "{text}"')
    must_be_text(text, field)
    if "\0" in text:
        raise ConfigError(f"{field} must be a path without NUL characters, got {text!r}")
    try:
        path = Path(text).expanduser()
    except RuntimeError:  # no HOME and no entry in the user database, or nobody of that name
        raise ConfigError(
            f'{field} must be a path, and the home directory in "{text}" is not known; set HOME, '
            "or write the path in full"
        ) from None
    try:
        return path.absolute()
    except FileNotFoundError:
        raise ConfigError(
            f'{field} must be a whole path here, got "{text}": the working directory is gone; '
            "change to one that is there"
        ) from None
