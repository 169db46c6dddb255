"""A user with work and traces in every place of a real Redis, and eyes that see whatever is left there."""

from __future__ import annotations

from typing import Any

from tests.workers.routing import PREFIX, Stage, now_ms

from pushfleet_workers.erasure import EraseDesk, ErasureKeeper
from pushfleet_workers.ledger import AccountKeys, Entry, Ledger
from pushfleet_workers.ledger.ledger import LEASE_MS, Settlement, Want
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.store import TokenStore

APPS: dict[str, Any] = {
    "demo": {
        "name": "Demo",
        "recall_window_s": 120,
        "storm_waits_s": [60, 120],
        "foreground_ack": "park",
        "reads": True,
    },
    "lite": {},
}
OPTIONS: dict[str, Any] = {"apps": APPS, "worker": {"recheck_s": 0}}
PLENTY = Want(parcels=1_000, deliveries=100_000, bulk_deliveries=100_000)
ACCOUNT = AccountKeys(PREFIX, "apns", "main")


def desk_of(stage: Stage) -> EraseDesk:
    return EraseDesk(stage.queue, stage.queue, PREFIX, stage.settings.deaths, now_ms)


def store_of(stage: Stage) -> TokenStore:
    return TokenStore(stage.queue, PREFIX, now_ms)


def keeper_of(stage: Stage) -> ErasureKeeper:
    accounts = {(vendor, name): account.app for vendor, name, account in stage.settings.each_account()}
    return ErasureKeeper(stage.queue, stage.queue, stage.settings, accounts, desk_of(stage), store_of(stage))


async def look_until_ripe(stage: Stage) -> tuple[int, int]:
    """One look, once the erasures are old enough for one."""
    keeper = keeper_of(stage)
    while True:
        ripe, done = await keeper.look()
        if ripe:
            return ripe, done


async def claimed(stage: Stage, owner: str = "w1", want: Want = PLENTY) -> tuple[Ledger, list[Entry]]:
    """What is ready, in the hand of a process."""
    ledger = Ledger(stage.queue, ACCOUNT, owner)
    return ledger, (await ledger.claim(want)).entries


async def die(stage: Stage, owner: str) -> None:
    """The process goes silent, and its work goes back."""
    await stage.queue.call("ZADD", ACCOUNT.owners, now_ms() - LEASE_MS, owner)
    assert await Ledger(stage.queue, ACCOUNT, "reaper").reap()


def dead(entry: Entry, packed: bytes) -> Settlement:
    """The entry ends as a dead letter."""
    size = len(entry.parcel.deliveries)
    end = {f"{entry.lane}:dead:bad_payload": size}
    return Settlement(entry.id, entry.fence, size, ended=size, ends=end, dead=[(packed, "bad_payload", "400", 1)])


async def everything(link: Link) -> dict[bytes, bytes]:
    """All that lies in Redis, by key: its name and whatever it holds, as it is."""
    found: dict[bytes, bytes] = {}
    read = {
        b"string": lambda key: ("GET", key),
        b"hash": lambda key: ("HGETALL", key),
        b"list": lambda key: ("LRANGE", key, 0, -1),
        b"set": lambda key: ("SMEMBERS", key),
        b"zset": lambda key: ("ZRANGE", key, 0, -1, "WITHSCORES"),
        b"stream": lambda key: ("XRANGE", key, "-", "+"),
    }
    for key in await link.call("KEYS", "*"):
        (kind,) = _flat(await link.call("TYPE", key))
        # What went meanwhile holds nothing.
        if kind in read:
            found[key] = b"\0".join([key, *_flat(await link.call(*read[kind](key)))])
    return found


def _flat(reply: Any) -> list[bytes]:
    if isinstance(reply, list | tuple):
        return [part for one in reply for part in _flat(one)]
    return [reply if isinstance(reply, bytes) else str(reply).encode()]


async def traces(link: Link, *words: str | bytes) -> dict[bytes, list[str | bytes]]:
    """Keys in whose name or contents any of *words* stands."""
    found: dict[bytes, list[str | bytes]] = {}
    for key, held in (await everything(link)).items():
        seen = [word for word in words if (word.encode() if isinstance(word, str) else word) in held]
        if seen:
            found[key] = seen
    return found
