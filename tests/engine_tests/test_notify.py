"""--notify: a server on loopback hears how a run ended; a dead one changes nothing."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import toy_study
from studies import here

from imaging_core.fields import ConfigError
from sweeps.engine import notify

pytest.importorskip("apprise", reason="the extra notify is not installed")


@pytest.fixture
def server(monkeypatch):
    """(json:// URL, messages it has heard)"""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    heard: list[dict] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self):
            heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Not on the terminal."""

    server = HTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"json://127.0.0.1:{server.server_port}/", heard
    server.shutdown()
    server.server_close()


SMALL = ["--inline", "--seeds", "1", "--set", "ridge=1", "--set", "pooling=16"]


def test_the_end_is_told_with_what_is_there(server, tmp_path):
    url, heard = server
    answer = here(toy_study, *SMALL, "--results", tmp_path, "--notify", url)
    assert answer.returncode == 0
    (message,) = heard
    assert message["title"] == "toy has ended"
    assert message["message"] == ("every cell is there (exit code 0); 1 of 1 cells are committed")
    failed = here(
        toy_study, *SMALL, "--set", "raise_at_seed=0", "--results", tmp_path, "--notify", url
    )
    assert failed.returncode == 3
    assert "some cells failed" in heard[-1]["message"]
    assert "0 of 1 cells are committed" in heard[-1]["message"]
    here(toy_study, "--plan", "--results", tmp_path, "--notify", url)
    assert len(heard) == 2  # a plan is no run


def test_a_server_that_is_not_there_is_one_warning(tmp_path):
    answer = here(
        toy_study, *SMALL, "--results", tmp_path, "--notify", "json://127.0.0.1:9/"
    )  # fmt: skip
    assert answer.returncode == 0
    assert answer.stderr.count("the message of the end was not sent") == 1
    assert len(list(tmp_path.rglob("cells/*.parquet"))) == 1


def test_what_apprise_does_not_know_is_refused_without_its_secrets(tmp_path):
    answer = here(toy_study, *SMALL, "--results", tmp_path, "--notify", "foo://me:secret@host")
    assert answer.returncode == 2
    text = " ".join(answer.stderr.split())
    assert '--notify must be a URL that apprise knows, number 1 is none ("foo://…")' in text
    assert "secret" not in text
    assert not list(tmp_path.rglob("cells/*.parquet"))


def test_without_apprise_it_is_refused_with_the_remedy(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(ConfigError, match="needs the package apprise; pip install"):
        notify.check(["json://localhost"])


def test_every_way_to_end_has_words():
    assert [notify.ending(c) for c in (0, 2, 3)] == list(notify.WORDS.values())
    assert notify.ending(130).startswith("interrupted")
    assert notify.ending(1) == "it ended with an error"
