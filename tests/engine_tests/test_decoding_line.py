"""What is said while a dataset is decoded."""

import io

from sweeps.engine import decoding
from sweeps.engine.decoding import DecodingLine


class Terminal(io.StringIO):
    def isatty(self):
        return True


def told(stream, monkeypatch, times):
    clock = iter([0.0, *(at for at, _ in times)])
    monkeypatch.setattr(decoding.time, "monotonic", lambda: next(clock))
    line = DecodingLine(stream)
    for _, done in times:
        line(done, f"decoding: {round(100 * done)} of 100 images")
    return stream.getvalue()


TIMES = [(0.5, 0.1), (2.0, 0.2), (3.0, 0.3), (13.0, 0.5), (14.0, 1.0)]


def test_plain_lines_where_nobody_watches(monkeypatch):
    assert told(io.StringIO(), monkeypatch, TIMES).splitlines() == [
        "decoding: 20 of 100 images (20%)",
        "decoding: 50 of 100 images (50%)",
        "decoding: 100 of 100 images (100%)",
    ]


def test_one_line_on_a_terminal(monkeypatch):
    drawn = told(Terminal(), monkeypatch, TIMES)
    assert drawn.count("\r") == 4
    assert drawn.endswith("decoding: 100 of 100 images (100%)\n")


def test_nothing_of_what_is_there_at_once(monkeypatch):
    assert told(io.StringIO(), monkeypatch, [(0.3, 0.5), (0.6, 1.0)]) == ""
