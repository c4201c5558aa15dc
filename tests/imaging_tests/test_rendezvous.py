"""Calls that meet: in which order they run, what is served together, and whose failure is whose."""

import threading

import pytest

from imaging_core.rendezvous import each, meet, together, widest


class Server:
    """Doubles what it is asked for, and remembers who asked together."""

    def __init__(self) -> None:
        self.served: list[list[int]] = []

    def __call__(self, values):
        self.served.append(list(values))
        return [2 * v if v >= 0 else ValueError(f"{v} is negative") for v in values]


def test_requests_of_one_kind_are_served_at_once_in_the_order_of_the_calls():
    server, log = Server(), []

    def call(name: int, rounds: int):
        def run():
            got = []
            for i in range(rounds):
                log.append((name, i))
                got.append(meet("double", 10 * name + i, server))
            return got, widest()

        return run

    results = together([call(0, 3), call(1, 2), call(2, 2)], width=8)
    assert server.served == [[0, 10, 20], [1, 11, 21], [2]]
    assert [got for got, _ in results] == [[0, 2, 4], [20, 22], [40, 42]]
    assert [width for _, width in results] == [3, 3, 3]
    assert log == [(n, i) for i in range(2) for n in range(3)] + [(0, 2)]


def test_no_more_than_the_width_and_no_other_kind():
    server, other = Server(), Server()
    calls = [lambda v=v: meet("double", v, server) for v in range(5)]
    calls.insert(1, lambda: meet("other", 7, other))
    assert together(calls, width=2) == [0, 14, 2, 4, 6, 8]
    assert server.served == [[0, 1], [2, 3], [4]]
    assert other.served == [[7]]


def test_calls_within_calls_meet_too():
    server = Server()

    def outer(base: int):
        def run():
            first = each([lambda i=i: meet("double", base + i, server) for i in range(2)])
            return [*first, meet("double", sum(first), server)], widest()

        return run

    assert together([outer(0), outer(10)], width=8) == [([0, 2, 4], 4), ([20, 22, 84], 4)]
    assert server.served == [[0, 1, 10, 11], [2, 42]]


def test_alone_nothing_waits():
    server = Server()
    assert each([lambda v=v: meet("double", v, server) for v in range(3)]) == [0, 2, 4]
    assert server.served == [[0], [1], [2]]
    assert widest() == 1
    with pytest.raises(ValueError, match="-1 is negative"):
        meet("double", -1, server)


def test_a_failure_is_its_own_and_the_others_go_on():
    server, ended = Server(), []

    def call(v: int):
        value = meet("double", v, server)
        ended.append(meet("double", value, server))

    with pytest.raises(ValueError, match="-3 is negative"):
        together([lambda v=v: call(v) for v in (1, -3, 2)], width=8)
    assert server.served == [[1, -3, 2], [2, 4]]
    assert ended == [4, 8]


def test_a_server_that_raises_ends_every_call_and_no_thread_stays():
    def broken(values):
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        together([lambda: meet("x", 1, broken), lambda: each([lambda: meet("x", 2, broken)] * 2)],
                 width=4)  # fmt: skip
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and thread.name.startswith("Thread"):
            thread.join(5)
    assert threading.active_count() == before
