"""Disks and object stores that do not do as asked, for a while or for good."""

import contextlib
import errno
import os
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from sweeps.ledger import files, parts


class Fault:
    """Every request for a name that ends in `name` fails, so often.

    Attributes:
        name: end of the path; "" = no fault.
        what: errno on a folder; on an object store the HTTP status, or "reset" (the connection is
            closed without an answer).
        times: how often; below 0: always.
        hits: how often it has happened.
        written: how often each object was put.
        asked: how many requests there were, of every kind.
    """

    def __init__(self) -> None:
        self.name, self.what, self.times, self.hits = "", 0, -1, 0
        self.written: Counter[str] = Counter()
        self.asked = 0

    def set(self, name: str, what: int | str, times: int = -1) -> None:
        self.name, self.what, self.times, self.hits = name, what, times, 0

    def strikes(self, path: str) -> bool:
        if not self.name or not path.rstrip("/").endswith(self.name) or self.hits == self.times:
            return False
        self.hits += 1
        return True


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        """Nothing: thousands of requests, some of which fail as they should."""


def faulty_disk(monkeypatch: pytest.MonkeyPatch) -> Fault:
    """The calls by which the ledger reads local files and folders fail as the fault says."""
    fault = Fault()

    def wrapped(call: Callable) -> Callable:
        def struck(path, *arguments, **options):
            if isinstance(path, str | os.PathLike) and fault.strikes(os.fspath(path)):
                raise OSError(fault.what, os.strerror(fault.what), str(path))
            return call(path, *arguments, **options)

        return struck

    for module in (files, parts):
        monkeypatch.setattr(module, "open", wrapped(open), raising=False)
    for name in ("listdir", "stat"):
        monkeypatch.setattr(os, name, wrapped(getattr(os, name)))
    return fault


@contextlib.contextmanager
def faulty_server() -> Iterator[tuple[str, Fault]]:
    """moto's S3 on loopback, whose answers to GET and HEAD fail as the fault says; its address."""
    fault, moto = Fault(), DomainDispatcherApplication(create_backend_app)

    def application(environ, start_response):
        path, asked = environ["PATH_INFO"], environ["QUERY_STRING"]
        if "prefix=" in asked:  # a listing names its folder in the query
            path = asked.partition("prefix=")[2].partition("&")[0].replace("%2F", "/")
        fault.asked += 1
        fault.written[path] += environ["REQUEST_METHOD"] == "PUT"
        if environ["REQUEST_METHOD"] in ("GET", "HEAD") and fault.strikes(path):
            if fault.what == "reset":
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
                raise ConnectionResetError(errno.ECONNRESET, "as the test asks")
            start_response(f"{fault.what} As Asked", [("Content-Length", "0")])
            return [b""]
        return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", fault
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
