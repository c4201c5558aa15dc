"""Who computes what next: leases, order, losses, and that nothing is computed twice."""

import random

import pytest

from cluster.queue import WorkItem, WorkQueue


def item(identity: str, *, needs: tuple[str, ...] = (), cost_s: float = 0.0) -> WorkItem:
    return WorkItem(id=identity, payload={}, needs=needs, arm=identity[0], cost_s=cost_s)


def taken(queue: WorkQueue, worker: str, incarnation: str = "1") -> str | None:
    leased = queue.take(worker, incarnation)
    return leased[0].id if leased else None


def test_stages_with_most_dependents_go_first_then_the_longest_then_plan_order():
    queue = WorkQueue(max_attempts=3)
    queue.add(
        [
            item("short", cost_s=1),
            item("long", cost_s=9),
            item("also-short", cost_s=1),
            item("rare"),
            item("common"),
            item("x", needs=("common",)),
            item("y", needs=("common", "rare")),
        ]
    )
    order = [taken(queue, f"w{i}") for i in range(6)]
    assert order == ["common", "rare", "long", "short", "also-short", None]


def test_a_cell_waits_for_all_its_stages_and_only_for_them():
    queue = WorkQueue(max_attempts=3)
    queue.add([item("s"), item("t"), item("cell", needs=("s", "t"))])
    assert {taken(queue, "a"), taken(queue, "b")} == {"s", "t"}
    held = {"a": "s", "b": "t"}
    queue.finish("a", "1", held["a"], {})
    assert taken(queue, "a") is None
    queue.finish("b", "1", held["b"], {})
    assert taken(queue, "b") == "cell"


def test_a_worker_that_comes_back_has_lost_its_item_and_gets_it_as_the_next_attempt():
    queue = WorkQueue(max_attempts=3)
    queue.add([item("cell")])
    assert queue.take("w", "first")[1] == 1
    again = queue.take("w", "second")
    assert (again[0].id, again[1]) == ("cell", 2)
    queue.finish("w", "first", "cell", {"late": True})  # its former self's report
    assert queue.outcome("cell") is None
    queue.finish("w", "second", "cell", {})
    assert queue.outcome("cell") == ("finished", {})


def test_an_item_that_kills_its_worker_too_often_fails_and_the_others_are_there():
    queue = WorkQueue(max_attempts=3)
    queue.add([item("bad")])
    for incarnation in "123":
        assert taken(queue, "w", incarnation) == "bad"
    queue.add([item("good")])
    queue.lose("w")
    kind, error = queue.outcome("bad")
    assert kind == "failed"
    assert "died 3 times" in error["error"]
    assert "--retry-failed" in error["error"]
    assert taken(queue, "w", "4") == "good"


def test_an_item_that_raises_is_over_at_once_and_so_is_what_needs_it():
    queue = WorkQueue(max_attempts=3)
    queue.add([item("stage"), item("cell", needs=("stage",)), item("other")])
    assert taken(queue, "w") == "stage"
    queue.fail("w", "1", "stage", {"error": "no memory", "error_type": "MemoryError"})
    kind, error = queue.outcome("cell")
    assert kind == "failed"
    assert error["error"] == "stage failed: no memory"
    queue.add([item("late", needs=("stage",))])
    assert queue.outcome("late")[0] == "failed"
    assert taken(queue, "w") == "other"


def test_an_item_past_its_deadline_fails_at_once_and_frees_the_slot():
    now = [0.0]
    queue = WorkQueue(max_attempts=3, clock=lambda: now[0])
    queue.add([WorkItem(id="hangs", payload={}, deadline_s=10.0), item("next")])
    assert taken(queue, "w") == "hangs"
    now[0] = 10.5  # the watchdog has ended the worker
    assert taken(queue, "w", "2") == "next"
    kind, error = queue.outcome("hangs")
    assert (kind, error["error_type"]) == ("failed", "DeadlineExceeded")
    assert "longer than its deadline of 10 s" in error["error"]
    now[0] = 0.0  # a worker that dies early is a loss, not a deadline
    early = WorkQueue(max_attempts=3, clock=lambda: now[0])
    early.add([WorkItem(id="dies", payload={}, deadline_s=10.0)])
    taken(early, "w")
    now[0] = 9.0
    assert taken(early, "w", "2") == "dies"


def test_losing_a_run_frees_what_all_its_workers_held_and_no_other():
    queue = WorkQueue(max_attempts=2)
    queue.add([item("a"), item("b"), item("c")])
    for worker in ("node0/0", "node0/1", "node1/0"):
        taken(queue, worker)
    queue.lose_run("node0")
    assert {taken(queue, "node1/1"), taken(queue, "node1/2")} == {"a", "b"}
    assert queue.holds("node1/0", "1", "c")


def test_asking_for_work_while_holding_some_is_refused():
    queue = WorkQueue(max_attempts=1)
    queue.add([item("a"), item("b")])
    taken(queue, "w")
    with pytest.raises(ValueError, match="w asks for work while it holds a"):
        queue.take("w", "1")


@pytest.mark.parametrize("seed", range(5))
def test_under_random_deaths_every_item_ends_exactly_once(seed):
    chance = random.Random(seed)
    queue = WorkQueue(max_attempts=4)
    queue.add([item(f"s{i}") for i in range(5)])
    queue.add([item(f"c{i}", needs=(f"s{i % 5}",)) for i in range(60)])
    incarnation = dict.fromkeys("abc", 0)
    held: dict[str, str] = {}
    for _ in range(10_000):
        if not queue.open:
            break
        worker = chance.choice("abc")
        if worker in held and chance.random() < 0.2:
            incarnation[worker] += 1
            del held[worker]
        elif worker in held:
            queue.finish(worker, str(incarnation[worker]), held.pop(worker), {})
        elif leased := queue.take(worker, str(incarnation[worker])):
            held[worker] = leased[0].id
    assert queue.open == 0
    over = [e.item for e in queue.events if e.kind in ("finished", "failed")]
    assert sorted(over) == sorted(queue._items)
    assert max(e.attempt for e in queue.events) <= 4
