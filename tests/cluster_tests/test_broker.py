"""The broker without a cluster: who gets what when, and what an arm hears of it."""

import asyncio

from cluster.broker import Broker
from cluster.queue import WorkItem
from cluster.traffic import Failure, Key, Report


def stage(name: str) -> WorkItem:
    return WorkItem(id=Key(name), payload={})


def cells(arm: str, count: int, *needs: str) -> list[WorkItem]:
    return [WorkItem(id=Key(f"{arm}{i}"), payload={}, needs=needs, arm=arm) for i in range(count)]


async def taken(broker: Broker, worker: str) -> str:
    lease = await asyncio.wait_for(broker.take(worker, "1"), 1.0)
    return lease.item.id


def test_no_slot_waits_for_a_slow_stage_or_for_tune_while_other_work_exists():
    async def run() -> list[str]:
        broker = Broker(max_attempts=3)
        slow, quick = cells("slow", 2, "slow-stage"), cells("quick", 3, "quick-stage")
        stages = [stage("slow-stage"), stage("quick-stage")]
        await broker.add([*stages, *slow, *quick], more=False)
        # No trial has started, and the first worker is in the slow stage until the end.
        order = ["quick-stage", "quick0", "quick1", "quick2"]
        assert await taken(broker, "w0") == "quick-stage"  # three cells need it, two the other
        assert await taken(broker, "w1") == "slow-stage"
        found = ["quick-stage"]
        for _ in range(3):
            await broker.finish("w0", "1", found[-1], Report().to_json())
            found.append(await taken(broker, "w0"))
        assert found == order
        await broker.finish("w0", "1", "quick2", Report().to_json())
        waiting = asyncio.create_task(taken(broker, "w0"))
        await asyncio.sleep(0)
        assert not waiting.done()
        await broker.finish("w1", "1", "slow-stage", Report().to_json())
        return [await waiting, await taken(broker, "w1")]

    assert asyncio.run(run()) == ["slow0", "slow1"]


def test_an_arm_hears_its_own_results_in_order_whether_its_trial_began_before_or_after():
    async def run() -> list[tuple[str, str]]:
        broker = Broker(max_attempts=3)
        await broker.add([*cells("a", 2), *cells("b", 1)], more=False)
        assert [await taken(broker, "w0"), await taken(broker, "w1")] == ["a0", "a1"]
        await broker.fail("w1", "1", "a1", Failure(error_type="E", error="no").to_json())
        await broker.finish("w0", "1", "a0", Report(objective=0.5).to_json())
        late = [await broker.result_of_arm("a", i) for i in (0, 1)]
        early = asyncio.create_task(broker.result_of_arm("b", 0))
        assert await taken(broker, "w0") == "b0"
        await broker.finish("w0", "1", "b0", Report(objective=1.0).to_json())
        return [(r["item"], r["ok"], r["last"]) for r in [*late, await early]]

    assert asyncio.run(run()) == [
        ("a1", False, False),
        ("a0", True, True),
        ("b0", True, True),
    ]


def test_an_arm_that_may_get_more_cells_waits_for_them_and_ends_when_none_come():
    async def run() -> list[object]:
        broker = Broker(max_attempts=3)
        await broker.add(cells("a", 1), more=True)
        assert await taken(broker, "w0") == "a0"
        await broker.finish("w0", "1", "a0", Report(objective=0.5).to_json())
        first = await broker.result_of_arm("a", 0)
        more = asyncio.create_task(broker.result_of_arm("a", 1))
        unknown = asyncio.create_task(broker.result_of_arm("b", 0))
        await asyncio.sleep(0)
        await broker.add([cells("a", 2)[1]], more=True)
        assert await taken(broker, "w0") == "a1"
        await broker.finish("w0", "1", "a1", Report(objective=0.5).to_json())
        second = await more
        none = asyncio.create_task(broker.result_of_arm("a", 2))
        await asyncio.sleep(0)
        assert not none.done()
        assert not unknown.done()
        await broker.add([], more=False)
        return [(r["item"], r["last"]) for r in (first, second)] + [await none, await unknown]

    assert asyncio.run(run()) == [("a0", False), ("a1", False), None, None]


def test_a_stage_that_fails_fails_the_arms_that_need_it_before_their_trials_start():
    async def run() -> list[str]:
        broker = Broker(max_attempts=3)
        await broker.add([stage("base-0"), *cells("a", 2, "base-0")], more=False)
        assert await taken(broker, "w0") == "base-0"
        await broker.fail("w0", "1", "base-0", Failure(error_type="E", error="no").to_json())
        asking = asyncio.create_task(broker.take("w0", "1"))
        await asyncio.sleep(0)
        found = [(await broker.result_of_arm("a", i))["ok"] for i in (0, 1)]
        await broker.close()
        assert await asking == "stop"
        return found

    assert asyncio.run(run()) == [False, False]


def test_an_arm_that_is_held_again_hears_each_result_once():
    async def run() -> list[tuple[str, bool]]:
        broker = Broker(max_attempts=3)

        async def asked(position: int) -> asyncio.Task:
            task = asyncio.create_task(broker.result_of_arm("proposal 0", position))
            await asyncio.sleep(0)
            return task

        steps = [[cell] for cell in cells("arm", 3)]
        await broker.hold("proposal 0", steps)
        first = await asked(0)
        assert await taken(broker, "w0") == "arm0"
        await broker.finish("w0", "1", "arm0", Report(objective=0.0).to_json())
        assert (await first)["item"] == "arm0"
        lost = await asked(1)
        assert await taken(broker, "w0") == "arm1"
        lost.cancel()
        # Its trial's node is lost: the ledger has the first seed, the others are asked for again.
        await broker.hold("proposal 0", steps[1:])
        found = [await asked(0)]
        await broker.finish("w0", "1", "arm1", Report(objective=1.0).to_json())
        found.append(await asked(1))
        assert await taken(broker, "w0") == "arm2"
        await broker.finish("w0", "1", "arm2", Report(objective=2.0).to_json())
        return [((await result)["item"], (await result)["last"]) for result in found]

    assert asyncio.run(run()) == [("arm1", False), ("arm2", True)]


def test_a_lost_run_gives_back_its_room_once_and_its_items_to_the_queue():
    async def run() -> list[object]:
        broker = Broker(max_attempts=3)
        await broker.add(cells("arm", 1), more=False)
        assert await taken(broker, "node0/0") == "arm0"
        await broker.say_reserved("node0", "its placement group")
        found = [await broker.lose_run("node0"), await broker.lose_run("node0")]
        assert await taken(broker, "node1/0") == "arm0"
        return found

    assert asyncio.run(run()) == ["its placement group", None]


def test_an_item_wakes_a_worker_and_not_all_that_wait():
    async def run() -> int:
        broker, asked = Broker(max_attempts=3), 0
        take = broker.queue.take

        def counted(worker: str, incarnation: str):
            nonlocal asked
            asked += 1
            return take(worker, incarnation)

        broker.queue.take = counted

        async def work(worker: str) -> None:
            while (answer := await broker.take(worker, "1")) != "stop":
                if answer != "wait":
                    await broker.finish(worker, "1", answer[0].id, Report().to_json())

        workers = [asyncio.create_task(work(f"w{i}")) for i in range(200)]
        await asyncio.sleep(0)
        chain = [
            WorkItem(id=Key(f"c{i}"), payload={}, needs=(f"c{i - 1}",) if i else ())
            for i in range(30)
        ]
        await broker.add(chain, more=False)
        while broker.queue.open:
            await asyncio.sleep(0)
        await broker.close()
        await asyncio.wait_for(asyncio.gather(*workers), 2.0)  # and all go home at once
        return asked

    assert asyncio.run(run()) < 200 + 30 * 4


def test_optunas_view_hears_of_every_arm_in_batches_and_the_driver_waits_for_its_last_one():
    async def run() -> None:
        broker = Broker(max_attempts=3)
        await broker.add([*cells("a", 1), *cells("b", 2)], more=False)
        assert [await taken(broker, f"w{i}") for i in range(3)] == ["a0", "b0", "b1"]
        await broker.finish("w1", "1", "b0", Report(seed=4, objective=0.5).to_json())
        await broker.fail("w0", "1", "a0", Failure(error_type="E", error="no").to_json())
        news, over, ended = await broker.news_of_arms(0, 0.01)
        assert news == [("b", 4, 0.5), ("a", None, None)]
        assert (over, ended) == ({"a"}, False)
        driver = asyncio.create_task(broker.end_view())
        await broker.finish("w2", "1", "b1", Report(seed=5, objective=0.6).to_json())
        news, over, ended = await asyncio.wait_for(broker.news_of_arms(2, 60.0), 1.0)
        assert (news, over, ended) == ([("b", 5, 0.6)], {"b"}, True)
        assert not driver.done(), "its last batch is not written yet"
        await broker.say_shown()
        await asyncio.wait_for(driver, 1.0)

    asyncio.run(run())


def test_no_arm_is_over_while_a_race_may_add_to_it():
    async def run() -> None:
        broker = Broker(max_attempts=3)
        await broker.add(cells("a", 1), more=True)
        assert await taken(broker, "w0") == "a0"
        await broker.finish("w0", "1", "a0", Report(seed=0, objective=0.5).to_json())
        assert await broker.news_of_arms(0, 0.01) == ([("a", 0, 0.5)], set(), False)

    asyncio.run(run())


def test_a_worker_hands_in_an_item_and_has_the_next_in_the_same_call():
    async def run() -> list[object]:
        broker = Broker(max_attempts=3)
        await broker.add([*cells("a", 2), *cells("b", 1)], more=False)
        first = await broker.take("w0", "1")
        report = Report(objective=0.5).to_json()
        second = await broker.hand_in("w0", "1", first.item.id, report, ok=True)
        failure = Failure(error_type="E", error="no").to_json()
        third = await broker.hand_in("w0", "1", second.item.id, failure, ok=False)
        last = asyncio.create_task(broker.hand_in("w0", "1", third.item.id, report, ok=True))
        await asyncio.sleep(0)
        assert not broker.queue.open  # though its worker still waits for another one
        await broker.close()
        oks = [(await broker.result_of_arm(*of))["ok"] for of in (("a", 0), ("a", 1), ("b", 0))]
        return [[lease.item.id for lease in (first, second, third)], oks, await last]

    assert asyncio.run(run()) == [["a0", "a1", "b0"], [True, False, True], "stop"]


def test_what_an_earlier_incarnation_hands_in_does_not_count_and_brings_it_no_work():
    async def run() -> tuple[str, int, bool]:
        broker = Broker(max_attempts=3)
        await broker.add(cells("a", 2), more=False)
        assert await taken(broker, "w0") == "a0"
        again = await broker.take("w0", "2")  # the worker died and came back
        answer = await broker.hand_in("w0", "1", "a0", Report().to_json(), ok=True)
        return answer, broker.queue.open, broker.queue.holds("w0", "2", again.item.id)

    assert asyncio.run(run()) == ("stop", 2, True)


def test_a_large_fleet_says_how_far_it_is_a_hundred_times_a_second_in_all():
    async def run(slots: int, deadline_s: float | None = None) -> float:
        broker = Broker(max_attempts=3)
        await broker.set_slots(slots)
        item = WorkItem(id=Key("a0"), payload={}, arm="a", deadline_s=deadline_s)
        await broker.add([item], more=False)
        return (await broker.take("w0", "1")).share_every_s

    assert [asyncio.run(run(slots)) for slots in (1, 200, 1_000)] == [2.0, 2.0, 10.0]
    assert asyncio.run(run(10_000, deadline_s=60.0)) == 15.0  # or its watchdog would end it
