"""An object store on a local folder that counts, and may delay, each request that S3 would get.

What a call of pyarrow's S3 client asks for was counted on moto (`test_request_counts` counts it
again), so that a ledger of 100,000 cells can be measured without a server that is slower than S3.
"""

import contextlib
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.fs as pafs
import pytest

from sweeps.ledger import files
from sweeps.ledger.files import Store

PAGE = 1000
"""Names in an answer to a listing."""


class FarFolder:
    """The calls of `pyarrow.fs.FileSystem` that `Store` makes, on a local folder.

    Attributes:
        delay_s: what each request takes.
        count: how many there were.
        kinds: the same by kind.
        most: how many were under way at once.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s, self.kinds = delay_s, Counter[str]()
        self.most = self._now = 0
        self._lock = threading.Lock()
        self._disk = pafs.LocalFileSystem()

    @property
    def count(self) -> int:
        return self.kinds.total()

    @contextlib.contextmanager
    def counting(self) -> Iterator[SimpleNamespace]:
        """`requests` and `seconds` of the block."""
        found, before, began = (
            SimpleNamespace(requests=0, seconds=0.0),
            self.count,
            time.monotonic(),
        )
        yield found
        found.requests, found.seconds = self.count - before, time.monotonic() - began

    def ask(self, kind: str, times: int = 1) -> None:
        """`times` requests, one after the other."""
        with self._lock:
            self.kinds[kind] += times
            self._now += 1
            self.most = max(self.most, self._now)
        if self.delay_s:
            time.sleep(times * self.delay_s)
        with self._lock:
            self._now -= 1

    def open_input_file(self, path: str) -> "_Object":
        self.ask("HEAD")
        if not os.path.isfile(path):
            raise FileNotFoundError(path)
        return _Object(self, path)

    @contextlib.contextmanager
    def open_output_stream(self, path: str) -> Iterator[Any]:
        parts: list[bytes] = []
        yield SimpleNamespace(write=parts.append)
        self.ask("PUT")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        temporary = f"{path}.{threading.get_ident()}.tmp"
        Path(temporary).write_bytes(b"".join(parts))
        os.replace(temporary, path)

    def get_file_info(self, what: str | pafs.FileSelector) -> Any:
        if isinstance(what, str):
            there = os.path.isfile(what)
            self.ask("HEAD")
            if not there:
                self.ask("LIST")
            found = self._disk.get_file_info(what)
            return found if there else pafs.FileInfo(what, pafs.FileType.NotFound)
        found = [x for x in self._disk.get_file_info(what) if not x.base_name.endswith(".tmp")]
        self.ask("LIST", max(1, -(-len(found) // PAGE)))
        return found

    def delete_file(self, path: str) -> None:
        self.ask("HEAD")
        os.remove(path)
        self.ask("DELETE")
        self.ask("PUT")  # the folder, should it be empty now

    def delete_dir(self, path: str) -> None:
        self.ask("LIST")
        shutil.rmtree(path)
        self.ask("DELETE")

    def move(self, path: str, target: str) -> None:
        self.ask("PUT")
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.replace(path, target)
        self.ask("DELETE")
        self.ask("PUT")


class _Object:
    """An open object: its length is known from the request that opened it."""

    def __init__(self, store: FarFolder, path: str) -> None:
        self._store, self._path = store, path
        self._file = open(path, "rb")  # noqa: SIM115
        self._size = os.fstat(self._file.fileno()).st_size
        self._version = os.fstat(self._file.fileno()).st_mtime_ns

    def __enter__(self) -> "_Object":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def size(self) -> int:
        return self._size

    def metadata(self) -> dict[str, int]:
        return {"ETag": self._version}

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        if size and self._size:
            self._store.ask("GET")
        if not os.path.exists(self._path):  # gone since it was opened
            raise FileNotFoundError(self._path)
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()


def far_stores(patch: pytest.MonkeyPatch, delay_s: float = 0.0) -> FarFolder:
    """Every Store of a URI far:///… is on this file system from now on."""
    far, known = FarFolder(delay_s), files._filesystem

    def filesystem(uri: str) -> tuple[Any, str]:
        return (far, uri.removeprefix("far://")) if uri.startswith("far://") else known(uri)

    patch.setattr(files, "_filesystem", filesystem)
    return far


def far_store(folder: Path) -> Store:
    """The store of a folder, as the one behind `far_stores`."""
    return Store(f"far://{folder}")
