"""Processes of this machine, found by what they were started with: which ones to kill."""

from pathlib import Path


def named(text: str) -> list[int]:
    """The processes whose command line, or the title they gave themselves, holds `text`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended meanwhile
    return found


def below(ancestor: int, text: str) -> list[int]:
    """Those of `named(text)` that `ancestor` started, itself or through others."""
    return [process for process in named(text) if ancestor in _ancestors(process)]


def _ancestors(process: int) -> list[int]:
    found = []
    while process > 1:
        try:
            status = Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2]
        except OSError:
            break
        process = int(status.split()[1])
        found.append(process)
    return found
