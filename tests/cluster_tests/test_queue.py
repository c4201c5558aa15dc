"""Who computes what next: leases, order, losses, and that nothing is computed twice."""

import heapq
import random

import pytest

from cluster.queue import WorkItem, WorkQueue
from cluster.traffic import Failure, Key, Report


def item(identity: str, *, needs: tuple[str, ...] = (), **values: float) -> WorkItem:
    return WorkItem(id=Key(identity), payload={}, needs=needs, arm=identity[0], **values)


def stage(identity: str, *, needs: tuple[str, ...] = (), **values: float) -> WorkItem:
    return WorkItem(id=Key(identity), payload={}, needs=needs, **values)


def taken(queue: WorkQueue, worker: str, incarnation: str = "1") -> str | None:
    leased = queue.take(worker, incarnation)
    return leased[0].id if leased else None


def test_turn_by_turn_cells_at_once_stages_with_most_dependents_then_the_longest():
    queue = WorkQueue(max_attempts=3)
    queue.add([item(f"later{i}", turn=2, cost_s=1) for i in range(90)])  # much is left
    queue.add(
        [
            item("next", turn=1, cost_s=9),
            stage("rare-0"),
            stage("common-0"),
            item("short", cost_s=1),
            item("long", cost_s=9),
            item("x", needs=("common-0",)),
            item("y", needs=("common-0", "rare-0")),
        ]
    )
    order = [taken(queue, f"w{i}") for i in range(5)]
    assert order == ["long", "short", "common-0", "rare-0", "next"]


def outcome(queue: WorkQueue, identity: str) -> tuple[str, Report | Failure] | None:
    """How the item ended, and what the driver hears of it; None: it has not."""
    for event in queue.events:
        if event.item == identity and event.kind in ("finished", "failed"):
            return event.kind, event.report or event.failure
    return None


def run(items: list[WorkItem], seconds: dict[str, float], slots: int) -> list[tuple[float, str]]:
    """(end, id) of every item on so many slots, as the queue hands them out; nothing is stated."""
    now = 0.0
    queue = WorkQueue(max_attempts=3, clock=lambda: now)
    queue.add(items)
    running: list[tuple[float, str, str]] = []
    free, ended = [f"w{i}" for i in range(slots)], []
    while True:
        for worker in list(free):
            if (leased := queue.take(worker, "1")) is not None:
                free.remove(worker)
                heapq.heappush(running, (now + seconds[leased[0].id.kind], worker, leased[0].id))
        if not running:
            return ended
        now, worker, identity = heapq.heappop(running)
        queue.finish(worker, "1", identity, Report())
        ended.append((now, identity))
        free.append(worker)


def study(arms: int, seeds: int) -> list[WorkItem]:
    """A generator a seed, a selection for each arm and seed upon it, and the cells upon these."""
    items = []
    for seed in range(seeds):
        items.append(stage(f"generator-{seed}", turn=seed))
        for arm in range(arms):
            needs = (f"generator-{seed}",)
            items.append(stage(f"selection-{arm}.{seed}", needs=needs, turn=seed))
            needs += (f"selection-{arm}.{seed}",)
            items.append(item(f"cell{arm}.{seed}", needs=needs, turn=seed))
    return items


SECONDS = {"generator": 37.0, "selection": 8.0, "cell": 2.0}


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_the_first_cells_come_early_and_no_slot_idles_for_it(slots):
    items = study(arms=6, seeds=5)
    ended = run(items, SECONDS, slots)
    assert len(ended) == len(items)
    cells = [end for end, identity in ended if identity.startswith("cell")]
    work = sum(SECONDS[i.id.kind] for i in items) / slots
    chain = sum(SECONDS.values())
    makespan = ended[-1][0]
    assert makespan <= 1.1 * max(work, chain) + max(SECONDS.values()) * (slots > 1)
    assert cells[0] <= max(makespan / 3, chain)


def test_a_study_that_is_stopped_anywhere_has_arms_of_about_equally_many_seeds():
    ended = run(study(arms=6, seeds=5), SECONDS, 2)
    count = dict.fromkeys(range(6), 0)
    for _, identity in ended:
        if identity.startswith("cell"):
            count[int(identity[4:].split(".")[0])] += 1
            assert max(count.values()) - min(count.values()) <= 2


def test_the_longest_chain_goes_first_once_it_fills_the_rest():
    """Short cells for 20 s and one chain of 17 s on two slots: begun last it would end at 27."""
    items = [item(f"short{i}", turn=0, cost_s=1.0) for i in range(20)]
    items += [stage("late-0", turn=1, cost_s=16.0), item("last", needs=("late-0",), turn=1)]
    seconds = {"late": 16.0, "cell": 1.0}
    assert run(items, seconds, 2)[-1][0] <= 21


def test_a_cell_waits_for_all_its_stages_and_only_for_them():
    queue = WorkQueue(max_attempts=3)
    queue.add([item("s"), item("t"), item("cell", needs=("s", "t"))])
    assert {taken(queue, "a"), taken(queue, "b")} == {"s", "t"}
    held = {"a": "s", "b": "t"}
    queue.finish("a", "1", held["a"], Report())
    assert taken(queue, "a") is None
    queue.finish("b", "1", held["b"], Report())
    assert taken(queue, "b") == "cell"


def test_a_worker_that_comes_back_has_lost_its_item_and_gets_it_as_the_next_attempt():
    queue = WorkQueue(max_attempts=3)
    queue.add([item("cell")])
    assert queue.take("w", "first")[1] == 1
    again = queue.take("w", "second")
    assert (again[0].id, again[1]) == ("cell", 2)
    queue.finish("w", "first", "cell", Report(wall_s=9.0))  # its former self's report
    assert outcome(queue, "cell") is None
    queue.finish("w", "second", "cell", Report())
    assert outcome(queue, "cell") == ("finished", Report())


def test_an_item_that_kills_its_worker_too_often_fails_and_the_others_are_there():
    queue = WorkQueue(max_attempts=3)
    queue.add([item("bad")])
    for incarnation in "123":
        assert taken(queue, "w", incarnation) == "bad"
    queue.add([item("good")])
    queue.lose("w")
    kind, error = outcome(queue, "bad")
    assert kind == "failed"
    assert "died 3 times" in error.error
    assert "--retry-failed" in error.error
    assert taken(queue, "w", "4") == "good"


def test_an_item_that_raises_is_over_at_once_and_so_is_what_needs_it():
    queue = WorkQueue(max_attempts=3)
    queue.add([item("stage"), item("cell", needs=("stage",)), item("other")])
    assert taken(queue, "w") == "stage"
    queue.fail("w", "1", "stage", Failure(error="no memory", error_type="MemoryError"))
    kind, error = outcome(queue, "cell")
    assert kind == "failed"
    assert error.error == "stage failed: no memory"
    queue.add([item("late", needs=("stage",))])
    assert outcome(queue, "late")[0] == "failed"
    assert taken(queue, "w") == "other"


def test_an_item_past_its_deadline_fails_at_once_and_frees_the_slot():
    now = [0.0]
    queue = WorkQueue(max_attempts=3, clock=lambda: now[0])
    queue.add([WorkItem(id=Key("hangs"), payload={}, arm="a", deadline_s=10.0), item("next")])
    assert taken(queue, "w") == "hangs"
    now[0] = 10.5  # the watchdog has ended the worker
    assert taken(queue, "w", "2") == "next"
    kind, error = outcome(queue, "hangs")
    assert (kind, error.error_type) == ("failed", "DeadlineExceeded")
    assert "no sign of progress for 10 s, its deadline" in error.error
    now[0] = 0.0  # a worker that dies early is a loss, not a deadline
    early = WorkQueue(max_attempts=3, clock=lambda: now[0])
    early.add([WorkItem(id=Key("dies"), payload={}, deadline_s=10.0)])
    taken(early, "w")
    now[0] = 9.0
    assert taken(early, "w", "2") == "dies"


def test_a_deadline_counts_from_the_last_sign_of_progress():
    now = [0.0]
    queue = WorkQueue(max_attempts=3, clock=lambda: now[0])
    queue.add([WorkItem(id=Key("long"), payload={}, deadline_s=10.0)])
    taken(queue, "w")
    for now[0] in (8.0, 16.0, 24.0):
        queue.signed("w", "1", "long", saved=False)
    now[0] = 30.0  # it died of something else
    assert taken(queue, "w", "2") == "long"
    queue.signed("w", "1", "long", saved=False)  # of a lease that is lost
    now[0] = 40.5
    queue.lose("w")
    assert outcome(queue, "long")[1].error_type == "DeadlineExceeded"


def test_an_attempt_that_can_be_gone_on_with_is_no_failure():
    queue = WorkQueue(max_attempts=2)
    queue.add([item("a")])
    for incarnation in "12345":
        assert taken(queue, "w", incarnation) == "a"
        queue.signed("w", incarnation, "a", saved=True)
    queue.lose("w")
    assert outcome(queue, "a") is None
    for incarnation in "67":  # two that come to nothing
        assert taken(queue, "w", incarnation) == "a"
    queue.lose("w")
    assert "the worker died 2 times" in outcome(queue, "a")[1].error


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
            queue.finish(worker, str(incarnation[worker]), held.pop(worker), Report())
        elif leased := queue.take(worker, str(incarnation[worker])):
            held[worker] = leased[0].id
    assert queue.open == 0
    over = [e.item for e in queue.events if e.kind in ("finished", "failed")]
    assert sorted(over) == sorted(queue._items)
    assert max(e.attempt for e in queue.events) <= 4
