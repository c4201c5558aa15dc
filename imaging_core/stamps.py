"""Paths that carry a hash of what they name: `PATH#0123456789abcdef`.

A configuration stamps its paths when it is made, so that results belong to the content and not to a
place whose content may change. No torch.
"""

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from imaging_core.places import absolute

LENGTH = 16  # hexadecimal digits of SHA-256


def split_stamp(path: str) -> tuple[Path, str]:
    """`"a/b#0f…"` → (/…/a/b, "0f…"); the stamp is empty where there is none.

    The path is absolute: a worker may run elsewhere than the command line.
    """
    place, _, stamp = path.partition("#")
    return absolute(place, "a path"), stamp


def stamped(path: str, digest: Callable[[Path], str], *, what: str) -> str:
    """`path` with the stamp of what is there now.

    Args:
        digest: the place → its stamp.
        what: of what the stamp is, for the message ("images", "a file").

    Raises:
        ValueError: the content is other than that of the stamp that `path` carries already.
    """
    place, stamp = split_stamp(path)
    now = digest(place)
    if stamp not in ("", now):
        raise ValueError(
            f"{place} holds {what} other than when the study was planned (stamp {now} instead of "
            f"{stamp}); put it back, or name it without #{stamp} to compute anew"
        )
    return f"{place}#{now}"


def file_digest(path: Path) -> str:
    """The stamp of a file's bytes.

    Raises:
        ValueError: no such file, or one that cannot be read.
    """
    try:
        at = path.stat()
        if not path.is_file():
            raise ValueError(f'must name a file, "{path}" is none')
        return _file_digest(path, at.st_mtime_ns, at.st_size)
    except OSError as error:
        raise ValueError(f'must name a file, "{path}" is none ({error.strerror})') from None


@lru_cache(maxsize=32)
def _file_digest(path: Path, _modified: int, _size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:LENGTH]


def stamped_file(path: str) -> str:
    """`path` of a file, absolute and stamped with its content; an empty text stays empty.

    Raises:
        ValueError: no such file, or another content than its stamp says.
    """
    return stamped(path, file_digest, what="a file") if path else ""
