"""The stream of reports on a real Redis: applied, put aside, taken over, bounded."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY
from tests.workers.tokens.support import APP, LEASE_S, NOW_MS, PREFIX, Stage, a_registration, on_redis

from pushfleet_workers.redis_link import Link
from pushfleet_workers.reports import ReportConsumer, ReportKeys, ReportStream
from pushfleet_workers.settings import AppSettings
from pushfleet_workers.tokens.confirmations import ConfirmationStore, confirmed_command, read_confirmed
from pushfleet_workers.tokens.keys import UserKeys

KEYS = ReportKeys(PREFIX)


def counted(result: str, what: str = "state_reports") -> float:
    return REGISTRY.get_sample_value(f"pushfleet_{what}_total", {"result": result}) or 0


class Reports:
    """A consumer and its stream; the device d1 of ann is registered."""

    def __init__(self, stage: Stage, name: str = "one", length_max: int = 1_000) -> None:
        self.link = stage.link
        waiting = Link(stage.url)
        stage.links.append(waiting)
        self.stream = ReportStream(stage.link, waiting, PREFIX, name, length_max)
        confirmations, apps = ConfirmationStore(stage.link, PREFIX), {APP: AppSettings(foreground_ack="park")}
        apps["plain"] = AppSettings()
        self.consumer = ReportConsumer(self.stream, stage.store, confirmations, apps, lambda: stage.now_ms)

    async def write(self, **fields: Any) -> None:
        told = [part for name, value in {"app": APP, **fields}.items() for part in (name, str(value))]
        await self.link.call("XADD", KEYS.stream, "*", *told)

    async def left(self) -> tuple[int, int, int]:
        """Entries that wait, that are in hand, that were put aside."""
        length, pending, refused = await self.link.pipeline(
            [("XLEN", KEYS.stream), ("XPENDING", KEYS.stream, "api"), ("XLEN", KEYS.refused)]
        )
        return length, pending[0], refused


def with_reports(url: str, scenario: Callable[[Stage, Reports], Awaitable[None]], **given: Any) -> None:
    async def run(stage: Stage) -> None:
        reports = Reports(stage, **given)
        await stage.store.register(APP, "ann", "d1", a_registration())
        await reports.stream.prepare()
        await scenario(stage, reports)

    on_redis(url, run)


A = {"user": "ann", "device": "d1"}


def test_reports_are_applied_and_leave_the_stream(redis_url: str) -> None:
    async def scenario(stage: Stage, reports: Reports) -> None:
        before = [counted(result) for result in ("applied", "outdated", "unknown")]
        await reports.write(**A, state="background", unread=4, at_ms=NOW_MS + 5)
        batch = [
            {**A, "state": "foreground", "at_ms": NOW_MS + 7},
            {**A, "state": "killed", "at_ms": NOW_MS + 6},
            {"user": "nobody", "device": "d1", "state": "killed"},
        ]
        await reports.write(reports=json.dumps(batch))
        # A report without a time is of when its entry was written: by the server's clock, which is ahead of this one.
        stage.now_ms = int(time.time() * 1000)
        assert await reports.consumer.step(1) == 2
        device = await stage.device()
        assert (device.state, device.lease_until_ms, device.unread) == ("f", NOW_MS + 7 + LEASE_S * 1_000, 0)
        assert await reports.left() == (0, 0, 0)
        after = [counted(result) for result in ("applied", "outdated", "unknown")]
        assert [now - then for now, then in zip(after, before, strict=True)] == [2, 1, 1]

    with_reports(redis_url, scenario)


def test_confirmations_are_taken_down_beside_reports(redis_url: str) -> None:
    async def scenario(stage: Stage, reports: Reports) -> None:
        results = ("applied", "outdated", "unknown")
        before = [counted(result, "delivery_confirmations") for result in results]
        await reports.write(**A, up_to_ms=NOW_MS - 5, conversation="c1")
        batch = [{**A, "up_to_ms": NOW_MS - 9}, {**A, "up_to_ms": NOW_MS - 9}, {**A, "device": "d9", "up_to_ms": 1}]
        await reports.write(
            reports=json.dumps([{**A, "state": "killed", "at_ms": NOW_MS + 5}]), confirmations=json.dumps(batch)
        )
        await reports.write(**A, app="plain", up_to_ms=1)
        assert await reports.consumer.step(1) == 3
        assert (await stage.device()).state == "k"
        asked = [confirmed_command(PREFIX, APP, "ann", "d1", conversation) for conversation in ("c1", "c2", "")]
        known = [read_confirmed(reply) for reply in await stage.link.pipeline(asked)]
        assert known == [NOW_MS - 5, NOW_MS - 9, NOW_MS - 9]
        after = [counted(result, "delivery_confirmations") for result in results]
        assert [now - then for now, then in zip(after, before, strict=True)] == [2, 1, 1]
        assert await reports.left() == (0, 0, 1)
        ((_, aside),) = await reports.link.call("XRANGE", KEYS.refused, "-", "+")
        assert b"nothing is parked for the app: its foreground_ack is not park" in aside

    with_reports(redis_url, scenario)


def test_confirmations_of_no_use_do_not_cost_the_reports_beside_them(redis_url: str) -> None:
    async def scenario(stage: Stage, reports: Reports) -> None:
        await stage.store.register("plain", "ann", "d1", a_registration())
        results = ("applied", "malformed", "parking_off")
        before = [counted(result, "delivery_confirmations") for result in results]
        states, got = [{**A, "state": "killed", "at_ms": NOW_MS + 5}], {**A, "up_to_ms": 1}
        ahead = {**got, "up_to_ms": NOW_MS + 600_000}
        for app, told in ((APP, [got, ahead]), ("plain", [got, ahead]), ("plain", [got, got, got])):
            await reports.write(app=app, reports=json.dumps(states), confirmations=json.dumps(told))
        assert await reports.consumer.step(1) == 3
        assert (await stage.device()).state == "k"
        assert (await stage.store.user("plain", "ann")).devices["d1"].state == "k"
        after = [counted(result, "delivery_confirmations") for result in results]
        assert [now - then for now, then in zip(after, before, strict=True)] == [0, 2, 3]
        assert await reports.left() == (0, 0, 2), "only what is wrong is kept, not what nobody waits for"
        ((_, aside), _) = await reports.link.call("XRANGE", KEYS.refused, "-", "+")
        assert b"confirmation 1: the time lies more than five minutes in the future: check the clock" in aside

    with_reports(redis_url, scenario)


def test_what_cannot_be_read_is_put_aside_with_its_reason_and_holds_nobody_up(redis_url: str) -> None:
    async def scenario(stage: Stage, reports: Reports) -> None:
        before = counted("malformed")
        await reports.write(**A, state="asleep")
        await reports.write(**A, app="other", state="killed", at_ms=NOW_MS)
        await reports.write(reports=json.dumps([{**A, "state": "killed", "at_ms": NOW_MS + 9}, {**A, "state": "?"}]))
        await reports.write(**A, state="background", at_ms=NOW_MS + 5)
        await reports.consumer.step(1)
        assert (await stage.device()).state == "b", "a batch with one wrong report is not applied in part"
        assert await reports.left() == (0, 0, 3)
        aside = await reports.link.call("XRANGE", KEYS.refused, "-", "+")
        told = [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in aside]
        assert [one[b"problem"] for one in told] == [
            b"this is none of the values that are allowed - at `state`",
            b"the settings have no such app",
            b"this is none of the values that are allowed - at `[1].state`",
        ]
        assert told[0][b"user"] == b"ann"
        assert counted("malformed") == before + 3

    with_reports(redis_url, scenario)


def test_what_a_process_left_behind_another_takes_over(redis_url: str) -> None:
    async def scenario(stage: Stage, reports: Reports) -> None:
        await reports.write(**A, state="killed", at_ms=NOW_MS + 5)
        assert len(await reports.stream.read(10, 1)) == 1
        other = Reports(stage, "other")
        assert await other.consumer.step(1) == 0
        await other.consumer.apply(await other.stream.take_over(0, 10))
        assert (await stage.device()).state == "k"
        assert await other.left() == (0, 0, 0)

    with_reports(redis_url, scenario)


def test_what_broke_off_is_done_again_without_being_taken_over(redis_url: str) -> None:
    async def scenario(stage: Stage, reports: Reports) -> None:
        await reports.write(**A, state="killed", at_ms=NOW_MS + 5)
        await reports.write(**A, state="background", at_ms=NOW_MS + 6)
        assert len(await reports.stream.read(1, 1)) == 1
        await reports.stream.prepare()
        assert await reports.consumer.step(1) == 1
        assert (await stage.device()).state == "k"
        assert await reports.consumer.step(1) == 1
        assert await reports.left() == (0, 0, 0)

    with_reports(redis_url, scenario)


def test_the_oldest_go_when_the_stream_is_full_and_are_counted(redis_url: str) -> None:
    async def scenario(stage: Stage, reports: Reports) -> None:
        before = counted("dropped")
        for number in range(7):
            await reports.write(**A, state="background", unread=number, at_ms=NOW_MS + 1 + number)
        assert await reports.stream.bound() == (5, 2)
        for number in range(3):
            await reports.write(**A, state="background", unread=9, at_ms=NOW_MS + 20 + number)
        assert await reports.consumer.step(1) == 5
        assert counted("dropped") == before + 3
        assert (await stage.device()).unread == 9

    with_reports(redis_url, scenario, length_max=5)


def test_a_user_whose_keys_are_damaged_holds_nobody_up(redis_url: str) -> None:
    async def scenario(stage: Stage, reports: Reports) -> None:
        await stage.link.call("SET", UserKeys(PREFIX, APP, "broken").devices, "x")
        batch = [{"user": user, "device": "d1", "state": "killed", "at_ms": NOW_MS + 5} for user in ("broken", "ann")]
        await reports.write(reports=json.dumps(batch))
        await reports.consumer.step(1)
        assert (await stage.device()).state == "k"
        assert await reports.left() == (0, 0, 0)

    with_reports(redis_url, scenario)


@pytest.mark.parametrize("count", [1, 3])
def test_repeating_an_entry_changes_nothing(redis_url: str, count: int) -> None:
    async def scenario(stage: Stage, reports: Reports) -> None:
        for _ in range(count):
            await reports.write(**A, state="background", unread=4, at_ms=NOW_MS + 5)
        await reports.consumer.step(1)
        device = await stage.device()
        assert (device.state, device.state_at_ms, device.unread) == ("b", NOW_MS + 5, 4)

    with_reports(redis_url, scenario)
