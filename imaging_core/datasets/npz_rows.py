"""An array of an npz file, read a block of rows at a time: a compressed one is a stream.

So the pixels of a MedMNIST file of 13 GB never are in memory at once, and threads share the work on
its blocks though only one of them can read.
"""

import threading
import zipfile
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)
"""What a damaged or foreign file raises."""
AHEAD = 128
"""Blocks that are kept for threads that have not asked for them yet."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What an array says of itself.

    Attributes:
        by_column: its numbers lie column by column (Fortran's order).
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    by_column: bool


def header_of(file: Path, name: str) -> Header:
    """Of the array `name` of an npz file; none of its numbers is read.

    Raises:
        UNREADABLE: damaged, or no array.
    """
    with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as stream:
        return _header(stream)


def _header(stream: IO[bytes]) -> Header:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(stream)
    return Header(shape=shape, dtype=dtype, by_column=by_column)


class RowStream:
    """The rows of an array, block by block, in whatever order threads ask for them.

    They ask nearly in order. Blocks that come before the one that is asked for are kept for a
    while; a block that was not kept is read again from the beginning.

    Args:
        rows: of a block; the last one has what is left.
    """

    def __init__(self, file: Path, name: str, header: Header, rows: int) -> None:
        self._file, self._name, self._header, self._rows = file, name, header, rows
        self._row_shape = header.shape[1:]
        self._row_bytes = int(np.prod(self._row_shape)) * header.dtype.itemsize
        self._lock = threading.Lock()
        self._stream: IO[bytes] | None = None
        self._next = 0
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()

    def block(self, number: int) -> np.ndarray:
        """(rows, …) of the block, an array of its own.

        Raises:
            UNREADABLE: the file is damaged.
        """
        with self._lock:
            if self._header.by_column:
                return self._of_whole(number)
            if number in self._kept:
                return self._kept.pop(number)
            if self._stream is None or number < self._next:
                self._open()
            while True:
                found, at = self._read(), self._next - 1
                if at == number:
                    if self._next * self._rows >= self._header.shape[0]:
                        self.close()
                    return found
                self._kept[at] = found
                if len(self._kept) > AHEAD:
                    self._kept.popitem(last=False)

    def _open(self) -> None:
        self.close()
        # The archive is closed with the one stream that is open of it.
        with zipfile.ZipFile(self._file) as archive:
            self._stream = archive.open(f"{self._name}.npy")
        _header(self._stream)
        self._next = 0

    def _read(self) -> np.ndarray:
        """The next block."""
        assert self._stream is not None
        first = self._next * self._rows
        count = min(self._rows, self._header.shape[0] - first)
        content = self._stream.read(count * self._row_bytes)
        if len(content) < count * self._row_bytes:
            raise EOFError(f"{self._name} ends after fewer than {self._header.shape[0]} rows")
        self._next += 1
        return np.frombuffer(content, self._header.dtype).reshape(count, *self._row_shape)

    def _of_whole(self, number: int) -> np.ndarray:
        if not self._kept:
            with np.load(self._file, allow_pickle=False) as archive:
                whole = archive[self._name]
            self._kept[0] = whole
        return self._kept[0][number * self._rows : (number + 1) * self._rows]

    def close(self) -> None:
        """Close the file; another block opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None
