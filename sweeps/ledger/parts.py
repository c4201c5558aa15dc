"""A file of a store that is read in parts, each of them as patiently as a whole one."""

import io
import os
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from sweeps.ledger.files import Store


class Torn(OSError):
    """The file was replaced while it was read."""


class Parts(io.RawIOBase):
    """The file `name` of `store`, for reading."""

    def __init__(self, store: "Store", name: str) -> None:
        self._store, self._name = store, name
        self._at = 0
        self._file = store.patiently("read", name, self._opened)
        self._size = self._file.seek(0, os.SEEK_END)

    def _opened(self) -> io.IOBase | pa.NativeFile:
        path = self._store.path(self._name)
        return open(path, "rb") if self._store.local else self._store.fs.open_input_file(path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self._size - self._at)
        count = rest if size is None or size < 0 else min(size, rest)
        content = (
            self._store.patiently("read", self._name, lambda: self._part(count)) if count else b""
        )
        self._at += len(content)
        return content

    def _part(self, count: int) -> bytes:
        try:
            self._file.seek(self._at)
            content: bytes = self._file.read(count)
        except OSError:
            self._file = self._opened()  # a stale handle stays stale
            raise
        if len(content) != count:
            raise Torn("it is shorter than the file system states")
        return content

    def close(self) -> None:
        self._file.close()
        super().close()
