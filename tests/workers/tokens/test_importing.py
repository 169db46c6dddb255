import asyncio
import json
from typing import Any

import pytest
from tests.workers.tokens.support import PREFIX, Stage, on_redis

from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.tokens.importing import ImportProgress, import_lines

FAR_FUTURE_MS = 253_402_300_000_000
ACCOUNTS = {("apns", "main"): "demo", ("fcm", "main"): "demo", ("apns", "lite"): "lite"}


def a_line(number: int = 1, **more: Any) -> bytes:
    line = {
        "app": "demo",
        "user": f"u{number}",
        "device": "d1",
        "channels": [{"vendor": "apns", "token": f"{number:064x}"}],
        **more,
    }
    return json.dumps(line).encode() + b"\n"


def imported(url: str, *lines: bytes) -> list[ImportProgress]:
    """Every progress, as it was when it came."""

    async def run() -> list[ImportProgress]:
        return [
            ImportProgress(progress.imported, progress.refused, list(progress.problems))
            async for progress in import_lines(
                url, PREFIX, enumerate(lines, start=1), known_apps={"demo", "lite"}, accounts=ACCOUNTS
            )
        ]

    return asyncio.run(run())


def test_lines_are_registered_with_progress_on_the_way(redis_url: str) -> None:
    steps = imported(redis_url, *(a_line(number, state="background", unread=2) for number in range(1_100)))
    assert [step.imported for step in steps] == [500, 1_000, 1_100]

    async def scenario(stage: Stage) -> None:
        for number in (0, 499, 500, 1_099):
            device = await stage.device(f"u{number}")
            assert (device.channels[0].token, device.state, device.unread) == (f"{number:064x}", "b", 2)

    on_redis(redis_url, scenario)


def test_a_bad_line_is_named_with_its_reason_and_stops_nothing(redis_url: str) -> None:
    bad = {
        2: (b"{", "not a device: Input data was truncated"),
        3: (b"\xff\n", "not a device"),
        4: (a_line(app="nope"), "the settings have no app 'nope'"),
        5: (a_line(channels=[]), "Expected `array` of length >= 1 - at `channels`"),
        6: (a_line(colour="red"), "unknown field"),
        7: (a_line(user=""), "the user id has 0 bytes; 1 to 256 are allowed"),
        8: (a_line(user="用" * 86), "the user id has 258 bytes"),
        9: (a_line(device="x" * 129), "the device id has 129 bytes"),
        10: (a_line(at_ms=FAR_FUTURE_MS), "five minutes in the future"),
        11: (a_line(unread=1), "unread says nothing without state"),
        12: (a_line(channels=[{"vendor": "apns", "token": "secret token"}]), "at `channels[0].token`"),
        13: (a_line(channels=[{"vendor": "huawei", "token": "secret"}]), "no account of that vendor"),
        14: (
            a_line(channels=[{"vendor": "apns", "credential": "secret", "token": "t"}]),
            "it has: apns/main, fcm/main",
        ),
        15: (a_line(channels=[{"vendor": "apns", "credential": "lite", "token": "t"}]), "with that credential"),
        16: (a_line(app="lite"), "app lite has no account of apns with that credential; it has: apns/lite"),
        17: (a_line(state="secret-token"), "none of the values that are allowed - at `state`"),
        18: (a_line(**{"secret-token": 1}), "an unknown field"),
        19: (b"[" * 100_000, "not a device"),
        20: (b'{"user": "\\ud800"}', "not a device"),
        21: (a_line(channels=[{"vendor": "apns", "token": "secret\n"}]), "at `channels[0].token`"),
        22: (a_line(channels=[{"vendor": "apns", "token": "secret"}]), "apns gives no such tokens"),
        23: (a_line(time_zone="secret/zone"), "no time zone of the IANA list"),
        24: (a_line(at_ms=1_750_000_000), "is it in milliseconds?"),
    }
    (step,) = imported(redis_url, a_line(1), *(line for line, _ in bad.values()), a_line(2))
    assert (step.imported, step.refused) == (2, len(bad))
    assert [number for number, _ in step.problems] == list(bad)
    for number, sentence in step.problems:
        assert bad[number][1] in sentence
        assert "secret" not in sentence


def test_importing_again_changes_nothing_and_a_token_has_its_last_owner(redis_url: str) -> None:
    lines = [a_line(1), a_line(2), a_line(3, channels=[{"vendor": "apns", "token": f"{1:064x}"}])]
    for _ in range(2):
        imported(redis_url, *lines)

        async def scenario(stage: Stage) -> None:
            assert [await stage.tokens(user) for user in ("u1", "u2", "u3")] == [[], [f"{2:064x}"], [f"{1:064x}"]]

        on_redis(redis_url, scenario)


def test_nothing_to_import_is_no_error(redis_url: str) -> None:
    assert [step.imported for step in imported(redis_url)] == [0]


def test_progress_comes_while_every_line_is_bad(redis_url: str) -> None:
    steps = imported(redis_url, *(b"{" for _ in range(1_200)))
    assert [step.refused for step in steps] == [500, 1_000, 1_200]
    assert [len(step.problems) for step in steps] == [500, 500, 200]
    assert steps[-1].problems[-1][0] == 1_200


def test_an_import_without_redis_is_one_clear_error() -> None:
    with pytest.raises(RedisUnusable, match=r"127\.0\.0\.1:1/0 cannot be reached"):
        imported("redis://127.0.0.1:1/0", a_line())
