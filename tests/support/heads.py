"""A Ray head that somebody else started: a process of its own, stopped alone."""

import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from processes import named
from studies import study_environment

START_TIMEOUT_S = 120.0
STARTED = "Ray runtime started"
HEAD_NODE = "f" * 51 + "00000"  # the id by which Ray's fake cloud knows the head
HEAD_TYPE = "ray.head.default"
IDLE_MINUTES = 0.1
COMMANDS = (
    *("cluster_synced_files", "initialization_commands", "setup_commands"),
    *("head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)
"""Must be in an autoscaler file of Ray's; processes of this machine need none of them."""


@dataclass(frozen=True)
class Head:
    """A running head.

    Attributes:
        address: HOST:PORT of its cluster.
        dashboard: URL of its dashboard, where it has one.
        environment: what a process needs to find it and be let in.
    """

    address: str
    dashboard: str
    environment: dict[str, str]


def free_port() -> int:
    """A port of the loopback that nothing listens on now.

    None of those that Linux hands out by itself (32768 and up): until the head has it, the many
    processes of a Ray cluster beside this test ask for such ports.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


def _wait_until_gone(folder: Path) -> None:
    """The head's daemons end by themselves soon after it; what has not by then is killed."""
    deadline = time.monotonic() + 20
    while named(str(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in named(str(folder)):
        os.kill(process, signal.SIGKILL)


def _fake_cloud(folder: Path, port: int, nodes: int) -> tuple[Path, dict[str, str]]:
    """Ray's own autoscaler on nodes that are processes of this machine: its file, and variables."""
    config = {
        "cluster_name": folder.name,
        "max_workers": nodes,
        "idle_timeout_minutes": IDLE_MINUTES,
        "upscaling_speed": 10.0,
        "provider": {
            "type": "external",
            "module": "own_disks.Cloud",
            "gcs_address": f"127.0.0.1:{port}",
            "head_node_id": HEAD_NODE,
            "launch_multiple": True,
        },
        "available_node_types": {
            HEAD_TYPE: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 1},
                "node_config": {},
                "min_workers": 0,
                "max_workers": nodes,
            },
        },
        "head_node_type": HEAD_TYPE,
        "auth": {},
        "file_mounts": {},
        **{name: [] for name in COMMANDS},
    }
    path = folder / "autoscaler.yaml"
    path.write_text(json.dumps(config))
    return path, {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_NODE,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_NODE,
        "PYTHONPATH": study_environment()["PYTHONPATH"],  # where own_disks is
    }


@contextmanager
def ray_head(*, cpus: int, dashboard: bool = False, grows_to: int = 0) -> Iterator[Head]:
    """A head on free ports, with a folder of its own; gone at the end, and no other Ray with it.

    Args:
        grows_to: an autoscaler adds up to so many nodes of one CPU each, and takes idle ones away.

    Never `ray stop`: it would stop every Ray of this machine, a running study included.
    """
    port, agent, web = free_port(), free_port(), free_port()
    temporary = Path(f"/tmp/medrl-{os.getpid()}-{port}")  # Ray's sockets need a short path
    temporary.mkdir()
    token = temporary / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    binaries = Path(sys.executable).parent
    environment = study_environment(
        RAY_TMPDIR=str(temporary),
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=str(token),
        PATH=f"{binaries}{os.pathsep}{os.environ['PATH']}",  # a job's `python` is the head's
    )
    options = ["--head", "--block", f"--port={port}", f"--num-cpus={cpus}", "--disable-usage-stats"]
    options += [f"--dashboard-agent-listen-port={agent}", f"--include-dashboard={dashboard}"]
    options += [f"--dashboard-port={web}", "--dashboard-host=127.0.0.1"]
    started_with = environment
    if grows_to:
        path, variables = _fake_cloud(temporary, port, grows_to)
        options.append(f"--autoscaling-config={path}")
        started_with = environment | variables
    log = temporary / "head.log"
    with log.open("w") as output:
        head = subprocess.Popen(
            [binaries / "ray", "start", *options],
            env=started_with,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while STARTED not in log.read_text():
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{web}", environment)
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(60)
        _wait_until_gone(temporary)
        shutil.rmtree(temporary, ignore_errors=True)
