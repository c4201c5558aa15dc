"""Where decoded pixels are kept between commands, and under which name.

The cache may be deleted at any moment; where its folder cannot be written, there is none.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

VARIABLE = "MEDRL_IMAGE_CACHE"  # a folder; "off" or nothing: none
DEFAULT_FOLDER = "~/.cache/medrl-sweeps/images"
CACHE_FROM = 256  # images; fewer are decoded sooner than they are worth keeping
LAYOUT = 4  # goes up when the same file gives other pixels, or the cache's files another shape
POLL_S = 0.2
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def cache_folder() -> Path | None:
    """Where the cache is; None where VARIABLE is "off" or empty, or no home is known.

    A path that is not whole is one below the home directory: workers run in folders of their own.
    """
    where = os.environ.get(VARIABLE, DEFAULT_FOLDER).strip()
    if where.lower() in ("", "off"):
        return None
    try:
        return Path(where if where.startswith(("/", "~")) else f"~/{where}").expanduser()
    except RuntimeError:
        return None


def key_of(root: Path, names: Sequence[str], recipe: object) -> str | None:
    """A name for what `recipe` makes of these files, by their sizes and times; None: one is gone.

    Args:
        root: the dataset's folder.
        names: paths inside it, in the order in which they are read.
    """
    digest = hashlib.sha256(repr((LAYOUT, str(root.resolve()), recipe)).encode())
    for name in names:
        try:
            status = os.stat(os.path.join(root, name))
        except OSError:
            return None
        digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def alone(lock: Path, waiting: Callable[[], None]) -> Iterator[bool]:
    """No other process of this node is in a block of the same `lock` meanwhile.

    The kernel frees the lock of a process that dies, so none is ever stale.

    Args:
        waiting: called again and again while another process is in such a block.

    Yields:
        False where the file system knows no locks: then nobody is kept out.
    """
    handle = os.open(lock, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waiting()
                time.sleep(POLL_S)
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                yield False
                return
        yield True
    finally:
        os.close(handle)
