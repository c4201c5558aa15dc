"""The broker without a cluster: who gets what when, and what an arm hears of it."""

import asyncio

from cluster.broker import Broker
from cluster.queue import WorkItem


def stage(name: str) -> WorkItem:
    return WorkItem(id=name, payload={})


def cells(arm: str, count: int, *needs: str) -> list[WorkItem]:
    return [WorkItem(id=f"{arm}-{i}", payload={}, needs=needs, arm=arm) for i in range(count)]


async def taken(broker: Broker, worker: str) -> str:
    item, _ = await asyncio.wait_for(broker.take(worker, "1"), 1.0)
    return item.id


def test_no_slot_waits_for_a_slow_stage_or_for_tune_while_other_work_exists():
    async def run() -> list[str]:
        broker = Broker(max_attempts=3)
        arms = {"slow": cells("slow", 2, "slow stage"), "quick": cells("quick", 3, "quick stage")}
        await broker.register([stage("slow stage"), stage("quick stage")], arms)
        # No trial has started, and the first worker is in the slow stage until the end.
        order = ["quick stage", "quick-0", "quick-1", "quick-2"]
        assert await taken(broker, "w0") == "quick stage"  # three cells need it, two the other
        assert await taken(broker, "w1") == "slow stage"
        found = ["quick stage"]
        for _ in range(3):
            await broker.finish("w0", "1", found[-1], {})
            found.append(await taken(broker, "w0"))
        assert found == order
        await broker.finish("w0", "1", "quick-2", {})
        waiting = asyncio.create_task(taken(broker, "w0"))
        await asyncio.sleep(0)
        assert not waiting.done()
        await broker.finish("w1", "1", "slow stage", {})
        return [await waiting, await taken(broker, "w1")]

    assert asyncio.run(run()) == ["slow-0", "slow-1"]


def test_an_arm_hears_its_own_results_in_order_whether_its_trial_began_before_or_after():
    async def run() -> list[tuple[str, str]]:
        broker = Broker(max_attempts=3)
        await broker.register([], {"a": cells("a", 2), "b": cells("b", 1)})
        assert [await taken(broker, "w0"), await taken(broker, "w1")] == ["a-0", "a-1"]
        await broker.fail("w1", "1", "a-1", {"error": "no"})
        await broker.finish("w0", "1", "a-0", {"objective": 0.5})
        assert await broker.start_arm("a") == 2
        late = [await broker.result_of_arm("a", i) for i in (0, 1)]
        assert await broker.start_arm("b") == 1
        early = asyncio.create_task(broker.result_of_arm("b", 0))
        assert await taken(broker, "w0") == "b-0"
        await broker.finish("w0", "1", "b-0", {"objective": 1.0})
        return [(r["item"], r["status"]) for r in [*late, await early]]

    assert asyncio.run(run()) == [("a-1", "failed"), ("a-0", "finished"), ("b-0", "finished")]


def test_a_stage_that_fails_fails_the_arms_that_need_it_before_their_trials_start():
    async def run() -> list[str]:
        broker = Broker(max_attempts=3)
        await broker.register([stage("base")], {"a": cells("a", 2, "base")})
        assert await taken(broker, "w0") == "base"
        await broker.fail("w0", "1", "base", {"error": "no"})
        asking = asyncio.create_task(broker.take("w0", "1"))
        await asyncio.sleep(0)
        assert await broker.start_arm("a") == 2
        found = [(await broker.result_of_arm("a", i))["status"] for i in (0, 1)]
        await broker.close()
        assert await asking == "stop"
        return found

    assert asyncio.run(run()) == ["failed", "failed"]


def test_an_arm_that_is_registered_again_hears_each_result_once():
    async def run() -> list[str]:
        broker = Broker(max_attempts=3)
        steps = [[cell] for cell in cells("arm", 3)]
        await broker.register_steps("proposal 0", steps)
        await broker.start_step("proposal 0", 0)
        assert await taken(broker, "w0") == "arm-0"
        await broker.finish("w0", "1", "arm-0", {"objective": 0.0})
        await broker.start_step("proposal 0", 1)
        assert await taken(broker, "w0") == "arm-1"
        # Its trial's node is lost: the ledger has the first seed, the others are asked for again.
        await broker.register_steps("proposal 0", steps[1:])
        await broker.start_step("proposal 0", 0)
        await broker.finish("w0", "1", "arm-1", {"objective": 1.0})
        await broker.start_step("proposal 0", 1)
        assert await taken(broker, "w0") == "arm-2"
        await broker.finish("w0", "1", "arm-2", {"objective": 2.0})
        return [(await broker.result_of_arm("proposal 0", i))["item"] for i in (0, 1)]

    assert asyncio.run(run()) == ["arm-1", "arm-2"]


def test_a_lost_run_gives_back_its_room_once_and_its_items_to_the_queue():
    async def run() -> list[object]:
        broker = Broker(max_attempts=3)
        await broker.register([], {"arm": cells("arm", 1)})
        assert await taken(broker, "node0/0") == "arm-0"
        await broker.say_reserved("node0", "its placement group")
        found = [await broker.lose_run("node0"), await broker.lose_run("node0")]
        assert await taken(broker, "node1/0") == "arm-0"
        return found

    assert asyncio.run(run()) == ["its placement group", None]
