"""The endpoints over a real socket: what they answer, what they refuse, and that a refusal changes nothing."""

import asyncio
import json
import logging
from typing import Any
from urllib.parse import quote

import pytest
from tests.workers.api.support import DEVICE, NOW_MS, TOKEN, USER, Api, a_body, served

from pushfleet_workers.push import fingerprint
from pushfleet_workers.tokens.store import OPTIONS_MAX


def test_a_registered_device_is_shown_without_its_token(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        answer = await api.put(DEVICE, a_body(locale="zh-Hans-CN", platform="ios", state="background", unread=3))
        assert answer.status_code == 200
        shown = await api.get(USER)
        device = shown["devices"]["d1"]
        assert device.pop("push")["goes"] is True
        assert answer.json() == {"applied": True, "device": device}
        assert (device["state"], device["unread"], device["locale"]) == ("background", 3, "zh-Hans-CN")
        (channel,) = device["channels"]
        assert channel["token_fingerprint"] == fingerprint(TOKEN)
        assert channel["registered_at_ms"] == NOW_MS
        assert TOKEN not in json.dumps(shown) + answer.text

    served(redis_url, scenario)


def test_another_vendor_replaces_the_channel(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(DEVICE, a_body("t1", "huawei"))
        await api.put(DEVICE, a_body("t2", "harmony"))
        channels = (await api.get(USER))["devices"]["d1"]["channels"]
        assert [channel["vendor"] for channel in channels] == ["harmony"]

    served(redis_url, scenario)


def test_an_outdated_registration_says_so(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(DEVICE, a_body("new", at_ms=NOW_MS))
        answer = (await api.put(DEVICE, a_body("old", at_ms=NOW_MS - 1))).json()
        assert answer["applied"] is False
        assert answer["device"]["channels"][0]["token_fingerprint"] == fingerprint("new")

    served(redis_url, scenario)


def test_a_removed_device_is_gone(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(DEVICE, a_body())
        assert (await api.client.delete(DEVICE)).status_code == 204
        assert (await api.get(USER)) == {"devices": {}, "receive_options": {}, "erasing_since_ms": 0}
        again = await api.client.delete(DEVICE)
        assert (again.status_code, again.json()["code"]) == (404, "unknown_device")

    served(redis_url, scenario)


def test_a_state_takes_effect_by_its_own_time(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(DEVICE, a_body())
        state = f"{DEVICE}/state"
        first = await api.post(state, {"state": "foreground", "at_ms": NOW_MS})
        assert first.json() == {"applied": 1, "outdated": 0, "unknown": 0}
        late = await api.post(state, {"state": "background", "at_ms": NOW_MS - 5, "unread": 9})
        assert late.json() == {"applied": 0, "outdated": 1, "unknown": 0}
        device = (await api.get(USER))["devices"]["d1"]
        assert (device["state"], device["unread"]) == ("foreground", 0)
        assert device["lease_until_ms"] == NOW_MS + 400_000
        unknown = await api.post(f"{USER}/devices/other/state", {"state": "killed"})
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_device")

    served(redis_url, scenario)


def reports(count: int, **more: Any) -> dict[str, Any]:
    return {
        "reports": [
            {"user": "ann", "device": "d1", "state": "killed", "at_ms": NOW_MS - 2_000 + n, **more}
            for n in range(count)
        ]
    }


def test_a_thousand_reports_are_taken_and_one_more_refuses_them_all(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(DEVICE, a_body())
        before = await api.get(USER)
        refused = await api.post("/v1/apps/demo/states", reports(1_001))
        assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (
            422,
            "invalid_field",
            "reports",
        )
        assert await api.get(USER) == before
        taken = await api.post("/v1/apps/demo/states", reports(1_000))
        assert taken.json() == {"applied": 1_000, "outdated": 0, "unknown": 0}
        assert (await api.get(USER))["devices"]["d1"]["state_at_ms"] == NOW_MS - 1_001

    served(redis_url, scenario)


def test_one_wrong_report_refuses_the_batch(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(DEVICE, a_body())
        before = await api.get(USER)
        for wrong, field in (
            ({"state": "asleep"}, "reports[1].state"),
            ({"at_ms": NOW_MS + 300_001}, "reports[1].at_ms"),
            ({"at_ms": NOW_MS // 1_000}, "reports[1].at_ms"),
            ({"user": "用" * 86}, "reports[1].user"),
            ({"device": ""}, "reports[1].device"),
            ({"unread": -1}, "reports[1].unread"),
        ):
            body = reports(2)
            body["reports"][1] |= wrong
            answer = await api.post("/v1/apps/demo/states", body)
            assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert await api.get(USER) == before

    served(redis_url, scenario)


def test_receive_options_are_set_timed_and_lifted(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        path = f"{USER}/conversations/group%2F1/receive-option"
        assert (await api.put(path, {"receive": "mentions", "until_ms": NOW_MS + 1})).status_code == 204
        assert (await api.get(USER))["receive_options"] == {"group/1": {"receive": "mentions", "until_ms": NOW_MS + 1}}
        assert (await api.put(path, {"receive": "all"})).status_code == 204
        assert (await api.get(USER))["receive_options"] == {}

    served(redis_url, scenario)


def test_a_user_cannot_fill_redis_with_options(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        for number in range(0, OPTIONS_MAX, 100):
            await asyncio.gather(
                *(api.store.set_receive_option("demo", "ann", f"c{n}", "none") for n in range(number, number + 100))
            )
        path = f"{USER}/conversations/one-more/receive-option"
        full = await api.put(path, {"receive": "none"})
        assert (full.status_code, full.json()["code"]) == (409, "receive_options_full")
        assert (await api.put(f"{USER}/conversations/c1/receive-option", {"receive": "all"})).status_code == 204
        assert (await api.put(path, {"receive": "none"})).status_code == 204

    served(redis_url, scenario)


HOSTILE = [
    "a/b",
    "..",
    ".",
    "a%2Fb",
    "}",
    "{u:x}",
    "a b",
    "a\nb",
    "a\0b",
    "用户",
    "👩‍👩‍👧",
    "?x=1#y",
    "+",
    "&",
    ":",
    '"',
    "\\",
    "=YQ",
]


def test_any_id_works_and_is_its_own(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        for number, identity in enumerate(HOSTILE):
            encoded = "".join(f"%{byte:02X}" for byte in identity.encode())
            path = f"/v1/apps/demo/users/{encoded}"
            answer = await api.put(f"{path}/devices/{encoded}", a_body(f"t{number}"))
            assert answer.status_code == 200, identity
            assert (await api.post(f"{path}/devices/{encoded}/state", {"state": "killed"})).status_code == 200
            option = await api.put(f"{path}/conversations/{encoded}/receive-option", {"receive": "none"})
            assert option.status_code == 204
        for number, identity in enumerate(HOSTILE):
            stored = await api.store.user("demo", identity)
            assert list(stored.devices) == [identity]
            assert stored.devices[identity].channels[0].token == f"t{number}"
            assert stored.options == {identity: ("none", 0)}

    served(redis_url, scenario)


def test_an_id_may_be_encoded_sparingly(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(f"/v1/apps/demo/users/{quote('ann@x:1')}/devices/d1", a_body())
        status, answer = await api.raw("/v1/apps/demo/users/ann@x:1?ignored=%2F")
        assert status == 200
        assert b'"d1"' in answer

    served(redis_url, scenario)


WRONG_PATHS = [
    ("/v1/apps/demo/users/%ff", 400, "invalid_path"),
    ("/v1/apps/%ff/users/ann", 400, "invalid_path"),
    ("/v1/apps/demo/users/%ED%A0%80", 400, "invalid_path"),
    (f"/v1/apps/demo/users/{'x' * 257}", 422, "invalid_id"),
    (f"/v1/apps/demo/users/{'%E7%94%A8' * 86}", 422, "invalid_id"),
    ("/v1/apps/demo/users/", 404, "not_found"),
    ("/v1/apps/demo/users/a/b", 404, "not_found"),
    ("/v1/apps/demo/users/ann/", 404, "not_found"),
    ("/nowhere", 404, "not_found"),
    ("/v1/apps/demo/states", 405, "method_not_allowed"),
]


def test_a_wrong_path_is_refused_with_a_code(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        for target, status, code in WRONG_PATHS:
            got, answer = await api.raw(target)
            told = json.loads(answer.partition(b"\r\n\r\n")[2])
            field = "user" if code == "invalid_id" else ""
            assert (got, told["code"], told["field"]) == (status, code, field), target
            assert told["message"]

    served(redis_url, scenario)


def test_an_unknown_app_is_told_the_known_ones(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        for answer in (
            await api.client.get("/v1/apps/nope/users/ann"),
            await api.put("/v1/apps/nope/users/ann/devices/d1", a_body()),
            await api.post("/v1/apps/nope/states", reports(1)),
        ):
            assert (answer.status_code, answer.json()["code"]) == (404, "unknown_app")
            assert "demo, lite" in answer.json()["message"]

    served(redis_url, scenario)


WRONG_BODIES: list[tuple[Any, str]] = [
    ({}, "channels"),
    ([], ""),
    (a_body(at_ms=NOW_MS + 300_001), "at_ms"),
    (a_body(at_ms=NOW_MS // 1_000), "at_ms"),
    (a_body(at_ms=-1), "at_ms"),
    (a_body(time_zone="Asia/Atlantis"), "time_zone"),
    (a_body(time_zone="../../etc/passwd"), "time_zone"),
    (a_body(TOKEN, vendor="apns"), "channels[0].token"),
    ({"channels": [{"vendor": "apns", "token": "70ce"}, {"vendor": "apns", "token": "70c"}]}, "channels[1].token"),
    (a_body(at_ms="now"), "at_ms"),
    (a_body(state="asleep"), "state"),
    (a_body(unread=1), "unread"),
    (a_body(unread=1_000_001, state="killed"), "unread"),
    (a_body(colour="red"), "colour"),
    (a_body(locale="x" * 36), "locale"),
    (a_body(maker="x" * 65), "maker"),
    ({"channels": []}, "channels"),
    ({"channels": [{"vendor": "apns", "token": f"t{n}"} for n in range(9)]}, "channels"),
    ({"channels": [{"vendor": "apns", "token": TOKEN}] * 2}, "channels[1].token"),
    (a_body(""), "channels[0].token"),
    (a_body(TOKEN + "\n"), "channels[0].token"),
    (a_body("用" + TOKEN), "channels[0].token"),
    (a_body("x" * 4_097), "channels[0].token"),
    (a_body(vendor="APNs"), "channels[0].vendor"),
    (a_body(vendor="fcm"), "channels[0].credential"),
    ({"channels": [{"vendor": "apns", "credential": "lite", "token": TOKEN}]}, "channels[0].credential"),
    ({"channels": [{"vendor": "apns", "token": TOKEN, "kind": "sms"}]}, "channels[0].kind"),
    ({"channels": [{"vendor": "apns", "token": TOKEN, "kind": "fid"}]}, "channels[0].kind"),
]


def test_a_wrong_registration_is_refused_with_its_field_and_changes_nothing(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(api: Api) -> None:
        for body, field in WRONG_BODIES:
            answer = await api.put(DEVICE, body)
            told = answer.json()
            assert (answer.status_code, told["field"]) == (422, field), body
            assert set(told) == {"code", "message", "field"}
            assert told["message"]
            assert TOKEN not in answer.text
        assert await api.link.call("DBSIZE") == 0

    with caplog.at_level(logging.DEBUG):
        served(redis_url, scenario)
    assert TOKEN not in caplog.text


NO_JSON = [
    (b"", "application/json", 400, "invalid_json"),
    (b"{", "application/json", 400, "invalid_json"),
    (b"\xff{}", "application/json", 400, "invalid_json"),
    (b'{"state": "\xed\xa0\x80"}', "application/json", 400, "invalid_json"),
    (b'{"state": ' + b"[" * 60_000, "application/json", 422, "invalid_field"),
    (b'{"other": ' + b"[" * 60_000, "application/json", 422, "invalid_field"),
    (b"{}", "text/plain", 415, "unsupported_media_type"),
    (b'{"state": "killed"}', "", 415, "unsupported_media_type"),
    (b" " * (64 * 1024 + 1), "application/json", 413, "body_too_large"),
    (b'{"state": "killed"}', "Application/JSON; charset=utf-8", 404, "unknown_device"),
]


def test_a_body_that_is_no_json_is_refused(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        for content, media_type, status, code in NO_JSON:
            headers = {"content-type": media_type} if media_type else {}
            answer = await api.client.post(f"{DEVICE}/state", content=content, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (status, code), content[:40]

    served(redis_url, scenario)


def test_a_wrong_option_is_refused(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        wrong: list[tuple[Any, str]] = [
            ({"receive": "some"}, "receive"),
            ({"receive": "all", "until_ms": NOW_MS + 1}, "until_ms"),
            ({"receive": "none", "until_ms": 5}, "until_ms"),
            ({}, "receive"),
        ]
        for body, field in wrong:
            answer = await api.put(f"{USER}/conversations/c/receive-option", body)
            assert (answer.status_code, answer.json()["field"]) == (422, field)
        assert (await api.get(USER))["receive_options"] == {}

    served(redis_url, scenario)
