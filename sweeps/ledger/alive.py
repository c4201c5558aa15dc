"""Whether the process that a lock names has ended, where that can be seen from here."""

import hashlib
import os
from pathlib import Path

_STATE, _START = 0, 19
"""Fields of /proc/PID/stat after the name: its state, and clock ticks from boot to its start."""


def here() -> str:
    """Where a process id means something: this machine, since this boot, in this container; ""
    where that is not to be known.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        ids = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return ""
    return hashlib.sha256(f"{boot}{ids}".encode()).hexdigest()[:16]


def started(pid: int) -> int:
    """When the process started, in ticks since boot; 0 where there is none, or it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return 0
    return 0 if fields[_STATE] in "ZX" else int(fields[_START])


def has_ended(pid: int, where: str, since: int) -> bool:
    """Whether the process `pid` of `where` that started at `since` has ended; False where that
    cannot be seen.
    """
    return bool(where) and where == here() and since != 0 and started(pid) != since
