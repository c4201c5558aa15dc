"""Files that are whole or absent, on a local folder or any pyarrow filesystem (s3://, gs://)."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs as pafs


class Store:
    """A folder of immutable files, addressed by relative POSIX paths.

    Args:
        root: a local path or a URI that `pyarrow.fs.FileSystem.from_uri` takes.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = str(root)
        if "://" in self.root:
            self.fs, self.base = pafs.FileSystem.from_uri(self.root)
        else:
            self.fs, self.base = pafs.LocalFileSystem(), str(Path(self.root).absolute())
        self.local = isinstance(self.fs, pafs.LocalFileSystem)

    def path(self, name: str) -> str:
        """The path that the filesystem knows `name` by."""
        return f"{self.base.rstrip('/')}/{name}"

    def child(self, name: str) -> "Store":
        """The store in the folder `name` of this one."""
        return Store(f"{self.root.rstrip('/')}/{name}")

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
        with self.fs.open_input_stream(self.path(name)) as stream:
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
