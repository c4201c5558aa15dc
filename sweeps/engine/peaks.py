"""The most memory that a cell held, on the host and on its device."""

import contextlib
import re
from pathlib import Path

PROCESS = Path("/proc/self")
RESET = "5"  # proc(5), clear_refs: the peak resident set size starts again from now


def begin(device: str) -> None:
    """From now on a new peak is looked for; where the system cannot, the process's own stays."""
    with contextlib.suppress(OSError):
        (PROCESS / "clear_refs").write_text(RESET)
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)


def host_bytes() -> int | None:
    """The process's peak since `begin`; None where nobody says so (no Linux)."""
    try:
        status = (PROCESS / "status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def device_bytes(device: str) -> int | None:
    """The most that torch held on the GPU since `begin`; None on a CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.max_memory_allocated(device))


def columns(device: str) -> dict[str, int | None]:
    """Both, as the ledger's row names them."""
    return {"peak_host_bytes": host_bytes(), "peak_device_bytes": device_bytes(device)}
