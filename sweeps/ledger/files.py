"""Files that are whole or absent, on a local folder or any pyarrow filesystem (s3://, gs://)."""

import io
import os
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq


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
    return pafs.FileSystem.from_uri(uri)


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

    def write(self, name: str, content: bytes) -> None:
        """`content` under `name`: whole or not at all, durable when this returns."""
        target = self.path(name)
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

    def read(self, name: str) -> bytes:
        """The bytes of `name`; FileNotFoundError where there is none."""
        with self.fs.open_input_file(self.path(name)) as stream:  # a stream reads in small pieces
            return stream.read()

    def exists(self, name: str) -> bool:
        """Whether `name` is there (as a file)."""
        return self.fs.get_file_info(self.path(name)).type == pafs.FileType.File

    def names(self, folder: str, suffix: str) -> Iterator[str]:
        """Leaf names in `folder` that end in `suffix`, sorted; temporary files never show."""
        if self.local:
            path = self.path(folder)
            leaves = os.listdir(path) if os.path.isdir(path) else []
        else:
            selector = pafs.FileSelector(self.path(folder), allow_not_found=True)
            leaves = [info.base_name for info in self.fs.get_file_info(selector)]
        return iter(sorted(x for x in leaves if x.endswith(suffix) and not x.startswith(".")))

    def delete(self, name: str) -> None:
        """Remove `name` if it is there."""
        if self.exists(name):
            self.fs.delete_file(self.path(name))

    def move(self, name: str, target: str) -> None:
        """Rename within the store."""
        if self.local:
            os.makedirs(self.path(target).rpartition("/")[0], exist_ok=True)
        self.fs.move(self.path(name), self.path(target))
