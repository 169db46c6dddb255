"""Entries that cannot be routed, ids and records that are strange: none stops a router or costs its neighbours."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.workers.ledger.support import PLENTY
from tests.workers.routing import APNS, PREFIX, Stage, chat, group, play

from pushfleet import OfflineMessage, Sender, wire
from pushfleet.message import Recall
from pushfleet_workers.audit import read_books
from pushfleet_workers.compose import compose
from pushfleet_workers.ingress import GROUP, Raw
from pushfleet_workers.job import Job, job_for
from pushfleet_workers.ledger import AccountKeys, Ledger, Settlement
from pushfleet_workers.router import _slices
from pushfleet_workers.tokens.keys import UserKeys

# ---- entries that cannot be routed


def body(**changes: Any) -> str:
    return json.dumps({"id": "bad", "app": "demo", "recipients": ["bob"], "body": "secret words", **changes})


MALFORMED = [
    (("v", "1", "m", "secret words"), "malformed", "JSON"),
    (("v", "1", "m", b"\xff\xfe\x00"), "malformed", ""),
    (("v", "1", "m", ""), "malformed", ""),
    (("v", "1", "m", "[]"), "malformed", "object"),
    (("v", "1", "m", "[" * 100_000), "malformed", ""),
    (("v", "1"), "malformed", "field m"),
    (("payload", body()), "malformed", "field m"),
    (("v", "1", "m", body(recipients=[])), "malformed", "recipients"),
    (("v", "1", "m", body(recipients="bob")), "malformed", "recipients"),
    (("v", "1", "m", body(recipients=[17])), "malformed", "recipients"),
    (("v", "1", "m", body(recipients=[""])), "malformed", "empty"),
    (("v", "1", "m", body(recipients=[f"u{n}" for n in range(501)])), "malformed", "500"),
    (("v", "1", "m", body(id="x" * 300)), "malformed", "256"),
    (("v", "1", "m", body(kind="rumour")), "malformed", "kind"),
    (("v", "1", "m", body(ttl_s="soon")), "malformed", "ttl_s"),
    (("v", "1", "m", body(app="no such name!")), "malformed", "app"),
    (("v", "1", "m", body(body="x" * 1_100_000)), "malformed", "1048576"),
    (("v", "2", "m", body()), "malformed", "field v is '2'"),
    (("v", "", "m", body()), "malformed", "field v"),
    (("v", b"\xff" * 500, "m", body()), "malformed", "field v"),
    (("v", "1", "m", body(app="unheard")), "unknown_app", "unheard"),
]


@pytest.mark.parametrize(("fields", "reason", "told"), MALFORMED)
def test_what_breaks_the_contract_is_refused_alone_with_a_reason(
    redis_url: str, fields: tuple[str | bytes, ...], reason: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat("m1"))
        await stage.xadd(*fields)
        stage.enqueue(chat("m2"))
        await stage.route()
        (refused,) = await stage.refused()
        assert refused["reason"] == reason
        assert told in refused["problem"]
        assert "secret words" not in refused["problem"] + caplog.text
        assert len(refused["problem"]) <= 500
        assert [entry.parcel.push.message_id for entry in await stage.entries()] == ["m1", "m2"]
        lane = (await stage.books()).lanes["normal"]
        assert (lane.added, lane.routed, lane.malformed, lane.present) == (3, 2, 1, 0)
        assert await stage.queue.call("XPENDING", stage.streams["normal"].keys.stream, GROUP) == [0, None, None, None]
        assert await stage.joined()

    play(redis_url, scenario)


def test_an_entry_without_a_version_is_of_version_one(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.xadd("m", wire.encode(chat()), "trace", "a field that a later version added")
        await stage.route()
        assert len(await stage.deliveries()) == 1

    play(redis_url, scenario)


def test_a_field_of_a_later_version_is_skipped(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.xadd("v", "1", "m", body(hologram={"deep": [1]}))
        await stage.route()
        assert len(await stage.deliveries()) == 1

    play(redis_url, scenario)


def test_an_entry_that_brings_out_a_defect_does_not_stop_its_neighbours(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defective(message: OfflineMessage, *others: Any, **more: Any) -> tuple[str, str]:
        if message.id == "m2":
            raise ZeroDivisionError("a text that must not be told")
        return compose(message, *others, **more)

    monkeypatch.setattr("pushfleet_workers.wording.compose", defective)

    async def scenario(stage: Stage) -> None:
        await stage.device(unread=5)
        await stage.route(chat("m1"), chat("m2"), chat("m3"))
        assert [one.badge for one in await stage.deliveries()] == [6, 7]
        (refused,) = await stage.refused()
        assert refused["reason"] == "unroutable"
        assert "ZeroDivisionError at test_router_entries.py" in refused["problem"]
        assert "a text" not in refused["problem"] + caplog.text
        assert await stage.joined()

    play(redis_url, scenario)


# ---- strange ids and records


@pytest.mark.parametrize(
    "user",
    ["{x}", "a:b}:options", "a\0b", "\n", "用户", "😀" * 64, "u" * 256, "*", "a b", "../..", "%7B", "=", "'; FLUSHALL"],
)
def test_any_user_id_is_kept_apart(redis_url: str, user: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device(user, user[:30], token="t1")
        await stage.option(user, user, "mentions")
        await stage.route(chat("m1", user, "x", "a"), chat("m2", user, conversation=None))
        assert [(one.user, one.device, one.token) for one in await stage.deliveries()] == [(user, user[:30], "t1")] * 2
        assert await stage.suppressed() == {"no_device": 2}
        assert await stage.joined()

    play(redis_url, scenario)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.text(min_size=1, max_size=60).filter(lambda one: not _lone(one)), min_size=1, max_size=5),
    name=st.text(max_size=60).filter(lambda one: not _lone(one)),
    text=st.text(max_size=200).filter(lambda one: not _lone(one)),
)
def test_whatever_a_producer_accepts_is_routed(redis_url: str, ids: list[str], name: str, text: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.queue.call("FLUSHALL")
        for stream in stage.streams.values():
            await stream.prepare()
        for user in ids:
            await stage.device(user, locale=name[:35])
        await stage.route(chat(ids[0], *ids, body=text, sender=Sender(id="ann", name=name)))
        assert await stage.refused() == []
        assert len(await stage.deliveries()) + (await stage.suppressed()).get("empty_text", 0) == len(set(ids))
        assert await stage.joined()

    play(redis_url, scenario)


def _lone(text: str) -> bool:
    return any("\ud800" <= one <= "\udfff" for one in text)


@pytest.mark.parametrize("key", ["badges", "storms", "days", "calls", "reads", "options"])
def test_one_users_damaged_key_costs_their_neighbours_nothing(redis_url: str, key: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user in ("a", "b"):
            await stage.device(user, unread=2)
        await stage.queue.call("SET", getattr(UserKeys(PREFIX, "demo", "a"), key), "not even a hash")
        await stage.route(
            group("m1", "a", "b"), group("m2", "a", "b"), chat("call", "a", "b", kind="call"),
            chat("end", "a", "b", kind="call_cancel"), chat("again", "a", kind="marketing"),
        )  # fmt: skip
        reached = [one for one in await stage.deliveries() if one.user == "b"]
        assert [one.badge for one in reached] == [3, 4, 5]
        assert await stage.joined()
        assert await stage.refused() == []

    capped = {**APNS, "device_caps": {"all": 50}}
    play(
        redis_url,
        scenario,
        apps={"demo": {"name": "Demo", "storm_waits_s": [10], "reads": True}, "lite": {}},
        accounts={"apns": {"main": capped}},
    )


def test_a_damaged_record_costs_only_its_device(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device("a")
        await stage.device("a", "tablet")
        for name, damaged in (("tablet", b"\x00"), ("watch", b""), (b"\xff", b"\x91\xc1"), ("tv", b"\x93\x90\x01")):
            await stage.queue.call("HSET", UserKeys(PREFIX, "demo", "a").devices, name, damaged)
        await stage.queue.call("SET", UserKeys(PREFIX, "demo", "b").devices, "not even a hash")
        await stage.device("c")
        await stage.queue.call("HSET", UserKeys(PREFIX, "demo", "c").options, "g1", b"none:\xff")
        await stage.device("d")
        await stage.queue.call("SET", UserKeys(PREFIX, "demo", "d").options, "neither")
        await stage.device("e")
        await stage.route(group("m1", *"abcde"))
        users = [one.user for one in await stage.deliveries()]
        assert users == ["a", "e"]
        assert await stage.suppressed() == {"no_device": 2, "muted": 1}
        assert await stage.joined()

    play(redis_url, scenario)


def test_an_entry_id_of_a_far_future_is_no_stumbling_block(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        stage.enqueue(chat("m1"))
        stream = stage.streams["normal"].keys.stream
        await stage.queue.call("XADD", stream, f"{2**64 - 1}-1", "v", "1", "m", wire.encode(chat("m2")))
        await stage.route()
        assert [entry.parcel.push.message_id for entry in await stage.entries()] == ["m1"]
        assert [one["reason"] for one in await stage.refused()] == ["unroutable"]

    play(redis_url, scenario)


def test_what_is_put_once_more_when_its_marker_is_gone_is_not_taken_for_the_first(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat())
        for key in await stage.queue.call("KEYS", f"{PREFIX}:*:marks:*"):
            await stage.queue.call("DEL", key)
        await stage.route(chat())
        ledger = Ledger(stage.queue, AccountKeys(PREFIX, "apns", "main"), "worker")
        first, second = (await ledger.claim(PLENTY)).entries
        assert first.id != second.id
        assert first.parcel.deliveries[0].id == second.parcel.deliveries[0].id
        for entry in (first, second):
            await ledger.settle([Settlement(entry.id, entry.fence, 1, ended=1, ends={"normal:sent:": 1})])
        account = (await read_books(stage.queue, PREFIX, [("apns", "main")])).accounts["apns:main"]
        assert (account.put, account.leased, account.ended, account.balanced) == (2, 0, 2, True)

    play(redis_url, scenario)


def test_recalls_of_nobody_knows_how_many_go_alone() -> None:
    def jobs(*recipients: str) -> list[Job]:
        recall = Recall(id="m1", app="demo", recipients=recipients)
        return [job_for(Raw(b"1-0", 1, {}), recall, 60) for _ in range(3)]

    assert [len(batch) for batch in _slices(jobs())] == [1, 1, 1]
    assert [len(batch) for batch in _slices(jobs("bob"))] == [3]
