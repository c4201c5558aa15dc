"""One validated reader for each file that a study keeps its books in.

    study.json            the last plan; damaged: its own script writes it anew
    lock.json             the holder; damaged: names nobody
    running.json          what is being computed; damaged: nothing is said
    report_section.json   a part of the report; damaged: made anew
    stages/<key>.json     a stage's checksum; damaged: the stage is set aside and computed again

A file is damaged when its bytes, read whole, are not JSON of its fields, or when a folder has its
name. Fields that nobody knows are a later version's, and left alone.
"""

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from sweeps.ledger.files import Store
from sweeps.ledger.schema import LedgerError, Manifest

Content = TypeVar("Content")


class Damaged(LedgerError):
    """A file that was read whole and does not say what it should; the message says where."""


class Version(BaseModel):
    """What every version of `study.json` says."""

    schema_version: int


class LockFile(BaseModel):
    """`lock.json`: who holds the ledger, and how often it has said so. `where` and `since` tell
    its process from another of the same id (`sweeps.ledger.alive`).
    """

    token: str
    pid: int
    host: str
    beat: int = 0
    where: str = ""
    since: int = 0


class RunningFile(BaseModel):
    """`running.json`, as `sweeps.ledger.progress.say_running` writes it."""

    token: str
    slots: int = Field(ge=0)
    started: dict[str, float]
    left_s: float | None
    shares: dict[str, float] = {}
    heard: dict[str, float] = {}
    patience_s: dict[str, float] = {}


class SectionFile(BaseModel):
    """`report_section.json`: a study's part of the page, and what it was made of."""

    identity: str
    name: str
    question: str
    committed: int
    planned: int
    html: str


class StageFile(BaseModel):
    """`stages/<key>.json`: SHA-256 of the stage's arrays, and the seconds that they took."""

    sha256: str
    seconds: float = Field(ge=0, allow_inf_nan=False)


class Book(Generic[Content]):
    """Reads one kind of file."""

    def __init__(self, kind: Any) -> None:
        self._kind: TypeAdapter[Content] = TypeAdapter(kind)

    def parse(self, name: str, content: bytes) -> Content:
        """What `content`, the bytes of a file, says; `name` is what an error calls it.

        Raises:
            Damaged: it is not what such a file holds.
        """
        try:
            return self._kind.validate_json(content)
        except ValidationError as error:
            raise Damaged(f"{name} is damaged ({_first(error)})") from None

    def read(self, store: Store, name: str) -> Content | None:
        """What the file `name` says; None where there is none.

        Raises:
            Damaged: it is not what such a file holds, or a folder.
            StoreError: it cannot be read, which says nothing about it.
        """
        content = content_of(store, name)
        return None if content is None else self.parse(f"{name} in {store.root}", content)

    def read_or_none(self, store: Store, name: str) -> Content | None:
        """As `read`, of a cache: None where it is damaged too."""
        try:
            return self.read(store, name)
        except Damaged:
            return None


def content_of(store: Store, name: str) -> bytes | None:
    """The bytes of the file `name`, to be parsed by more than one book; None where there is none.

    Raises:
        Damaged: a folder has its name.
        StoreError: it cannot be read, which says nothing about it.
    """
    try:
        return store.read(name)
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise Damaged(f"{name} in {store.root} is damaged (it is a folder)") from None


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    found = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(map(str, found["loc"]))
    return f"{where}: {found['msg']}" if where else found["msg"]


VERSION_BOOK: Book[Version] = Book(Version)
MANIFEST_BOOK: Book[Manifest] = Book(Manifest)
LOCK_BOOK: Book[LockFile] = Book(LockFile)
RUNNING_BOOK: Book[RunningFile] = Book(RunningFile)
SECTION_BOOK: Book[SectionFile] = Book(SectionFile)
STAGE_BOOK: Book[StageFile] = Book(StageFile)
