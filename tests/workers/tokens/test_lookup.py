import pytest
from tests.workers.tokens.support import APP, NOW_MS, PREFIX, Stage, a_registration, drop_token, on_redis

from pushfleet_workers.tokens.lookup import Lookup, UserState, pack_option, read_option


def test_hundreds_of_users_are_read_in_one_round_trip(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        users = 400
        await stage.store.register_many(
            [
                (APP, f"u{n}", f"d{m}", a_registration(f"t{n}-{m}", state="background", unread=n))
                for n in range(users)
                for m in range(n % 3)
            ]
        )
        for number in range(0, users, 10):
            await stage.store.set_receive_option(APP, f"u{number}", "room", "mentions")
        lookup = Lookup(PREFIX)
        commands = [one for n in range(users) for one in lookup.commands(APP, f"u{n}", "room")]
        assert len(commands) == users * lookup.width
        replies = await stage.link.pipeline(commands)
        for number in range(users):
            state = lookup.read(replies[number * lookup.width : (number + 1) * lookup.width])
            assert set(state.devices) == {f"d{m}" for m in range(number % 3)}
            assert all(device.unread == number for device in state.devices.values())
            assert state.receive_at(NOW_MS) == ("mentions" if number % 10 == 0 else "all")

    on_redis(redis_url, scenario)


def test_an_unknown_user_has_no_devices_and_wants_everything(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        lookup = Lookup(PREFIX)
        state = lookup.read(await stage.link.pipeline(lookup.commands(APP, "nobody", "")))
        assert state == UserState()
        assert state.receive_at(NOW_MS) == "all"

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(
    ("receive", "until_ms", "now_ms", "expected"),
    [
        ("none", 0, NOW_MS, "none"),
        ("mentions", 0, NOW_MS, "mentions"),
        ("none", NOW_MS + 1, NOW_MS, "none"),
        ("none", NOW_MS, NOW_MS, "all"),
        ("mentions", NOW_MS - 1, NOW_MS, "all"),
    ],
)
def test_a_receive_option_holds_until_it_ends(receive: str, until_ms: int, now_ms: int, expected: str) -> None:
    stored = pack_option(receive, until_ms).encode()
    assert read_option(stored) == (receive, until_ms)
    assert UserState(option=stored).receive_at(now_ms) == expected


def test_a_change_of_the_store_is_seen_by_the_next_lookup(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        lookup = Lookup(PREFIX)

        async def channels() -> list[str]:
            state = lookup.read(await stage.link.pipeline(lookup.commands(APP, "ann", "room")))
            return [channel.token for device in state.devices.values() for channel in device.channels]

        await stage.store.register(APP, "ann", "d1", a_registration("t1", "t2"))
        assert await channels() == ["t1", "t2"]
        await drop_token(stage.store, APP, "ann", "d1", "t1", NOW_MS, None)
        assert await channels() == ["t2"]
        await stage.store.remove(APP, "ann", "d1")
        assert await channels() == []

    on_redis(redis_url, scenario)
