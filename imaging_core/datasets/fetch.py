"""A dataset at a URI (s3://, gs://, …): brought once to each node, in parallel, file by file.

What is there is compared by size and time, so a second command asks for a listing and fetches what
changed; a fetch that was killed goes on inside the file where it stood.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlencode

from imaging_core.datasets.base import DataError
from imaging_core.datasets.cache import VARIABLE, alone, cache_folder
from imaging_core.datasets.decoding import PROGRESS
from imaging_core.fields import ConfigError

OPTIONS = ("endpoint_override", "region", "scheme")
"""Names behind the `?` that are the file system's and not the loader's."""
FOLDER = "fetched"
CHUNK = 8 << 20  # bytes that are asked for at once
THREADS = 16  # a store answers many requests at once, and each waits most of its time


class FetchError(DataError):
    """The store did not give what it lists; says nothing about the data."""


def is_uri(path: str | None) -> bool:
    """Whether a path names a file system of its own."""
    return path is not None and "://" in path


def filesystem_options(values: dict[str, str]) -> dict[str, str]:
    """Those of a path's options that are the file system's; they are taken out of `values`."""
    return {name: values.pop(name) for name in OPTIONS if name in values}


def fetched(uri: str, options: dict[str, str], wanted: Callable[[str], bool]) -> Path:
    """The place in this node's cache that holds what `uri` names, a file or a folder.

    Args:
        options: of the file system, see `OPTIONS`.
        wanted: path inside the folder → whether it is needed.

    Raises:
        ConfigError: no such place, an unknown kind of URI, or no cache to fetch into.
        FetchError: the store fails, or a file is not as long as it is listed.
    """
    folder = cache_folder()
    if folder is None:
        raise ConfigError(
            f"data at a URI needs the cache that {VARIABLE} names, and it is off; unset it, or "
            f"name a folder, to read {uri}"
        )
    store, base = _filesystem(uri, options)
    name = PurePosixPath(base).name
    home = folder / FOLDER / hashlib.sha256(f"{uri}{sorted(options.items())}".encode()).hexdigest()
    try:
        listed = _listed(store, base, uri)
        home.mkdir(parents=True, exist_ok=True)
        with alone(home.with_suffix(".lock"), _waiting):
            _fetch(store, base, [info for info in listed if wanted(_inside(base, info))], home)
    except OSError as error:
        raise FetchError(f"{uri} cannot be fetched into {home.parent}: {error}") from None
    return home / name


def _filesystem(uri: str, options: dict[str, str]) -> tuple[Any, str]:
    import pyarrow.fs as pafs  # a second, and most data are in a folder

    try:
        store, base = pafs.FileSystem.from_uri(f"{uri}?{urlencode(options)}" if options else uri)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"data must be at a URI that pyarrow.fs knows (s3://, gs://, …): {error}"
        ) from None
    return store, base.rstrip("/")


def _listed(store: Any, base: str, uri: str) -> list[Any]:
    """The files of a folder, or the one file."""
    import pyarrow.fs as pafs

    at = store.get_file_info(base)
    if at.type == pafs.FileType.NotFound:
        raise ConfigError(f'the path of data must be a file or a folder, "{uri}" is none')
    if at.type == pafs.FileType.File:
        return [at]
    found = store.get_file_info(pafs.FileSelector(base, recursive=True))
    return [info for info in found if info.type == pafs.FileType.File]


def _inside(base: str, info: Any) -> str:
    """The path of a listed file inside what was asked for; "" of the one file."""
    return info.path.removeprefix(base).lstrip("/")


def _waiting() -> None:
    PROGRESS.get()(0.0, "waiting for the process of this machine that fetches the same data")


def _fetch(store: Any, base: str, listed: list[Any], home: Path) -> None:
    """Bring what is missing or changed; remove what is listed no more."""
    root = home / PurePosixPath(base).name
    targets = {}
    for info in listed:
        target = root / _inside(base, info)
        if ".." in target.relative_to(home).parts:
            raise FetchError(f'a name must stay inside the folder, got "{info.path}"')
        targets[target] = info
    for path in [p for p in home.rglob("*") if p.is_file()]:
        if path not in targets and not path.name.endswith(".part"):
            path.unlink()
    missing = {target: info for target, info in targets.items() if not _same(target, info)}
    if missing:
        _bring(store, missing, len(targets))


def _time_ns(info: Any) -> int:
    return info.mtime_ns or 0


def _same(target: Path, info: Any) -> bool:
    try:
        there = target.stat()
    except OSError:
        return False
    return (there.st_size, there.st_mtime_ns) == (info.size, _time_ns(info))


def _bring(store: Any, missing: dict[Path, Any], files: int) -> None:
    total, done, lock = sum(info.size for info in missing.values()), 0, threading.Lock()
    over, hear = threading.Event(), PROGRESS.get()

    def came(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            share, gigabytes = done / max(total, 1), f"{done / 1e9:.2f} of {total / 1e9:.2f} GB"
            hear(share, f"fetching: {gigabytes} ({len(missing):,} of {files:,} files)")

    def bring(target: Path, info: Any) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{info.size}-{_time_ns(info)}.part")
        with part.open("ab") as into, store.open_input_file(info.path) as stream:
            came(into.tell())
            stream.seek(into.tell())
            for chunk in _chunks(stream):
                if over.is_set():
                    return
                into.write(chunk)
                came(len(chunk))
        if part.stat().st_size != info.size:
            part.unlink()
            raise OSError(f"{info.path} must have {info.size} bytes as listed, another came")
        os.utime(part, ns=(_time_ns(info), _time_ns(info)))
        part.replace(target)

    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [pool.submit(bring, target, info) for target, info in missing.items()]
        try:
            for job in as_completed(jobs):
                job.result()
        except BaseException:
            over.set()
            pool.shutdown(cancel_futures=True)
            raise


def _chunks(stream: Any) -> Iterable[bytes]:
    while chunk := stream.read(CHUNK):
        yield chunk
