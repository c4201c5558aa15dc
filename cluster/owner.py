"""Who left something behind, and whether they still run: a process by its id and its start.

An id alone comes back, also on another machine and in another container that shares the folder.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OWNER = "owner.json"
_START = 19  # field of /proc/PID/stat after the name: clock ticks from boot to the process's start


def _started(pid: int) -> int | None:
    """When the process started, in ticks since boot; None where there is none or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[_START])


def _here() -> dict[str, Any]:
    """Where a process id means something: this machine, since this boot, in this container."""
    boot, ids = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text().strip() if boot.exists() else "",
        "ids": ids.stat().st_ino if ids.exists() else 0,
    }


def this_process() -> dict[str, Any]:
    """What this process writes into OWNER of what is its own."""
    return {"pid": os.getpid(), "start": _started(os.getpid()), **_here()}


def lives(owner: Mapping[str, Any]) -> bool | None:
    """Whether the process runs; None where that cannot be seen from here."""
    here = _here()
    if owner.get("boot") != here["boot"]:  # started anew since, or another machine
        return False if owner.get("host") == here["host"] else None
    if owner.get("ids") != here["ids"]:
        return None
    start = _started(int(owner.get("pid", 0)))
    return start is not None and start == owner.get("start")
