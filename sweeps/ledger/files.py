"""Files that are whole or absent, on a local folder or any pyarrow filesystem (s3://, gs://).

What a read may come to is one of three things, and everybody who reads the ledger keeps them apart:
the bytes, whole; FileNotFoundError, nothing is there; `StoreError`, the disk or the store did not
answer, which says nothing about the file. Only bytes that were read whole can be damaged.
"""

import contextlib
import datetime
import errno
import io
import os
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import lru_cache, partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from sweeps.ledger.parts import Parts, Torn

PAUSES_S = (0.2, 0.6, 1.8)
"""Waits before a folder is asked again after an error: a stale handle is gone by then."""
PAUSES_FAR_S = (1.0,)
"""The same for an object store, whose client has asked for six seconds already (S3: 31 times)."""
TORN_READS = 20
"""So often in a row may a file change while it is read; writers wait seconds between two writes."""
LASTING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""What does not pass while one waits."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""A disk, or a quota, that has no room left."""
REQUESTS = 24
"""What an object store is asked for at once: as many connections as its client keeps open."""
NOT_THERE = (FileNotFoundError, IsADirectoryError)
"""What a file system answers that is no failure of its own: nothing, or a folder, has the name."""

Answer = TypeVar("Answer")
Item = TypeVar("Item")


class StoreError(OSError):
    """The file system or the object store did not do as asked, nor when it was asked again.

    The file may be in order, so whoever reads must neither move, replace nor compute anything
    because of it. Its text names the file, what the system said and what to do.

    Attributes:
        number: what the system said, as an errno, where it said one.
    """

    def __init__(self, text: str, number: int | None = None) -> None:
        super().__init__(text)
        # Not `errno`, which a worker's report does not carry; its text does.
        said = (full for full in FULL if os.strerror(full) in text)
        self.number = number if number is not None else next(said, None)


def lack_of_room(error: BaseException) -> OSError | None:
    """What says, among `error` and what led to it, that a disk or a quota is full; None: nothing.

    Errors of Ray, sqlite and pyarrow stand around it, and may come from another process.
    """
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        now = waiting.pop()
        if not isinstance(now, BaseException) or now in seen:
            continue
        if isinstance(now, OSError) and {now.errno, getattr(now, "number", None)} & {*FULL}:
            return now
        seen.append(now)
        waiting += [now.__cause__, getattr(now, "cause", None), *getattr(now, "exceptions", ())]
        if not now.__suppress_context__:
            waiting.append(now.__context__)
    return None


def parquet_bytes(table: pa.Table, *, row_group_size: int | None = None) -> bytes:
    """`table` as a parquet file whose pages carry checksums: a flipped bit never reads as data."""
    sink = io.BytesIO()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        write_page_checksum=True,
        row_group_size=row_group_size,
    )
    return sink.getvalue()


@lru_cache(maxsize=64)
def _filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URI, and the path in it."""
    if uri.startswith("s3://"):
        # One request for a small file instead of the three of a multipart upload.
        uri += ("&" if "?" in uri else "?") + "allow_delayed_open=true"
    found: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(uri)
    return found


class Store:
    """A folder of immutable files, addressed by relative POSIX paths.

    Args:
        root: a local path or a URI that `pyarrow.fs.FileSystem.from_uri` takes. On S3 the usual
            variables hold: AWS_ENDPOINT_URL, AWS_REGION, AWS_PROFILE, AWS_ACCESS_KEY_ID, ….

    Raises:
        ValueError: a URI that pyarrow does not know.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        if "://" in self.root:
            self.fs, self.base = _filesystem(self.root)
        else:
            self.fs, self.base = pafs.LocalFileSystem(), str(Path(self.root).absolute())
        self.local = isinstance(self.fs, pafs.LocalFileSystem)

    def path(self, name: str) -> str:
        """The path that the filesystem knows `name` by."""
        return f"{self.base.rstrip('/')}/{name}"

    def child(self, name: str) -> "Store":
        """The store in the folder `name` of this one."""
        folder, mark, options = self.root, "", ""
        if "://" in self.root:
            folder, mark, options = self.root.partition("?")
        return Store(f"{folder.rstrip('/')}/{name}{mark}{options}")

    def patiently(self, verb: str, name: str, attempt: Callable[[], Answer]) -> Answer:
        """What `attempt` returns, tried again after errors that may pass; `verb` is its participle.

        Raises:
            FileNotFoundError, IsADirectoryError: as the system says.
            StoreError: any other error, each time.
        """
        pauses = iter(PAUSES_S if self.local else PAUSES_FAR_S)
        torn = 0
        while True:
            try:
                return attempt()
            except NOT_THERE:
                raise
            except OSError as error:
                if isinstance(error, Torn):
                    torn += 1
                    pause = 0.005 * torn if torn < TORN_READS else None
                else:
                    pause = None if error.errno in LASTING else next(pauses, None)
                if pause is None:
                    what = error.strerror or str(error) or type(error).__name__
                    raise StoreError(
                        f"{name or 'the folder'} in {self.root} could not be {verb} "
                        f"({what.splitlines()[0]}). Nothing was changed because of it; see to the "
                        "disk or the store, then run the same command again",
                        error.errno,
                    ) from error
            time.sleep(pause)

    def write(self, name: str, content: bytes) -> None:
        """`content` under `name`: whole or not at all, durable when this returns. A folder that
        has this name moves to `quarantine/` first.

        Raises:
            StoreError: it cannot be written.
        """
        try:
            self.patiently("written", name, lambda: self._write(self.path(name), content))
        except IsADirectoryError:
            leaf = name.rpartition("/")[2]
            self.move(name, f"quarantine/{leaf}.{uuid.uuid4().hex[:8]}")
            self.patiently("written", name, lambda: self._write(self.path(name), content))

    def write_all(self, files: Mapping[str, bytes]) -> None:
        """Each content under its name, as `write` does; to an object store many at once."""
        for _ in self.each(lambda item: self.write(*item), files.items()):
            pass

    def _write(self, target: str, content: bytes) -> None:
        folder, _, leaf = target.rpartition("/")
        if not self.local:  # an object store shows an object only when its upload is complete
            with self.fs.open_output_stream(target) as stream:
                stream.write(content)
            return
        os.makedirs(folder, exist_ok=True)
        temporary = f"{folder}/.{leaf}.{uuid.uuid4().hex}.tmp"
        try:
            with open(temporary, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self, name: str, *, changes: bool = True) -> bytes:
        """The bytes of `name`, whole: of one version of it, never of two.

        Args:
            changes: whether the file may be replaced while it is read. Of one that is not, an
                object store is asked two things instead of three; should it have been, the bytes
                make no sense, and have to be read again as of one that changes.

        Raises:
            FileNotFoundError: there is none.
            IsADirectoryError: a folder has its name.
            StoreError: it cannot be read; says nothing about the file.
        """
        read = _read_near if self.local else partial(self._read_far, changes=changes)
        return self.patiently("read", name, lambda: read(self.path(name)))

    def _read_far(self, path: str, *, changes: bool) -> bytes:
        """One object. The client asks for the length first and then for so many bytes, so one that
        grew in between comes cut, and one that shrank with zeros at its end; neither is an error.
        """
        with self.fs.open_input_file(path) as stream:
            # Of S3 with its ETag, a hash of the content.
            before = stream.size(), stream.metadata() if changes else None
            content: bytes = stream.read()
        if not changes:
            if len(content) != before[0]:
                raise Torn("its length is not the one that the store states")
            return content
        with self.fs.open_input_file(path) as stream:
            after = stream.size(), stream.metadata()
        if before != after or len(content) != after[0]:
            raise Torn("it changes each time that it is read")
        return content

    def each(self, call: Callable[[Item], Answer], items: Iterable[Item]) -> Iterator[Answer]:
        """What `call` says of each of `items`, in their order; from an object store, which takes
        its time to answer, many at once. Local files are faster one by one.
        """
        if self.local:
            yield from map(call, items)
            return
        context = copy_context()  # of the caller, for each thread, which has none of its own
        with ThreadPoolExecutor(REQUESTS) as pool:
            yield from pool.map(lambda item: context.copy().run(call, item), items)

    def open(self, name: str) -> pa.PythonFile:
        """`name` for reading parts of it; for files that never change under their name.

        Each read of it raises as `read` does.
        """
        return pa.PythonFile(Parts(self, name), mode="r")

    def exists(self, name: str) -> bool:
        """Whether `name` is there (as a file).

        Raises:
            StoreError: that cannot be told.
        """
        return self.patiently("looked up", name, lambda: self._exists(self.path(name)))

    def _exists(self, path: str) -> bool:
        if not self.local:
            return bool(self.fs.get_file_info(path).type == pafs.FileType.File)
        try:
            return stat.S_ISREG(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def takes(self, name: str) -> bool:
        """Whether anything has this name: a file, or a folder in the place of one.

        Raises:
            StoreError: that cannot be told.
        """
        if not self.local:
            return self.exists(name)
        return self.patiently("looked up", name, lambda: os.path.lexists(self.path(name)))

    def modified(self, name: str) -> datetime.datetime | None:
        """When `name` was written, by the store's clock; None where there is no such file."""
        found = self.patiently("looked up", name, lambda: self.fs.get_file_info(self.path(name)))
        written: datetime.datetime | None = found.mtime
        return written

    def names(self, folder: str, suffix: str) -> Iterator[str]:
        """Leaf names in `folder` that end in `suffix`, sorted; temporary files never show.

        Raises:
            StoreError: the folder cannot be listed.
        """
        leaves = self.patiently("listed", folder, lambda: self._leaves(self.path(folder)))
        return iter(sorted(x for x in leaves if x.endswith(suffix) and not x.startswith(".")))

    def _leaves(self, path: str) -> list[str]:
        if self.local:
            try:
                return os.listdir(path)
            except FileNotFoundError:
                return []
        selector = pafs.FileSelector(path, allow_not_found=True)
        return [info.base_name for info in self.fs.get_file_info(selector)]

    def delete(self, name: str) -> None:
        """Remove `name` if it is there."""
        if not self.local or self.exists(name):
            self.patiently("removed", name, lambda: self._delete(self.path(name)))

    def delete_all(self, names: Iterable[str]) -> None:
        """Remove those of `names` that are there; their order is no promise.

        One by one, side by side: pyarrow deletes whole folders in one request, but not a list, and
        workers commit into the very folder meanwhile.
        """
        for _ in self.each(self.delete, names):
            pass

    def _delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
            self.fs.delete_file(path)

    def move(self, name: str, target: str) -> None:
        """Rename within the store.

        Raises:
            FileNotFoundError: nothing is there.
            StoreError: it cannot be moved.
        """
        self.patiently("moved", name, lambda: self._move(self.path(name), self.path(target)))

    def _move(self, path: str, target: str) -> None:
        if self.local:
            os.makedirs(target.rpartition("/")[0], exist_ok=True)
        self.fs.move(path, target)


def _read_near(path: str) -> bytes:
    """One local file; a name's next version is another file, so an open one never changes."""
    with open(path, "rb") as stream:
        content = stream.read()
        if len(content) != os.fstat(stream.fileno()).st_size:
            raise Torn("its length is not the one that the file system states")
    return content
