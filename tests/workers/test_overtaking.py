"""A retry that a newer push of its conversation has overtaken would put the older text on top: it is not sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import pytest
from msgspec.structs import replace
from tests.workers.doubles import Bench, Cloud, a_bench, until
from tests.workers.ledger.support import KEYS, an_entry, put

from pushfleet.message import ApnsOptions, OfflinePush
from pushfleet_workers.ledger import Entry, pack, unpack
from pushfleet_workers.outcome import OK, Outcome, Verdict
from pushfleet_workers.overtaking import Overtaking
from pushfleet_workers.push import Parcel, PutOff
from pushfleet_workers.vendor import Request, Response

BUSY = Outcome(Verdict.RETRY_AFTER, code="Busy", wait_s=0.4)
WRITTEN_MS = 1_000_000


class Stacking(Cloud):
    """A vendor whose devices show each push beside those before."""

    replaces: ClassVar[bool] = False


def on_bench(url: str, scenario: Callable[[Bench], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with a_bench(url, **options) as bench:
            await scenario(bench)

    asyncio.run(run())


def a_chat(name: str, at_ms: int, *, user: str = "bob", device: str = "phone", **changes: Any) -> Entry:
    """One message of a conversation, written *at_ms* after the first; its token names it."""
    entry = an_entry(name)
    wish = {"replace_key": "c1", "sent_at_ms": WRITTEN_MS + at_ms, "conversation_id": "c1", **changes}
    (delivery,) = entry.parcel.deliveries
    delivery.user, delivery.device, delivery.token = user, device, name
    return Entry(entry.id, Parcel(replace(entry.parcel.push, **wish), [delivery]), entry.lane, entry.put_ms)


async def tried_first(bench: Bench, older: Entry) -> None:
    """*older* is refused, and waits for its second attempt."""
    (delivery,) = older.parcel.deliveries
    bench.cloud.answer(delivery.token, BUSY, OK)
    await put(bench.link, older)
    await bench.courier.claim()

    async def waits() -> bool:
        return (await bench.book()).delayed == 1

    await until(waits)


def test_a_retry_is_not_sent_on_top_of_a_newer_push_of_its_conversation(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await tried_first(bench, a_chat("older", 0))
        await put(bench.link, a_chat("newer", 5))
        assert await bench.finish() == {"sent": 1, "dropped:superseded": 1}
        assert bench.cloud.tokens == ["older", "newer"]

    on_bench(redis_url, scenario)


class Slow(Cloud):
    """A vendor that lets one token wait for its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answers_older = asyncio.Event()

    async def send(self, request: Request) -> Response:
        if b"older" in request.body:
            await self.answers_older.wait()
        return await super().send(request)


@pytest.mark.parametrize("answer", [BUSY, OK])
def test_what_is_newer_than_work_under_way_overtakes_its_retry(
    redis_url: str, answer: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushfleet_workers.courier._LONG_S", 0.0)
    cloud = Slow()

    async def scenario(bench: Bench) -> None:
        cloud.answer("older", answer, OK)
        await put(bench.link, a_chat("older", 0))
        await bench.courier.claim()
        await bench.courier.heed_slow_answers()
        await put(bench.link, a_chat("newer", 5))
        await bench.courier.claim()

        async def sent() -> bool:
            return await bench.ends() == {"sent": 1}

        await until(sent)
        cloud.answers_older.set()
        ends = {"sent": 1, "dropped:superseded": 1} if answer is BUSY else {"sent": 2}
        assert await bench.finish() == ends
        assert cloud.tokens == ["newer", "older"]

    on_bench(redis_url, scenario, cloud=cloud)


@pytest.mark.parametrize(("ago_ms", "ends"), [(5_000, {"sent": 1, "dropped:superseded": 1}), (0, {"sent": 2})])
def test_a_retry_that_could_not_leave_in_time_is_asked_about_again(
    redis_url: str, ago_ms: int, ends: dict[str, int]
) -> None:
    async def scenario(bench: Bench) -> None:
        await tried_first(bench, a_chat("older", 0))
        identity, packed = await bench.link.call("HGETALL", KEYS.delayed_entries)
        retry = unpack(packed)
        retry.parcel.put_off = PutOff(int(time.time() * 1000) + 400 - ago_ms)
        await bench.link.call("HSET", KEYS.delayed_entries, identity, pack(retry))
        await put(bench.link, a_chat("newer", 5))
        assert await bench.finish() == ends

    on_bench(redis_url, scenario)


def test_the_newest_counts_whichever_is_sent_last(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await tried_first(bench, a_chat("older", 5))
        await put(bench.link, a_chat("newest", 9))
        await bench.courier.claim()
        await bench.settled()
        await put(bench.link, a_chat("late", 1))
        assert await bench.finish() == {"sent": 2, "dropped:superseded": 1}

    on_bench(redis_url, scenario)


def test_another_process_sends_the_newer_push(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await tried_first(bench, a_chat("older", 0))
        async with a_bench(redis_url, owner="w2", cloud=bench.cloud) as other:
            await put(other.link, a_chat("newer", 5))
            await other.courier.claim()
            await other.settled()
        assert await bench.finish() == {"sent": 1, "dropped:superseded": 1}

    on_bench(redis_url, scenario)


@pytest.mark.parametrize(
    ("at_ms", "changes"),
    [
        pytest.param(-5, {}, id="it-is-older"),
        pytest.param(0, {}, id="it-is-as-old"),
        pytest.param(5, {"replace_key": "c2"}, id="another-conversation"),
        pytest.param(5, {"replace_key": ""}, id="replaces-nothing"),
        pytest.param(5, {"user": "eve"}, id="another-user"),
        pytest.param(5, {"device": "tablet"}, id="another-device"),
        pytest.param(5, {"options": OfflinePush(apns=ApnsOptions(push_type="background"))}, id="shows-nothing"),
    ],
)
def test_a_retry_that_nothing_newer_replaces_is_sent(redis_url: str, at_ms: int, changes: dict[str, Any]) -> None:
    async def scenario(bench: Bench) -> None:
        await tried_first(bench, a_chat("older", 0))
        await put(bench.link, a_chat("newer", at_ms, **changes))
        assert await bench.finish() == {"sent": 2}
        assert bench.cloud.tokens == ["older", "newer", "older"]

    on_bench(redis_url, scenario)


def test_a_call_that_rings_by_voip_is_overtaken_by_no_chat(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        ring = a_chat("ring", 0)
        ring.parcel.deliveries[0].token_kind = "voip"
        await tried_first(bench, ring)
        await put(bench.link, a_chat("pick up!", 5))
        assert await bench.finish() == {"sent": 2}
        assert bench.cloud.tokens == ["ring", "pick up!", "ring"]

    on_bench(redis_url, scenario)


def test_a_chat_overtakes_no_call(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await tried_first(bench, a_chat("ringing", 0, kind="call"))
        await put(bench.link, a_chat("newer", 5))
        assert await bench.finish() == {"sent": 2}
        assert bench.cloud.tokens == ["ringing", "newer", "ringing"]

    on_bench(redis_url, scenario)


def test_where_nothing_replaces_anything_nothing_is_overtaken(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await tried_first(bench, a_chat("older", 0))
        await put(bench.link, a_chat("newer", 5))
        assert await bench.finish() == {"sent": 2}

    on_bench(redis_url, scenario, cloud=Stacking())


def test_a_device_addressed_directly_is_known_by_its_token(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await tried_first(bench, a_chat("one", 0, user="", device=""))
        await put(bench.link, a_chat("another", 5, user="", device=""))
        assert await bench.finish() == {"sent": 2}

    on_bench(redis_url, scenario)


def test_as_long_as_nothing_is_tried_again_nothing_is_noted(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, *[a_chat(f"m{number}", number) for number in range(20)])
        assert await bench.finish() == {"sent": 20}
        assert await bench.link.call("KEYS", KEYS.newest("*")) == []
        assert await bench.link.call("EXISTS", KEYS.retrying) == 0

    on_bench(redis_url, scenario)


def test_what_is_noted_goes_by_itself(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await tried_first(bench, a_chat("older", 0))
        (place,) = await bench.link.call("KEYS", KEYS.newest("*"))
        for key in (place, KEYS.retrying):
            assert 500_000 < await bench.link.call("PTTL", key) <= 601_000
        await put(bench.link, a_chat("newer", 5))
        await bench.finish()
        assert 0 < await bench.link.call("PTTL", place) <= 601_000

    on_bench(redis_url, scenario)


def test_notes_that_cannot_be_taken_hold_up_no_result(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.link.call("HSET", KEYS.retrying, "not", "a string")
        await tried_first(bench, a_chat("older", 0))
        (place,) = await bench.link.call("KEYS", KEYS.newest("*"))
        await bench.link.pipeline([("DEL", place), ("HSET", place, "not", "a string")])
        await put(bench.link, a_chat("newer", 5))
        assert await bench.finish() == {"sent": 2}
        assert "cannot be noted" in caplog.text

    on_bench(redis_url, scenario)


def test_what_was_noted_while_redis_was_away_is_written_later(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        overtaking = Overtaking(bench.link, KEYS, bench.cloud)
        older, newer = a_chat("older", 0).parcel, a_chat("newer", 5).parcel
        older.deliveries[0].tries = 1
        overtaking.retry_waits(older.push, older.deliveries, 10)
        overtaking.sent(newer.push, newer.deliveries)
        working, bench.link.run_many = bench.link.run_many, _broken  # type: ignore[method-assign]
        with pytest.raises(ConnectionError):
            await overtaking.write()
        bench.link.run_many = working  # type: ignore[method-assign]
        assert await overtaking.overtaken([(older.push, older.deliveries)]) == set()
        await overtaking.write()
        assert await overtaking.overtaken([(older.push, older.deliveries)]) == {older.deliveries[0].id}

    on_bench(redis_url, scenario)


def test_the_newest_counts_whatever_was_noted_while_redis_was_away(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        overtaking = Overtaking(bench.link, KEYS, bench.cloud)
        older, newer, late = (a_chat(name, at_ms).parcel for name, at_ms in [("older", 5), ("newer", 9), ("late", 1)])
        older.deliveries[0].tries = 1
        overtaking.retry_waits(older.push, older.deliveries, 300_000)
        overtaking.sent(newer.push, newer.deliveries)

        async def meanwhile(calls: object) -> Any:
            overtaking.retry_waits(late.push, late.deliveries, 10)
            overtaking.sent(late.push, late.deliveries)
            raise ConnectionError

        working, bench.link.run_many = bench.link.run_many, meanwhile  # type: ignore[method-assign]
        with pytest.raises(ConnectionError):
            await overtaking.write()
        bench.link.run_many = working  # type: ignore[method-assign]
        await overtaking.write()
        assert await overtaking.overtaken([(older.push, older.deliveries)]) == {older.deliveries[0].id}
        (place,) = await bench.link.call("KEYS", KEYS.newest("*"))
        assert await bench.link.call("PTTL", place) > 800_000

    on_bench(redis_url, scenario)


def test_any_number_of_retries_is_asked_about(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        overtaking = Overtaking(bench.link, KEYS, bench.cloud)
        retries = an_entry("m", deliveries=2_500).parcel
        older = replace(retries.push, replace_key="c1", sent_at_ms=WRITTEN_MS)
        for one in retries.deliveries:
            one.tries = 1
        overtaking.retry_waits(older, retries.deliveries, 10)
        overtaking.sent(replace(older, sent_at_ms=WRITTEN_MS + 5), retries.deliveries[::2])
        await overtaking.write()
        found = await overtaking.overtaken([(older, retries.deliveries)])
        assert found == {one.id for one in retries.deliveries[::2]}

    on_bench(redis_url, scenario)


async def _broken(calls: object) -> Any:
    raise ConnectionError
