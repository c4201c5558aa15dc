"""A file system that is really full."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(disk: Path) -> Iterator[Path]:
    """A file system of 64 MiB of its own at the folder `disk`; skips where none may be mounted."""
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        while shutil.disk_usage(disk).free:
            stream.write(bytes(4096))
    return filler


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder cannot be written in the block, by root neither; skips where that cannot be done.

    Files that are open already can still be written, as on a disk that an error made read-only.
    """
    over = ["mount", "--bind", str(folder), str(folder)]
    if shutil.which("mount") is None or subprocess.run(over, capture_output=True).returncode:
        pytest.skip("this user may not mount a folder read-only")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
