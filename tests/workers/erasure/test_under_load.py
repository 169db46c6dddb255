"""Users are erased while routers route and workers send, fail, try again and hand back."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from tests.workers.erasure.support import ACCOUNT, desk_of, keeper_of, store_of, traces
from tests.workers.routing import PREFIX, Stage, chat, group, play

from pushfleet import Conversation
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.erasure import RecheckErased
from pushfleet_workers.ledger import Entry, Ledger, pack
from pushfleet_workers.ledger.ledger import Settlement, Want
from pushfleet_workers.push import Parcel
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.changes import ChannelGiven, Registration
from pushfleet_workers.tokens.erasures import Erasures
from pushfleet_workers.tokens.store import TokenStore

USERS = [f"user-{number:02}-end" for number in range(12)]
OPTIONS: dict[str, Any] = {"worker": {"recheck_s": 0}}


class Worker:
    """Claims a little, decides anew, and then does one of the things that workers do with it."""

    def __init__(self, link: Link, number: int, chance: random.Random) -> None:
        self._ledger = Ledger(link, ACCOUNT, f"w{number}")
        rechecker = Rechecker(link, PREFIX, FleetClock(), "apns", "main")
        self._recheck = RecheckErased(rechecker.recheck, Erasures(link, PREFIX))
        self._chance = chance

    async def run(self, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            claim = await self._ledger.claim(Want(3, 20, 20, suspect=False))
            await asyncio.sleep(self._chance.uniform(0, 0.02))
            await self._ledger.settle([await self._settlement(entry) for entry in claim.entries])
            await asyncio.sleep(self._chance.uniform(0, 0.01))

    async def _settlement(self, entry: Entry) -> Settlement:
        refused = (await self._recheck([entry])).refused
        lane, all_of_it = entry.lane, entry.parcel.deliveries
        left = [one for one in all_of_it if one.id not in refused]
        settlement = Settlement(entry.id, entry.fence, len(all_of_it), ended=len(all_of_it) - len(left))
        for reason in refused.values():
            name = f"{lane}:suppressed:{reason}"
            settlement.ends[name] = settlement.ends.get(name, 0) + 1
        packed = pack(Entry(entry.id, Parcel(entry.parcel.push, left), lane, entry.put_ms, entry.lost)) if left else b""
        fate = self._chance.choice(("sent", "later", "later", "dead", "back"))
        if not left:
            return settlement
        if fate == "back" and not refused:
            settlement.give_back = True
        elif fate in ("later", "back"):
            settlement.later = [(self._chance.choice((1, 20, 600_000)), packed)]
        else:
            settlement.ended += len(left)
            settlement.ends[f"{lane}:{fate}:{'bad_payload' if fate == 'dead' else ''}"] = len(left)
            settlement.dead = [(packed, "bad_payload", "400", 1)] if fate == "dead" else []
        return settlement


async def register(store: TokenStore, user: str, token: str) -> None:
    channel = ChannelGiven(vendor="apns", credential="main", token=token)
    await store.register("demo", user, "phone", Registration(channels=(channel,), state="background"))


async def produce(stage: Stage, chance: random.Random, stopped: asyncio.Event) -> None:
    """Messages to one and to many, routed as they come."""
    number = 0
    while not stopped.is_set():
        number += 1
        user = chance.choice(USERS)
        several = chance.sample(USERS, 5)
        stage.enqueue(
            chat(f"m{number}", user, conversation=Conversation(id=f"c{number}"), body=f"text-only-for-{user}"),
            group(f"g{number}", *several, lane=chance.choice(("normal", "bulk"))),
        )
        for stream in stage.streams.values():
            raws = await stream.read(100, 1)
            if raws:
                await stage.router.route(stream, raws)
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("seed", range(3))
def test_under_load_nothing_of_the_erased_is_left_and_the_books_balance_all_the_while(
    redis_url: str, seed: int
) -> None:
    chance = random.Random(seed)
    gone, back = USERS[:3], USERS[3]
    busy: list[asyncio.Task[None]] = []
    links: list[Link] = []

    async def audit(stage: Stage, stopped: asyncio.Event) -> None:
        while not stopped.is_set():
            assert (await stage.books()).balanced
            await asyncio.sleep(0.05)

    async def erase_while_it_runs(stage: Stage) -> None:
        store = store_of(stage)
        for user in USERS:
            await register(store, user, f"token-of-{user}")
        stopped = asyncio.Event()
        links.extend(Link(redis_url) for _ in range(3))
        workers = [Worker(link, number, chance).run(stopped) for number, link in enumerate(links)]
        work = (*workers, produce(stage, chance, stopped), audit(stage, stopped))
        busy.extend(asyncio.create_task(one) for one in work)
        while len(await traces(stage.queue, f"text-only-for-{gone[0]}")) < 3:
            await asyncio.sleep(0.01)
        for user in (*gone, back):
            await desk_of(stage).erase("demo", user)
        await register(store, back, "token-since-then")
        keeper, erasures = keeper_of(stage), Erasures(stage.queue, PREFIX)
        while (await erasures.waiting())[0]:
            for task in busy:
                assert not task.done(), task.result()
            await keeper.look()
        words = [f"{what}-{user}" for user in gone for what in ("token-of", "text-only-for")]
        left, old = await traces(stage.queue, *words), await traces(stage.queue, f"token-of-{back}")
        stopped.set()
        await asyncio.gather(*busy)
        # What was sent to them since is in front of the routers at most, and nothing of it comes further.
        assert {key for key in left if b"ingress" not in key} == set()
        assert old == {}
        assert (await stage.books()).balanced
        assert await store.owner("demo", "apns", "token-since-then") == f"demo:{back}"

    async def scenario(stage: Stage) -> None:
        try:
            await erase_while_it_runs(stage)
        finally:
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)
            for link in links:
                await link.close()

    play(redis_url, scenario, **OPTIONS)
