"""What waited is decided again before it is sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec.structs import replace
from tests.workers.routing import PREFIX, Stage, chat, group, now_ms, play

from pushfleet import OfflineMessage, Recipient
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ledger import Entry
from pushfleet_workers.push import Delivery, Parcel
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.redis_link import Link
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.record import FOREGROUND, KILLED, LOGGED_OUT, Channel


@dataclass
class Waiting:
    """One routed entry that waits in the ledger."""

    stage: Stage
    entries: list[Entry]

    @property
    def deliveries(self) -> list[Delivery]:
        return [one for entry in self.entries for one in entry.parcel.deliveries]

    async def reasons(self) -> list[str]:
        """What a recheck says of each delivery; empty: it may be sent."""
        checker = Rechecker(self.stage.queue, PREFIX, FleetClock(), "apns", "main")
        refused = (await checker.recheck(self.entries)).refused
        assert set(refused) <= {one.id for one in self.deliveries}
        return [refused.get(one.id, "") for one in self.deliveries]


def waits(url: str, scenario: Callable[[Waiting], Awaitable[None]], *messages: OfflineMessage, **device: Any) -> None:
    """Route *messages* (default: one chat) to Bob's phone, then run *scenario*."""

    async def run(stage: Stage) -> None:
        await stage.device(**device)
        await stage.route(*(messages or (chat(),)))
        await scenario(Waiting(stage, await stage.entries()))

    play(url, run)


def test_what_did_not_change_may_be_sent(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        assert await waiting.reasons() == [""]
        assert [one.token for one in waiting.deliveries] == ["token-of-bob-phone"]

    waits(redis_url, scenario)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"state": FOREGROUND, "lease_until_ms": 2**50}, "foreground"),
        ({"state": FOREGROUND, "lease_until_ms": 1}, ""),
        ({"state": KILLED}, ""),
        ({"state": LOGGED_OUT}, "logged_out"),
        ({"permitted": False}, "notifications_off"),
        ({"channels": []}, "no_channel"),
        ({"vendor": "fcm"}, "no_channel"),
        ({"credential": "lite"}, "no_channel"),
        ({"kind": "voip"}, "no_channel"),
        ({"channels": [Channel("apns", "main", "t", 1, quarantined_until_ms=2**50)]}, "no_channel"),
    ],
)
def test_the_device_changed_meanwhile(redis_url: str, changed: dict[str, Any], reason: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        await waiting.stage.device(**changed)
        assert await waiting.reasons() == [reason]

    waits(redis_url, scenario)


@pytest.mark.parametrize("receive", ["none", "mentions"])
def test_the_conversation_was_muted_meanwhile(redis_url: str, receive: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        await waiting.stage.option("bob", "g1", receive)
        muted = "muted" if receive == "none" else "mentions_only"
        mentioned = "muted" if receive == "none" else ""
        found = {entry.parcel.push.message_id: entry for entry in waiting.entries}
        waiting.entries = [found[name] for name in ("m1", "m2", "m3", "m4")]
        assert await waiting.reasons() == [muted, mentioned, "", ""]

    waits(
        redis_url,
        scenario,
        group("m1", "bob"),
        group("m2", Recipient(id="bob", mention=True)),
        group("m3", Recipient(id="bob", push="force")),
        chat("m4"),
    )


def test_calls_pass_mentions_only_here_as_well(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        await waiting.stage.option("bob", "g1", "mentions")
        assert await waiting.reasons() == [""]

    waits(redis_url, scenario, group("m1", "bob", kind="call"))


def test_a_mute_that_has_ended_is_none(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        await waiting.stage.option("bob", "c1", f"none:{now_ms() + 60_000}")
        assert await waiting.reasons() == ["muted"]
        await waiting.stage.option("bob", "c1", f"none:{now_ms() - 1}")
        assert await waiting.reasons() == [""]

    waits(redis_url, scenario)


def test_what_was_forced_passes_foreground_and_not_logout(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        await waiting.stage.device(state=FOREGROUND, lease_until_ms=2**50)
        assert await waiting.reasons() == [""]
        await waiting.stage.device(state=LOGGED_OUT)
        assert await waiting.reasons() == ["logged_out"]

    waits(redis_url, scenario, chat("m1", Recipient(id="bob", push="force")))


def test_the_device_is_gone(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        await waiting.stage.queue.call("DEL", UserKeys(PREFIX, "demo", "bob").devices)
        assert await waiting.reasons() == ["no_device"]

    waits(redis_url, scenario)


def test_a_renewed_token_is_taken_over(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        await waiting.stage.device(channels=[Channel("apns", "main", "new-token", 2_000)])
        assert await waiting.reasons() == [""]
        assert [(one.token, one.registered_at_ms) for one in waiting.deliveries] == [("new-token", 2_000)]

    waits(redis_url, scenario)


def test_a_token_that_still_holds_is_kept_whatever_stands_before_it(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        other, same = Channel("apns", "main", "other", 2_000), Channel("apns", "main", "token-of-bob-phone", 3_000)
        await waiting.stage.device(channels=[other, same])
        assert await waiting.reasons() == [""]
        assert [(one.token, one.registered_at_ms) for one in waiting.deliveries] == [("token-of-bob-phone", 3_000)]

    waits(redis_url, scenario)


def test_what_waited_shows_the_badge_of_now(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        stage = waiting.stage
        assert [one.badge for one in waiting.deliveries] == [3, 4]
        await stage.route(chat("m3"))
        await stage.device(unread=6)
        assert await waiting.reasons() == ["", ""]
        assert [one.badge for one in waiting.deliveries] == [9, 9], "the base of now, and the three that were counted"
        await stage.queue.call("DEL", UserKeys(PREFIX, "demo", "bob").badges)
        assert await waiting.reasons() == ["", ""]
        assert [one.badge for one in waiting.deliveries] == [6, 6]

    waits(redis_url, scenario, chat("m1"), chat("m2"), unread=2)


def test_a_badge_that_the_backend_gave_stays(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        (held,) = waiting.entries
        held.parcel = Parcel(replace(held.parcel.push, later="held"), held.parcel.deliveries)
        assert await waiting.reasons() == [""]
        assert [one.badge for one in waiting.deliveries] == [17]

    waits(redis_url, scenario, chat("m1", Recipient(id="bob", unread=17)))


def test_a_call_keeps_to_its_voip_token(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        channels = [Channel("apns", "main", "alert", 1), Channel("apns", "main", "new-voip", 2, "voip")]
        await waiting.stage.device(channels=channels)
        assert await waiting.reasons() == [""]
        assert [one.token for one in waiting.deliveries] == ["new-voip"]

    waits(redis_url, scenario, chat(kind="call"), channels=[Channel("apns", "main", "old-voip", 1, "voip")])


def test_devices_addressed_directly_are_not_asked_about(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        for delivery in waiting.deliveries:
            delivery.user = ""
        await waiting.stage.queue.call("FLUSHALL")
        assert await waiting.reasons() == [""]

    waits(redis_url, scenario)


def test_one_users_damaged_keys_do_not_spare_the_others(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        stage = waiting.stage
        await stage.device("eve", token="eve")
        await stage.device("ann", token="ann")
        await stage.route(group("m2", "eve", "ann"))
        waiting.entries = await stage.entries()
        await stage.queue.call("DEL", UserKeys(PREFIX, "demo", "eve").devices)
        await stage.queue.call("SET", UserKeys(PREFIX, "demo", "eve").devices, "not even a hash")
        await stage.option("ann", "g1", "none")
        assert await waiting.reasons() == ["", "", "muted"], "where nothing can be read the first decision stands"

    waits(redis_url, scenario)


def test_without_the_token_state_the_caller_is_told(redis_url: str) -> None:
    async def scenario(waiting: Waiting) -> None:
        nowhere = Link("redis://127.0.0.1:1/0")
        with pytest.raises(RedisUnusable):
            await Rechecker(nowhere, PREFIX, FleetClock(), "apns", "main").recheck(waiting.entries)
        await nowhere.close()

    waits(redis_url, scenario)
