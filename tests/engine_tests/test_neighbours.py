"""A local study and its neighbours on the machine: who gets in, and what stays after a kill."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from processes import named
from studies import elsewhere, study_environment

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

# Asks the head whether it would let us in, as the user named first; the token is one that we can
# read, or a guess. Modules come first: they may be where the other user reads nothing.
KNOCK = """
import os, sys, grpc
uid, address, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
channel = grpc.insecure_channel(address)
if uid:
    os.setgroups([]); os.setgid(uid); os.setuid(uid)
try:
    token = open(path).read()
except PermissionError:
    token = 64 * "0"
ask = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
for metadata in ((), (("authorization", "Bearer " + token),)):
    try:
        ask(b"", timeout=10, metadata=metadata)
        print("welcome")
    except grpc.RpcError as error:
        print(error.code().name)
"""


@pytest.fixture
def place():
    """A place for temporary files where no other study starts, which would clear what is left.

    Its path is as short as Ray's sockets need it, and other users may pass through it.
    """
    with tempfile.TemporaryDirectory(prefix="m-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def folders_of(pid: int, place: Path) -> list[Path]:
    """Folders in that place that the local study of that process made for itself."""
    found = []
    for owner in place.glob("medrl-*/owner.json"):
        try:
            if json.loads(owner.read_text())["pid"] == pid:
                found.append(owner.parent)
        except FileNotFoundError:
            continue  # another study's, gone meanwhile
    return found


def address_in(folder: Path) -> str:
    """HOST:PORT of the head that works in the folder."""
    for process in named(f"{folder}/"):
        for argument in Path(f"/proc/{process}/cmdline").read_text().split("\0"):
            if argument.startswith("--gcs-address="):
                return argument.partition("=")[2]
    raise AssertionError(f"no head works in {folder}")


def knock(uid: int, address: str, token: Path) -> list[str]:
    """What the head answers that user without a token, and with the best one that it has."""
    answer = subprocess.run(
        [sys.executable, "-c", KNOCK, str(uid), address, str(token)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.split()


def test_no_other_user_joins_and_the_next_start_clears_what_a_killed_one_left(
    place, start, tmp_path
):
    arguments = ("--results", tmp_path, "--seeds", "1", "--set", "wait_s=1.5")
    home = tmp_path / "home"
    home.mkdir()
    own = {"TMPDIR": str(place), "RAY_TMPDIR": str(place), "HOME": str(home)}
    process = start(*arguments, env=study_environment(**own), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list((tmp_path / "toy" / "cells").glob("[!.]*.parquet")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (folder,) = folders_of(process.pid, place)
    token = folder / "auth_token"
    assert folder.stat().st_mode & 0o777 == 0o700  # Ray has not opened it
    assert token.stat().st_mode & 0o777 == 0o600
    assert not (home / ".ray").exists()
    address = address_in(folder)
    assert knock(0, address, token) == ["UNAUTHENTICATED", "welcome"]
    if os.geteuid() == 0:
        assert knock(65534, address, token) == ["UNAUTHENTICATED", "UNAUTHENTICATED"]
    process.kill()
    process.wait()
    books = list((tmp_path / "toy" / "ray").iterdir())
    assert len(books) == 1
    assert folder.exists()
    last = elsewhere(*arguments, **own)
    assert last.returncode == 0, last.stdout + last.stderr
    assert not folder.exists()
    assert named(f"{folder}/") == []
    assert not books[0].exists()
    if os.geteuid() != 0:
        pytest.skip("only root can become another user: nobody else has knocked")
