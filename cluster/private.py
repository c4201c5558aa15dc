"""The folder of a local cluster, for its owner alone: token, sockets and logs of Ray.

Ray's own places are open: `~/.ray/auth_token` is made readable by everybody and the session's
folder writable by everybody, so another user of the machine could join, and run commands as us.
"""

import json
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.owner import OWNER, lives, this_process

PREFIX = "medrl-"
RAYS = "r"  # a folder inside, since Ray opens the one that it is given to everybody (0777)
LONGEST_PLACE = 22  # characters; Ray's sockets lie 85 deeper, and a socket's path has 107 at most
GONE_S = 5.0
TOKEN_VARIABLES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN")


def _places() -> list[Path]:
    """Where such folders may be: the one to make the next in goes first."""
    named = [os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), "/tmp"]
    return [Path(name) for name in dict.fromkeys(named) if name and len(name) <= LONGEST_PLACE]


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder (0700) for Ray, with a new token (0600) that it will use while the block runs.

    Yields:
        where Ray may put its session.

    At the end the token goes; Ray's logs stay until the next local cluster starts.

    Raises:
        OSError: none of the places for temporary files can be written.
    """
    clear_dead()
    folder = _make()
    (folder / OWNER).write_text(json.dumps(this_process()))
    token = folder / "auth_token"
    with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
        stream.write(secrets.token_hex(32))
    before = {name: os.environ.pop(name, None) for name in TOKEN_VARIABLES}
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token))
    try:
        yield folder / RAYS
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        token.unlink(missing_ok=True)


def _make() -> Path:
    problem: OSError | None = None
    for place in _places():
        try:
            return Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))  # 0700
        except OSError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def clear_dead() -> None:
    """Remove the folders of local clusters whose owner is dead, and end what still runs of them.

    Folders of other users, and those whose owner cannot be seen from here (another container),
    are left alone.
    """
    for place in _places():
        for folder in place.glob(f"{PREFIX}*"):
            if _is_dead(folder):
                _end_processes(folder)
                shutil.rmtree(folder, ignore_errors=True)


def _is_dead(folder: Path) -> bool:
    try:
        if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
            return False
        return lives(json.loads((folder / OWNER).read_text())) is False
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def _processes(folder: Path) -> list[int]:
    """Processes of ours that were told to work in `folder`, as each daemon of Ray's is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            ours = entry.stat().st_uid == os.geteuid()
        except OSError:
            continue  # it has ended meanwhile
        named = (f"={folder}/".encode(), f"={folder}".encode())
        if ours and any(
            argument.startswith(b"-") and (named[0] in argument or argument.endswith(named[1]))
            for argument in arguments
        ):
            found.append(int(entry.name))
    return found


def _end_processes(folder: Path) -> None:
    deadline = time.monotonic() + GONE_S
    while (left := _processes(folder)) and time.monotonic() < deadline:
        for process in left:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.05)
