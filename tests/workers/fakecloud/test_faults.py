from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from pushfleet_workers.fakecloud import FakeCloudThread

TOKEN = "0a1b2c3d" * 8
OTHER_TOKEN = "ff00ff00" * 8
BODY = json.dumps({"aps": {"alert": "Hi"}, "mid": "m-1"})

Push = Callable[..., httpx.Response]


def test_a_push_is_accepted_over_http2(cloud: FakeCloudThread, push: Push) -> None:
    answer = push(headers={"apns-id": "5e0c7c2e-1f44-4c2c-9f0e-2b8a35d0a111"})

    assert (answer.status_code, answer.http_version, answer.content) == (200, "HTTP/2", b"")
    assert answer.headers["apns-id"] == "5e0c7c2e-1f44-4c2c-9f0e-2b8a35d0a111"
    (received,) = cloud.received("apns", TOKEN)
    assert (received.title, received.body, received.message_id) == ("Li Lei", "See you at 8?", "m-1")
    assert received.sent_id == "5e0c7c2e-1f44-4c2c-9f0e-2b8a35d0a111"


def test_a_dead_token_is_refused_until_it_is_revived(cloud: FakeCloudThread, push: Push) -> None:
    cloud.kill("apns", TOKEN, since_ms=1_766_001_234_567)

    refused = [push(), push()]
    other = push(OTHER_TOKEN)
    cloud.revive("apns", TOKEN)

    assert [answer.status_code for answer in refused] == [410, 410]
    assert refused[0].json() == {"reason": "Unregistered", "timestamp": 1_766_001_234_567}
    assert other.status_code == push().status_code == 200
    stats = cloud.stats()["vendors"]["apns"]
    assert (stats["dead_targets"], stats["after_death"], stats["accepted"]) == (2, 1, 2)


def test_a_named_refusal_comes_in_the_vendors_form(cloud: FakeCloudThread, push: Push) -> None:
    cloud.rule("apns", "refuse", code="ExpiredProviderToken", times=1)

    refused = push()

    assert (refused.status_code, refused.json()) == (403, {"reason": "ExpiredProviderToken"})
    assert push().status_code == 200


def test_a_throttle_comes_with_retry_after(cloud: FakeCloudThread, push: Push) -> None:
    cloud.rule("apns", "throttle", retry_after_s=37, times=1)

    refused = push()

    assert (refused.status_code, refused.headers["retry-after"]) == (429, "37")
    assert push().status_code == 200


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b'{"reason":', b"\x00\xff\xfe" * 1_000])
def test_garbage_comes_as_it_was_scripted(cloud: FakeCloudThread, push: Push, body: bytes) -> None:
    cloud.rule("apns", "raw", status=502, body=body)

    answer = push()

    assert (answer.status_code, answer.content) == (502, body)
    assert "apns-id" in answer.headers


def test_silence_ends_in_the_clients_own_timeout_and_the_push_was_taken(cloud: FakeCloudThread, push: Push) -> None:
    cloud.rule("apns", "silent", token=TOKEN)

    with pytest.raises(httpx.ReadTimeout):
        push(timeout=0.1)

    assert push(OTHER_TOKEN).status_code == 200
    assert len(cloud.received("apns", TOKEN)) == 1


def test_a_slow_answer_comes_late_and_holds_nobody_else_up(
    cloud: FakeCloudThread, trust: ssl.SSLContext, apns_headers: dict[str, str]
) -> None:
    cloud.rule("apns", "answer", token=TOKEN, delay_s=0.15)
    order: list[str] = []

    async def both() -> None:
        async with http2_client(cloud, trust, apns_headers) as client:
            await client.post(f"/3/device/{'00' * 32}", content=BODY)

            async def send(name: str, token: str) -> None:
                assert (await client.post(f"/3/device/{token}", content=BODY)).status_code == 200
                order.append(name)

            await asyncio.gather(send("slow", TOKEN), send("quick", OTHER_TOKEN))

    asyncio.run(both())

    assert order == ["quick", "slow"]
    assert cloud.stats()["vendors"]["apns"]["connections_total"] >= 1


def test_a_reset_hits_one_stream_and_leaves_the_connection(
    cloud: FakeCloudThread, push: Push, apns: httpx.Client
) -> None:
    cloud.rule("apns", "reset", token=TOKEN, times=1)
    push(OTHER_TOKEN)
    before = cloud.stats()["vendors"]["apns"]["connections_total"]

    with pytest.raises(httpx.RemoteProtocolError, match="StreamReset"):
        push()

    assert push().status_code == 200
    assert cloud.stats()["vendors"]["apns"]["connections_total"] == before
    assert len(cloud.received("apns", TOKEN)) == 1


def test_a_goaway_that_excludes_the_request_makes_it_safe_to_send_again(cloud: FakeCloudThread, push: Push) -> None:
    push(OTHER_TOKEN)
    cloud.rule("apns", "goaway", token=TOKEN, times=1)

    # httpcore sends again by itself what lies above the last stream id.
    assert push().status_code == 200
    assert len(cloud.received("apns", TOKEN)) == 1
    assert cloud.stats()["vendors"]["apns"]["results"]["goaway"] == 1


def test_a_goaway_that_includes_the_request_leaves_its_outcome_unknown(cloud: FakeCloudThread, push: Push) -> None:
    cloud.rule("apns", "goaway", token=TOKEN, times=1, accepts=True, code="Shutdown")

    with pytest.raises(httpx.RemoteProtocolError, match="ConnectionTerminated"):
        push()

    assert len(cloud.received("apns", TOKEN)) == 1
    assert push().status_code == 200


def test_a_goaway_cuts_off_what_is_in_flight(
    cloud: FakeCloudThread, trust: ssl.SSLContext, apns_headers: dict[str, str]
) -> None:
    cloud.rule("apns", "answer", token=OTHER_TOKEN, delay_s=30)
    cloud.rule("apns", "goaway", token=TOKEN, processed=True)

    async def both() -> list[Any]:
        async with http2_client(cloud, trust, apns_headers) as client:
            await client.post(f"/3/device/{'00' * 32}", content=BODY)
            sends = (client.post(f"/3/device/{token}", content=BODY) for token in (OTHER_TOKEN, TOKEN))
            return await asyncio.gather(*sends, return_exceptions=True)

    assert all(isinstance(outcome, httpx.RemoteProtocolError) for outcome in asyncio.run(both()))


def test_a_drop_breaks_the_connection_and_the_next_one_works(cloud: FakeCloudThread, push: Push) -> None:
    cloud.rule("apns", "drop", times=1)

    with pytest.raises(httpx.TransportError):
        push()

    assert push().status_code == 200


def test_a_half_closed_connection_takes_what_comes_and_answers_nothing(
    cloud: FakeCloudThread, trust: ssl.SSLContext, apns_headers: dict[str, str]
) -> None:
    cloud.rule("apns", "answer", token=OTHER_TOKEN, delay_s=30)
    cloud.rule("apns", "half_close", token=TOKEN, times=1)

    async def both() -> list[Any]:
        async with http2_client(cloud, trust, apns_headers) as client:
            await client.post(f"/3/device/{'00' * 32}", content=BODY)
            sends = (client.post(f"/3/device/{token}", content=BODY) for token in (OTHER_TOKEN, TOKEN))
            return await asyncio.gather(*sends, return_exceptions=True)

    assert all(isinstance(outcome, httpx.TransportError) for outcome in asyncio.run(both()))
    assert [len(cloud.received("apns", token)) for token in (OTHER_TOKEN, TOKEN)] == [1, 1]


@pytest.mark.parametrize(
    ("tls", "words"),
    [("untrusted", "CERTIFICATE_VERIFY_FAILED"), ("absent", "WRONG_VERSION_NUMBER"), ("hanging", "timed out")],
)
def test_tls_fails_until_it_is_sound_again(cloud: FakeCloudThread, push: Push, tls: str, words: str) -> None:
    push()
    cloud.tls("apns", tls)

    assert cloud.stats()["vendors"]["apns"]["tls"] == tls
    with pytest.raises(httpx.TransportError):
        push(timeout=0.3)
    with pytest.raises((httpx.ConnectError, httpx.ConnectTimeout), match=words):
        push(timeout=0.3)
    cloud.tls("apns", "sound")

    assert push().status_code == 200
    assert cloud.stats()["vendors"]["apns"]["accepted"] == 2


def test_what_shakes_hands_while_tls_breaks_is_broken_too(cloud: FakeCloudThread, trust: ssl.SSLContext) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", cloud.port("huawei")), timeout=5) as connection:
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        connection.sendall(outgoing.read())
        incoming.write(connection.recv(65_536))
        cloud.tls("huawei", "hanging")
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                break
            incoming.write(connection.recv(65_536))
        tls.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            connection.sendall(outgoing.read())
            while received := connection.recv(65_536):
                # What keys it needs for a later session may come before the end.
                incoming.write(received)
    with contextlib.suppress(ssl.SSLError):
        assert tls.read() == b""


def test_a_blackout_refuses_connections_until_it_is_healed_on_the_same_port(cloud: FakeCloudThread, push: Push) -> None:
    push()
    port = cloud.port("apns")
    cloud.blackout("apns")

    assert cloud.stats()["vendors"]["apns"]["connections"] == 0
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            push()
    cloud.heal("apns")

    assert push().status_code == 200
    assert cloud.port("apns") == port


def test_a_blackout_of_one_vendor_leaves_the_others(cloud: FakeCloudThread, push: Push) -> None:
    cloud.blackout("fcm")
    cloud.blackout("fcm")

    assert push().status_code == 200
    assert [name for name, page in cloud.stats()["vendors"].items() if page["blackout"]] == ["fcm"]


@pytest.mark.parametrize("http2", [True, False])
def test_vendors_with_both_versions_speak_the_one_the_client_chooses(
    cloud: FakeCloudThread, trust: ssl.SSLContext, http2: bool
) -> None:
    with httpx.Client(http2=http2, verify=trust, base_url=cloud.url("huawei")) as client:
        answers = [client.post("/v1/1/messages:send", json={}) for _ in range(3)]

    assert {answer.http_version for answer in answers} == {"HTTP/2" if http2 else "HTTP/1.1"}
    assert {answer.json()["code"] for answer in answers} == {"80200001"}


@pytest.mark.parametrize(("action", "error"), [("reset", httpx.RemoteProtocolError), ("silent", httpx.ReadTimeout)])
def test_faults_work_over_http1(
    cloud: FakeCloudThread, huawei_http1: httpx.Client, action: str, error: type[Exception]
) -> None:
    cloud.rule("huawei", action, times=1, endpoint="auth")

    with pytest.raises(error):
        huawei_http1.post("/oauth2/v3/token", data=huawei_form(cloud), timeout=0.2)

    assert huawei_http1.post("/oauth2/v3/token", data=huawei_form(cloud)).status_code == 200


def test_a_slow_answer_works_over_http1(cloud: FakeCloudThread, huawei_http1: httpx.Client) -> None:
    cloud.rule("huawei", "answer", delay_s=0.1, endpoint="auth")

    with pytest.raises(httpx.ReadTimeout):
        huawei_http1.post("/oauth2/v3/token", data=huawei_form(cloud), timeout=0.02)
    assert huawei_http1.post("/oauth2/v3/token", data=huawei_form(cloud)).status_code == 200


@pytest.fixture
def huawei_http1(cloud: FakeCloudThread, trust: ssl.SSLContext, huawei_app: object) -> Any:
    with httpx.Client(verify=trust, base_url=cloud.url("huawei")) as client:
        yield client


def huawei_form(cloud: FakeCloudThread) -> dict[str, str]:
    app = next(held for held in cloud.credentials() if held.vendor == "huawei")
    return {
        "grant_type": "client_credentials",
        "client_id": app.settings["client_id"],
        "client_secret": app.file.read_text(),
    }


def http2_client(cloud: FakeCloudThread, trust: ssl.SSLContext, headers: dict[str, str]) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        http1=False, http2=True, verify=trust, base_url=cloud.url("apns"), headers=headers, timeout=5
    )
