"""The broker with a thousand workers, of whom nearly all wait: what an item costs it.

The broker is called as Ray calls it, from one event loop; the rival wakes everybody for every item.

python tests/benchmarks/run_all.py bench_broker
"""

import asyncio
import time

from timing import Figure, paired

from cluster.broker import Broker
from cluster.queue import WorkItem
from cluster.traffic import Key, Report

WORKERS, ITEMS = 1_000, 100
ITEM_S = 0.004


class WakesAll(Broker):
    """As it was: every change wakes every worker."""

    async def _wake(self) -> None:
        async with self._work:
            self._work.notify_all()


def figures() -> list[Figure]:
    """CPU s of ITEMS items that come one after the other."""
    what = f"{ITEMS} items that come one by one to {WORKERS:,} workers that wait"
    return [
        paired(
            f"CPU s of the broker for {what}, against waking every worker",
            lambda: asyncio.run(_study(Broker)),
            lambda: asyncio.run(_study(WakesAll)),
            limit="3.7 ms an item",
            runs=3,
            clock=time.process_time,
        )
    ]


async def _study(kind: type[Broker]) -> None:
    broker = kind(max_attempts=3)

    async def work(worker: str) -> None:
        answer = await broker.take(worker, "1")
        while answer != "stop":
            if answer == "wait":
                answer = await broker.take(worker, "1")
                continue
            await asyncio.sleep(ITEM_S)
            answer = await broker.hand_in(worker, "1", answer.item.id, Report().to_json(), ok=True)

    workers = [asyncio.create_task(work(f"w{i}")) for i in range(WORKERS)]
    await asyncio.sleep(0.1)  # until all of them wait
    for index in range(ITEMS):
        await broker.add([WorkItem(id=Key(f"c{index}"), payload={})], more=False)
        await asyncio.sleep(ITEM_S / 2)
    while broker.queue.open:
        await asyncio.sleep(ITEM_S)
    await broker.close()
    await asyncio.gather(*workers)
