"""A local cluster's folder: nobody else gets in, and what a dead study left is cleared."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cluster.owner import OWNER, lives, this_process
from cluster.private import PREFIX, clear_dead, private_folder

SLEEPS = "import time; time.sleep(60)"


@pytest.fixture
def place(monkeypatch):
    """Where temporary files go: a folder of the test's own, whose path is short as Ray needs."""
    place = Path(f"/tmp/mt{os.getpid()}")
    place.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(place))
    monkeypatch.delenv("TMPDIR", raising=False)
    yield place
    subprocess.run(["rm", "-rf", str(place)], check=True)


@pytest.fixture
def dead():
    """What a process that has ended said of itself."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    owner = this_process() | {"pid": process.pid, "start": int(stat[19])}
    assert lives(owner)
    process.communicate(b"\n")
    return owner


def belonging(owner: dict, place: Path, name: str) -> Path:
    folder = place / f"{PREFIX}{name}"
    (folder / "r").mkdir(parents=True)
    (folder / OWNER).write_text(json.dumps(owner))
    return folder


def daemon(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", SLEEPS, *arguments])


def test_folder_and_token_are_for_their_owner_alone_and_the_users_token_stays(
    place, monkeypatch, tmp_path
):
    home = tmp_path / ".ray" / "auth_token"
    home.parent.mkdir()
    home.write_text("the user's")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_TOKEN", "the user's")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    tokens = []
    for _ in range(2):
        with private_folder() as rays:
            token = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
            assert os.environ["RAY_AUTH_MODE"] == "token"
            assert "RAY_AUTH_TOKEN" not in os.environ
            assert token.parent == rays.parent
            assert rays.parent.parent == place
            assert rays.parent.stat().st_mode & 0o777 == 0o700
            assert token.stat().st_mode & 0o777 == 0o600
            tokens.append(token.read_text())
        assert not token.exists()
    assert [len(token) for token in tokens] == [64, 64]
    assert tokens[0] != tokens[1]
    assert os.environ["RAY_AUTH_TOKEN"] == "the user's"
    assert "RAY_AUTH_MODE" not in os.environ
    assert home.read_text() == "the user's"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_reads_nothing_in_the_folder(place):
    place.chmod(0o755)
    with private_folder() as rays:
        token = os.environ["RAY_AUTH_TOKEN_PATH"]
        for command in (["cat", token], ["ls", rays.parent], ["touch", rays.parent / "x"]):
            answer = subprocess.run(command, user=65534, group=65534, extra_groups=[],
                                    capture_output=True, text=True)  # fmt: skip
            assert answer.returncode, command
            assert "Permission denied" in answer.stderr
        assert subprocess.run(["cat", token], capture_output=True).returncode == 0


def test_what_a_dead_study_left_goes_and_nothing_else(place, dead, tmp_path):
    left = belonging(dead, place, "dead")
    ours = belonging(this_process(), place, "ours")
    elsewhere = belonging(dead | {"ids": 1}, place, "container")
    again = belonging(this_process() | {"start": 1}, place, "again")  # our id, an earlier process
    nobodys = place / f"{PREFIX}nobodys"
    nobodys.mkdir()
    damaged = belonging(dead, place, "damaged")
    (damaged / OWNER).write_text("[]")
    agent = daemon(f"--temp-dir={left}/r", "--node-ip-address=127.0.0.1")
    reader = daemon(f"{left}/r/session/logs/worker.log")
    living = daemon(f"--temp-dir={ours}/r")
    neighbour = daemon(f"--temp-dir={left}er/r")
    try:
        time.sleep(0.1)
        clear_dead()
        assert agent.wait(5) == -9
        assert [p.poll() for p in (reader, living, neighbour)] == [None, None, None]
        assert [p.exists() for p in (left, again)] == [False, False]
        assert [p.exists() for p in (ours, elsewhere, nobodys, damaged)] == [True] * 4
    finally:
        for process in (agent, reader, living, neighbour):
            process.kill()
            process.wait()


def test_a_process_of_another_boot_is_dead_on_this_machine_and_unknown_on_another():
    ours = this_process()
    assert lives(ours) is True
    assert lives(ours | {"boot": "before"}) is False
    assert lives(ours | {"boot": "theirs", "host": "another"}) is None
    assert lives(ours | {"ids": 1}) is None
    assert lives({}) is None
