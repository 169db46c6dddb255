"""What vendors post is taken where it is theirs and ours, once, and changes the token state as it should."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import tracemalloc
from urllib.parse import quote

import httpx
import pytest
from tests.workers.api.receipts_support import KEY, REGISTERED_MS, Receipts, receiving
from tests.workers.receipts.samples import AT_MS, NOW_MS, OTHER, TOKEN, a_body
from tests.workers.receipts.test_readers import CODES

from pushfleet_workers.api import vendor_receipts
from pushfleet_workers.push import fingerprint
from pushfleet_workers.receipts import READERS, Event
from pushfleet_workers.receipts._huawei_signature import signature
from pushfleet_workers.receipts.book import WINDOW_MS, ReceiptKeys

DELIVERED = {
    "huawei": "0",
    "harmony": "0",
    "honor": "40000002",
    "xiaomi": "1",
    "oppo": "push_arrive",
    "vivo": "",
    "meizu": "1",
}
DAY_MS = 86_400_000
NEXT_DAY_MS = (NOW_MS + 8 * 3_600_000) // DAY_MS * DAY_MS + DAY_MS - 8 * 3_600_000
"""Midnight in Beijing."""


def signed(now_ms: int = NOW_MS) -> dict[str, str]:
    made = {"timestamp": str(now_ms), "nonce": "n"}
    value = signature("c2VjcmV0", is_text=False, user="u", **made)
    return {"x-huawei-callback-id": f"timestamp={now_ms};nonce=n;value={value}"}


async def tell(stage: Receipts, vendor: str, code: str, **more: object) -> httpx.Response:
    """As the vendor does, signed where it signs."""
    body = a_body(vendor, code, stage.echo(vendor, **more))
    return await stage.post(vendor, body, **(signed() if vendor == "harmony" else {}))


@pytest.mark.parametrize("vendor", sorted(READERS))
def test_a_receipt_is_recorded_and_acknowledged_as_the_vendor_wants(redis_url: str, vendor: str) -> None:
    async def scenario(stage: Receipts) -> None:
        await stage.register(vendor)
        answer = await tell(stage, vendor, DELIVERED[vendor])
        assert answer.status_code == 200
        content, media_type = READERS[vendor].acknowledgement
        assert answer.content == content
        assert answer.headers["content-type"].startswith(media_type)
        assert await stage.recorded() == [
            {
                "v": "1",
                "event": "delivered",
                "code": DELIVERED[vendor],
                "vendor": vendor,
                "credential": "main",
                "mid": "m-9f3c1d",
                "mid_sha256": "",
                "user": "ann",
                "device": "",
                "token": fingerprint(TOKEN),
                "at_ms": str(NOW_MS if vendor in ("vivo", "meizu") else AT_MS),
            }
        ]
        assert await stage.counts() == {f"{vendor}:main:delivered": 1}

    # No key of the API is asked of vendors.
    receiving(redis_url, scenario, key="k3y")


@pytest.mark.parametrize(("vendor", "code"), CODES)
def test_every_code_does_to_the_token_state_what_its_event_says(redis_url: str, vendor: str, code: str) -> None:
    event = READERS[vendor].codes[code].event

    async def scenario(stage: Receipts) -> None:
        await stage.register(vendor)
        assert (await tell(stage, vendor, code)).status_code == 200
        phone = await stage.phone()
        assert [channel.token for channel in phone.channels] == ([] if event is Event.DEAD else [TOKEN])
        assert phone.permitted == (event is not Event.MUTED)
        if event is not Event.DEAD:
            expected = NEXT_DAY_MS if event is Event.QUOTA else 0
            assert phone.channels[0].quarantined_until_ms == expected
        assert [entry["event"] for entry in await stage.recorded()] == [event]

    receiving(redis_url, scenario)


@pytest.mark.parametrize(("vendor", "code"), [("xiaomi", "16"), ("xiaomi", "32"), ("xiaomi", "128"), ("vivo", "31005")])
def test_what_was_registered_since_is_not_touched(redis_url: str, vendor: str, code: str) -> None:
    async def scenario(stage: Receipts) -> None:
        await stage.register(vendor, at_ms=NOW_MS if vendor == "vivo" else AT_MS)
        await tell(stage, vendor, code)
        phone = await stage.phone()
        assert [(channel.token, channel.quarantined_until_ms) for channel in phone.channels] == [(TOKEN, 0)]
        assert phone.permitted

    receiving(redis_url, scenario)


@pytest.mark.parametrize("kind", ["marketing", "official", "system"])
def test_a_cap_on_marketing_says_nothing_of_chats(redis_url: str, kind: str) -> None:
    async def scenario(stage: Receipts) -> None:
        await stage.register("oppo")
        await stage.tell("oppo", "user_daily_limit", kind=kind)
        assert (await stage.phone()).channels[0].quarantined_until_ms == 0
        assert await stage.counts() == {"oppo:main:quota": 1}

    receiving(redis_url, scenario)


def test_a_token_of_nobody_or_of_somebody_else_by_now_is_recorded_without_a_user(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        for code in ("1", "16", "32", "128"):
            await stage.tell("xiaomi", code, token=OTHER)
        await stage.register("xiaomi", at_ms=NOW_MS)
        await stage.tell("xiaomi", "1")
        assert [entry["user"] for entry in await stage.recorded()] == [""] * 5

    receiving(redis_url, scenario)


def test_a_repeat_is_recorded_once_within_its_window(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        for _ in range(3):
            assert (await stage.tell("oppo", "push_arrive")).status_code == 200
        await stage.tell("oppo", "regid_invalid")
        await stage.tell("oppo", "push_arrive", message_id="m-2")
        await stage.tell("oppo", "push_arrive", token=OTHER)
        assert await stage.counts() == {"oppo:main:delivered": 3, "oppo:main:dead": 1}
        stage.now_ms += WINDOW_MS
        await stage.tell("oppo", "push_arrive")
        assert len(await stage.recorded()) == 4
        stage.now_ms += 2 * WINDOW_MS
        await stage.tell("oppo", "push_arrive")
        assert len(await stage.recorded()) == 5
        left = await stage.link.call("TTL", ReceiptKeys("t", "demo").repeats(stage.now_ms // WINDOW_MS))
        assert 0 < left <= 2 * WINDOW_MS // 1000

    receiving(redis_url, scenario)


def test_only_what_we_asked_for_counts(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        await stage.register("oppo", "honor")
        strange = ["", "job-7f3a", stage.echo("honor"), stage.echo("oppo")[:-1], "x" * 500]
        for echo in strange:
            answer = await stage.post("oppo", a_body("oppo", "regid_invalid", echo))
            # The vendor did what it should: it need not try again.
            assert answer.status_code == 200
        assert len((await stage.phone()).channels) == 2
        assert await stage.recorded() == []

    receiving(redis_url, scenario)


def test_what_the_vendor_signed_counts_without_an_echo_of_ours(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        await stage.register("harmony")
        assert (await stage.post("harmony", a_body("harmony", "6", "job-7f3a"), **signed())).status_code == 200
        assert not (await stage.phone()).permitted
        assert [(entry["mid"], entry["event"]) for entry in await stage.recorded()] == [("", "muted")]

    receiving(redis_url, scenario)


def test_a_missing_or_stale_signature_is_refused(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        await stage.register("harmony", "meizu")
        body = a_body("harmony", "2", stage.echo("harmony"))
        for headers in ({}, signed(NOW_MS - 600_000), {"x-huawei-callback-id": "timestamp=1;nonce=;value="}):
            answer = await stage.post("harmony", body, **headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        answer = await stage.post("meizu", a_body("meizu", "1").replace(b"=shown", b"=other"))
        assert answer.status_code == 401
        assert len((await stage.phone()).channels) == 2
        assert await stage.recorded() == []

    receiving(redis_url, scenario)


def test_whoever_does_not_know_the_address_hears_the_same_whatever_is_wrong(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        secret = stage.path("oppo").rpartition("/")[2]
        paths = [
            "/v1/receipts/oppo/main/" + "A" * 22,
            f"/v1/receipts/oppo/main/{secret[:-1]}",
            f"/v1/receipts/oppo/other/{secret}",
            f"/v1/receipts/xiaomi/main/{secret}",
            f"/v1/receipts/honor/silent/{secret}",
            f"/v1/receipts/apns/main/{secret}",
            f"/v1/receipts/nobody/main/{secret}",
            "/v1/receipts/oppo/main/%ff%00",
            "/v1/nowhere/at/all",
        ]
        answers = [await stage.post("", b"x" * 5_000 if "oppo" in path else b"", path) for path in paths]
        assert {(answer.status_code, answer.content) for answer in answers} == {(404, answers[0].content)}
        assert {tuple(sorted(answer.headers.keys())) for answer in answers} == {
            tuple(sorted(answers[0].headers.keys()))
        }

    receiving(redis_url, scenario)


def test_a_key_that_was_replaced_still_lets_in(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        old_path, old_echo = stage.path("oppo"), stage.echo("oppo")
        account = stage.account("oppo")
        keys = {"receipt_key": f"a-new-key-of-receipts {KEY}"}
        stage.settings.accounts["oppo"]["main"] = type(account).model_validate({**account.model_dump(), **keys})
        assert stage.path("oppo") != old_path
        for path, echo in ((old_path, old_echo), (stage.path("oppo"), stage.echo("oppo"))):
            body = a_body("oppo", "push_arrive", echo, token=fingerprint(path))
            assert (await stage.post("oppo", body, path)).status_code == 200
        assert await stage.counts() == {"oppo:main:delivered": 2}

    receiving(redis_url, scenario)


@pytest.mark.parametrize("vendor", sorted(READERS))
@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"{}", b"[]", b"null", b"<html>", b'{"statuses":[{}, 1, null]}'])
def test_a_body_that_cannot_be_read_is_acknowledged(redis_url: str, vendor: str, body: bytes) -> None:
    async def scenario(stage: Receipts) -> None:
        if vendor == "meizu":
            answer = await stage.post(vendor, b"access_token=shown&cb=" + quote(body).encode())
        else:
            answer = await stage.post(vendor, body, **(signed() if vendor == "harmony" else {}))
        assert answer.status_code == 200
        assert await stage.recorded() == []

    receiving(redis_url, scenario)


# ---- floods


def test_a_flood_is_bounded_and_everybody_else_is_served(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        body = a_body("oppo", "push_arrive", stage.echo("oppo"))

        async def flood() -> list[int]:
            return [(await stage.post("oppo", body)).status_code for _ in range(30)]

        statuses = [status for some in await asyncio.gather(*(flood() for _ in range(10))) for status in some]
        assert set(statuses) == {200, 429}
        assert statuses.count(200) <= 2 * 10 + 10 * 5
        assert (await stage.tell("xiaomi", "1")).status_code == 200
        limited = [
            answer for answer in [await stage.post("oppo", body) for _ in range(40)] if answer.status_code == 429
        ]
        assert limited[0].headers["retry-after"] == "1"
        assert limited[0].json()["code"] == "too_many_requests"

    receiving(redis_url, scenario, requests_per_s=10)


def test_guesses_cost_no_memory(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        async def guess(number: int) -> int:
            return (await stage.post("", b"x" * 100, f"/v1/receipts/v{number}/c{number}/{number:022d}")).status_code

        for number in range(50):
            await guess(number)
        gc.collect()
        tracemalloc.start()
        try:
            for start in range(0, 400, 50):
                assert set(await asyncio.gather(*(guess(1_000 + start + one) for one in range(50)))) == {404}
            gc.collect()
            ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/pushfleet_workers/*")])
        finally:
            tracemalloc.stop()
        held = sum(one.size for one in ours.statistics("filename"))
        assert held < 400 * 50, "not so much as the address is kept of each guess"
        assert await stage.link.call("DBSIZE") == 0

    receiving(redis_url, scenario)


def test_a_body_that_is_too_large_or_holds_too_many_is_refused_whole(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor_receipts, "BODY_BYTES_MAX", 20_000)
    monkeypatch.setattr(vendor_receipts, "RECEIPTS_MAX", 20)

    async def scenario(stage: Receipts) -> None:
        (one,) = json.loads(a_body("oppo", "push_arrive", stage.echo("oppo")))
        for body in (json.dumps([one] * 21).encode(), b"[" + b" " * 20_000 + b"]"):
            answer = await stage.post("oppo", body)
            assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
        assert await stage.recorded() == []
        assert (await stage.post("oppo", json.dumps([one] * 20).encode())).status_code == 200

    receiving(redis_url, scenario)


def test_bodies_that_do_not_arrive_hold_nobody_up_for_long(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor_receipts, "BODY_TIMEOUT_S", 0.3)
    monkeypatch.setattr(vendor_receipts, "AT_ONCE_MAX", 3)

    async def scenario(stage: Receipts) -> None:
        head = f"POST {stage.path('oppo')} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode()
        assert stage.client.base_url.port is not None
        slow = [await asyncio.open_connection("127.0.0.1", stage.client.base_url.port) for _ in range(3)]
        for _, writer in slow:
            writer.write(head)
            await writer.drain()
        while (await stage.tell("oppo", "push_arrive")).status_code == 200:
            await asyncio.sleep(0)
        answers = [await reader.readline() for reader, _ in slow]
        assert {answer.split()[1] for answer in answers} == {b"408"}
        assert (await stage.tell("oppo", "push_arrive")).status_code == 200
        for _, writer in slow:
            writer.close()
            await writer.wait_closed()

    receiving(redis_url, scenario)


def test_a_stream_and_its_repeats_keep_their_bounds(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        (one,) = json.loads(a_body("oppo", "push_arrive", stage.echo("oppo")))
        for start in range(0, 3_000, 500):
            body = json.dumps([{**one, "messageId": f"x{start + number}"} for number in range(500)]).encode()
            assert (await stage.post("oppo", body)).status_code == 200
        assert await stage.counts() == {"oppo:main:delivered": 3_000}
        # Redis trims whole nodes of a hundred entries.
        assert 50 <= len(await stage.recorded()) <= 250

    receiving(redis_url, scenario, kept=50)


def test_new_codes_without_end_get_no_labels_without_end(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        (one,) = json.loads(a_body("oppo", "push_arrive", stage.echo("oppo")))
        body = json.dumps([{**one, "eventType": f"made_up_{number}"} for number in range(500)]).encode()
        assert (await stage.post("oppo", body)).status_code == 200
        labels = {sample.labels["code"] for family in vendor_receipts.UNLISTED.collect() for sample in family.samples}
        assert "more" in labels
        assert len({label for label in labels if label.startswith("made_up_")}) <= vendor_receipts.UNLISTED_MAX

    receiving(redis_url, scenario)


def test_no_token_and_no_secret_is_logged_or_measured(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario(stage: Receipts) -> None:
        await stage.register("oppo", "xiaomi", "huawei")
        for vendor, code in (("oppo", "regid_invalid"), ("xiaomi", "16"), ("huawei", "31"), ("oppo", "new_code")):
            await stage.tell(vendor, code)
        await stage.post("oppo", b"[" * 200_000)
        page = (await stage.client.get("/metrics")).text
        shown = page + caplog.text.replace(str(stage.client.base_url), "")
        # httpx itself logs where it posts to; our own loggers do not.
        ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("pushfleet"))
        for secret in (TOKEN, KEY):
            assert secret not in shown
        for vendor in ("oppo", "xiaomi", "huawei"):
            assert stage.path(vendor).rpartition("/")[2] not in page + ours

    receiving(redis_url, scenario)


def test_switched_off_there_is_no_address(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        assert (await stage.tell("oppo", "push_arrive")).status_code == 404
        assert await stage.recorded() == []

    receiving(redis_url, scenario, vendors=False)


def test_registered_times_are_what_these_tests_think() -> None:
    assert REGISTERED_MS < AT_MS < NOW_MS < NEXT_DAY_MS
