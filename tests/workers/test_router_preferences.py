"""What users want altogether, as router and recheck heed it."""

from __future__ import annotations

import pytest
from tests.workers.routing import PREFIX, Stage, chat, now_ms, play

from pushfleet import Recipient
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.recheck import Rechecker
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.preference_store import PreferenceStore
from pushfleet_workers.tokens.preferences import DAY_S, PREFERENCES_FIELD, Preferences, Window
from pushfleet_workers.tokens.record import KILLED

OFF = Preferences(push=False)
QUIET = Preferences(quiet_daily=(Window(0, DAY_S),))


async def prefer(stage: Stage, wanted: Preferences, user: str = "bob") -> None:
    await PreferenceStore(stage.queue, PREFIX).change("demo", user, lambda _: wanted)


# ---- no push


def test_who_switched_pushes_off_or_is_not_to_be_disturbed_gets_none(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for user, wanted in (("off", OFF), ("quiet", QUIET), ("free", Preferences(hide_text=True))):
            await stage.device(user, state=KILLED)
            await prefer(stage, wanted, user)
        everybody = ("off", "quiet", "free")
        await stage.route(chat("m1", *everybody), chat("m2", *everybody, kind="call"))
        assert sorted(one.user for one in await stage.deliveries()) == ["free", "free", "quiet"]
        assert await stage.suppressed() == {"push_off": 2, "do_not_disturb": 1}
        forced = [Recipient(id=user, push="force") for user in everybody]
        await stage.route(chat("m3", *forced))
        assert len(await stage.deliveries()) == 6

    play(redis_url, scenario)


def test_each_device_is_quiet_by_its_own_clock(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        # Twelve hours around now by the clock in UTC: half the world away it is another half of the day.
        second = now_ms() // 1000 % DAY_S
        await prefer(stage, Preferences(quiet_daily=(Window((second - DAY_S // 4) % DAY_S, DAY_S // 2),)))
        await stage.device(name="here")
        await stage.device(name="far", time_zone="Etc/GMT+12")
        await stage.route(chat("m1"))
        assert [one.device for one in await stage.deliveries()] == ["far"]
        assert await stage.suppressed() == {"do_not_disturb": 1}

    play(redis_url, scenario)


def test_preferences_that_cannot_be_read_stop_nothing(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.queue.call("HSET", UserKeys(PREFIX, "demo", "bob").options, PREFERENCES_FIELD, b"\xc1")
        await stage.route(chat("m1"), chat("m2", conversation=None))
        assert len(await stage.deliveries()) == 2

    play(redis_url, scenario)


@pytest.mark.parametrize(("wanted", "reason"), [(OFF, "push_off"), (QUIET, "do_not_disturb"), (Preferences(), "")])
def test_what_waited_heeds_what_the_user_wants_by_then(redis_url: str, wanted: Preferences, reason: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.device()
        await stage.route(chat("m1"), chat("m2", Recipient(id="bob", push="force")), chat("m3", kind="call"))
        await prefer(stage, wanted)
        entries = await stage.entries()
        found = await Rechecker(stage.queue, PREFIX, FleetClock(), "apns", "main").recheck(entries)
        reasons = {
            entry.parcel.push.message_id: found.refused.get(one.id, "")
            for entry in entries
            for one in entry.parcel.deliveries
        }
        assert reasons == {"m1": reason, "m2": "", "m3": reason if wanted is OFF else ""}

    play(redis_url, scenario)
