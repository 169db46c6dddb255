"""What every engine does, whatever it is built on; asked of all of them.

What becomes of its connections is asked in `test_conformance_connections`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from h2.errors import ErrorCodes
from tests.workers.transports.certificates import a_certificate
from tests.workers.transports.peer import Call, Peer, ok, silent
from tests.workers.transports.peers1 import BadProxy, Http1Peer, Proxy
from tests.workers.transports.pushes import (
    JWT,
    TEXT,
    TOKEN,
    OpenTransport,
    a_push,
    answered,
    no_answer,
    outcomes,
    unknown,
)

from pushfleet_workers.errors import Distrusted, NoAnswer, SettingsError
from pushfleet_workers.fakecloud.certs import make_certificates, pem_pair, server_context
from pushfleet_workers.transports import TransportOptions, open_transport
from pushfleet_workers.vendor import Identity, Request, Response

# ---- answers


async def test_answers_come_back_as_they_are(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    gone = json.dumps({"reason": "Unregistered", "timestamp": 1766001234567}).encode()
    answers: list[tuple[int, bytes, dict[str, str]]] = [
        (200, b"", {}),
        (410, gone, {"content_type": "application/json"}),
        (503, b"", {}),
        (429, b"{}", {"retry_after": "37"}),
        (400, b"\xff\xfe<html>" * 10, {}),
        (302, b"", {"location": "https://elsewhere.invalid/"}),
        (500, b"x" * 300_000, {}),
    ]

    def script(call: Call) -> None:
        status, body, headers = answers[int(call.path[-4:], 16)]
        call.answer(status, body, **headers)

    async with Peer(http2, script) as peer, opened() as transport:
        for number, (status, body, headers) in enumerate(answers):
            response = await transport.send(a_push(peer, number))
            assert (response.status, response.body, response.http_version) == (status, body, "HTTP/2.0")
            assert type(response.body) is bytes
            assert response.headers["apns-id"] == str(UUID(int=number))
            assert all(name == name.lower() and not name.startswith(":") for name in response.headers)
            for name, value in headers.items():
                assert response.headers[name.replace("_", "-")] == value
        assert len(peer.connections) == 1


async def test_a_request_arrives_as_it_is(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    body = '{ "aps" : {"alert":"八点见?"},  "n": 1 }'.encode()
    async with Peer(http2) as peer, opened() as transport:
        request = a_push(peer, body=body, apns_priority="5", apns_expiration="1767312000", apns_collapse_id="c-1")
        await transport.send(request)
        (call,) = peer.calls
        assert call.body == body
        assert (call.method, call.path) == ("POST", f"/3/device/{TOKEN}0000")
        assert call.headers[":authority"] == f"localhost:{peer.port}"
        assert call.headers["content-length"] == str(len(body))
        assert {name: call.headers[name] for name in request.headers} == request.headers
        assert "accept-encoding" not in call.headers
        assert "cookie" not in call.headers


async def test_an_answer_belongs_to_its_stream_whatever_id_it_echoes(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    async with Peer(http2, lambda call: call.answer(200, apns_id="another")) as peer, opened() as transport:
        assert (await transport.send(a_push(peer))).headers["apns-id"] == "another"


async def test_bodies_larger_than_the_windows_pass(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    large = json.dumps({"aps": {"alert": "x" * 40_000}}).encode()
    async with Peer(http2) as peer, opened() as transport:
        results = await outcomes(transport, (a_push(peer, number, large) for number in range(20)))
        assert answered(results) == 20
        assert {call.body for call in peer.calls} == {large}


async def test_thousands_of_refusals_on_one_connection_are_all_answered(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    refusal = json.dumps({"reason": "Unregistered", "timestamp": 1766001234567}).encode()

    async with Peer(http2, lambda call: call.answer(410, refusal)) as peer, opened() as transport:
        statuses = []
        for _ in range(20):
            results = await outcomes(transport, (a_push(peer, number) for number in range(100)))
            statuses += [result.status for result in results if isinstance(result, Response)]
        assert statuses == [410] * 2_000
        assert len(peer.connections) == 1


# ---- HTTP versions


async def test_a_peer_without_http2_is_refused_where_http2_is_demanded(
    opened: OpenTransport, http1: ssl.SSLContext
) -> None:
    async with Http1Peer(http1) as peer, opened() as transport:
        problem = await no_answer(transport, a_push(peer))
        assert not problem.maybe_delivered
        assert "HTTP/2" in str(problem)
        assert not any(head.startswith(b"POST") for head in peer.heads)


async def test_http1_is_spoken_where_http2_is_not_demanded(
    engine: str, opened: OpenTransport, http1: ssl.SSLContext
) -> None:
    if engine == "aioapns":
        with pytest.raises(SettingsError, match="APNs only"):
            open_transport(engine, TransportOptions(http2=False))
        return
    async with Http1Peer(http1) as peer, opened(http2=False) as transport:
        results = await outcomes(transport, (a_push(peer, number) for number in range(20)))
        assert answered(results) == 20
        assert {result.http_version for result in results if isinstance(result, Response)} == {"HTTP/1.1"}
        await transport.renew()
        assert (await transport.send(a_push(peer))).body == b"{}"


# ---- no connection


async def test_a_refused_connection_is_known_not_to_have_delivered(opened: OpenTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    async with opened() as transport:
        started = time.monotonic()
        peer = Peer(None, port=port)
        results = await outcomes(transport, (a_secure_push(peer, number) for number in range(50)))
        assert [str(result).startswith("no connection could be made") for result in results] == [True] * 50
        assert not unknown(results)
        assert time.monotonic() - started < 1


def a_secure_push(peer: Any, number: int = 0, host: str = "localhost") -> Request:
    request = a_push(peer, number)
    return Request(f"https://{host}:{peer.port}/3/device/{TOKEN}", request.headers, request.body)


@pytest.mark.parametrize(
    ("code", "made", "knows"),
    [
        ("certificate_untrusted", {}, "another"),
        ("certificate_untrusted", {}, "system"),
        ("certificate_expired", {"days": (-3, -1)}, ""),
        ("certificate_not_yet_valid", {"days": (1, 3)}, ""),
        ("certificate_wrong_name", {"name": "push.example.com"}, ""),
    ],
    ids=["untrusted", "not of the system", "expired", "early", "name"],
)
@pytest.mark.parametrize("http2", [True, False])
async def test_a_certificate_that_is_not_taken_says_why(
    engine: str, opened: OpenTransport, tmp_path: Path, code: str, made: dict[str, Any], knows: str, http2: bool
) -> None:
    if engine == "aioapns" and not http2:
        return
    certificates = a_certificate(tmp_path, **made)
    (tmp_path / "another").mkdir()
    trusted = {"": certificates.ca_file, "another": make_certificates(tmp_path / "another").ca_file, "system": None}
    context = server_context(certificates.server_file, ["h2" if http2 else "http/1.1"])
    async with Peer(context) as peer, opened(ca_bundle=trusted[knows], http2=http2) as transport:
        for problem in await outcomes(transport, [a_secure_push(peer, number) for number in range(5)]):
            assert isinstance(problem, Distrusted)
            assert problem.code == code
            assert not problem.maybe_delivered
            assert TOKEN not in f"{problem}{problem!r}"
            assert "://" not in str(problem)
        assert not peer.calls


async def test_a_handshake_that_never_ends_is_known_not_to_have_delivered(opened: OpenTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with opened(timeout_s=0.5) as transport:
            peer = Peer(None, port=listening.getsockname()[1])
            assert not (await no_answer(transport, a_secure_push(peer))).maybe_delivered


async def test_an_unreachable_peer_is_found_when_it_is_back(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    async with Peer(http2) as peer, opened() as transport:
        await peer.stop()
        assert not (await no_answer(transport, a_push(peer))).maybe_delivered
        await peer.start()
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(20)))) == 20


# ---- no answer


async def test_a_silent_peer_is_an_unknown_outcome_and_holds_no_stream(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    async with Peer(http2, streams_max=2) as peer, opened(timeout_s=0.3) as transport:
        await transport.send(a_push(peer))
        peer.script = silent
        started = time.monotonic()
        results = await outcomes(transport, (a_push(peer, number) for number in range(2)))
        assert unknown(results) == 2
        assert 0.29 < time.monotonic() - started < 1.5
        peer.script = ok
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(10)))) == 10


@pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.REFUSED_STREAM])
async def test_an_answer_that_breaks_off_is_an_unknown_outcome(
    opened: OpenTransport, http2: ssl.SSLContext, code: ErrorCodes
) -> None:
    def half(call: Call) -> None:
        h2 = call.connection.h2
        h2.send_headers(call.stream_id, [(":status", "200"), ("content-length", "10")])
        h2.send_data(call.stream_id, b"12345")
        call.reset(code)

    async with Peer(http2) as peer, opened() as transport:
        await transport.send(a_push(peer))
        peer.script = half
        assert (await no_answer(transport, a_push(peer))).maybe_delivered
        assert len(peer.calls) == 2


async def test_a_reset_stream_is_an_unknown_outcome_and_its_neighbours_do_not_care(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    def script(call: Call) -> None:
        call.reset() if call.path.endswith("0003") else call.answer()

    async with Peer(http2, script) as peer, opened() as transport:
        results = await outcomes(transport, (a_push(peer, number) for number in range(20)))
        assert unknown(results[3:4]) == 1
        assert answered(results) == 19
        assert len(peer.connections) == 1


async def test_a_refused_stream_is_sent_again_once(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    async with Peer(http2) as peer, opened() as transport:
        await transport.send(a_push(peer))
        refused = []

        def refuse_first(call: Call) -> None:
            if refused:
                call.answer()
            else:
                refused.append(call)
                call.reset(ErrorCodes.REFUSED_STREAM)

        peer.script = refuse_first
        assert (await transport.send(a_push(peer))).status == 200
        peer.script = lambda call: call.reset(ErrorCodes.REFUSED_STREAM)
        assert not (await no_answer(transport, a_push(peer))).maybe_delivered


async def test_a_killed_server_makes_unknown_outcomes_and_is_found_when_it_is_back(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    async with Peer(http2) as peer, opened() as transport:
        await transport.send(a_push(peer))
        peer.script = silent
        sending = asyncio.create_task(outcomes(transport, (a_push(peer, number) for number in range(50))))
        await peer.until(lambda: len(peer.calls) == 51)
        await peer.stop()
        assert unknown(await sending) == 50
        peer.script = ok
        await peer.start()
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(50)))) == 50
        assert len(peer.connections) == 2


async def test_what_a_goaway_left_aside_is_sent_again(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    async with Peer(http2) as peer, opened() as transport:
        await transport.send(a_push(peer))

        def go_away(call: Call) -> None:
            peer.script = ok
            call.connection.go_away(call.stream_id - 2)
            call.connection.close()

        peer.script = go_away
        assert (await transport.send(a_push(peer, 1))).status == 200
        assert len(peer.connections) == 2


async def test_what_a_goaway_took_and_did_not_answer_is_an_unknown_outcome(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    async with Peer(http2) as peer, opened() as transport:
        await transport.send(a_push(peer))

        def go_away(call: Call) -> None:
            call.connection.go_away(call.stream_id)
            call.connection.close()

        peer.script = go_away
        assert (await no_answer(transport, a_push(peer, 1))).maybe_delivered
        peer.script = ok
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(20)))) == 20


async def test_what_a_goaway_took_may_still_be_answered(
    engine: str, opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    async with Peer(http2) as peer, opened() as transport:
        await transport.send(a_push(peer))
        held: list[Call] = []
        peer.script = held.append
        sending = asyncio.create_task(outcomes(transport, (a_push(peer, number) for number in range(20))))
        await peer.until(lambda: len(held) == 20)
        held[0].connection.go_away(held[-1].stream_id)
        for call in held:
            call.answer()
        results = await sending
        # httpcore gives up all streams of a connection that goes away.
        assert answered(results) + (unknown(results) if engine == "httpx" else 0) == 20
        peer.script = ok
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(20)))) == 20
        assert len(peer.connections) == 2


async def test_goaways_under_load(engine: str, opened: OpenTransport, http2: ssl.SSLContext) -> None:
    def often(call: Call) -> None:
        if call.connection in peer.going_away:
            # Above the last stream that the GOAWAY admitted.
            return
        call.answer()
        if call.connection.calls >= 50:
            call.connection.go_away(call.stream_id)
            call.connection.close()

    async with Peer(http2, often) as peer, opened() as transport:
        results: list[Response | NoAnswer] = []
        for _ in range(10):
            results += await outcomes(transport, (a_push(peer, number) for number in range(40)))
        # httpcore gives up all streams of a connection that goes away, answered or not.
        assert answered(results) > (0 if engine == "httpx" else 390)
        peer.script = ok
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(20)))) == 20


# ---- signs of life


async def test_a_frozen_peer_is_noticed(engine: str, opened: OpenTransport, http2: ssl.SSLContext) -> None:
    # httpx has no pings: there the deadline has to do.
    timeout_s = 0.5 if engine == "httpx" else 30
    async with (
        Peer(http2) as peer,
        opened(timeout_s=timeout_s, ping_interval_s=0.2, ping_timeout_s=0.2) as transport,
    ):
        await transport.send(a_push(peer))
        peer.connections[0].freeze()
        started = time.monotonic()
        results = await outcomes(transport, (a_push(peer, number) for number in range(20)))
        assert unknown(results) == 20
        assert time.monotonic() - started < 3
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(20)))) == 20
        assert len(peer.connections) == 2


async def test_pings_keep_an_idle_connection(engine: str, opened: OpenTransport, http2: ssl.SSLContext) -> None:
    if engine == "httpx":
        pytest.skip("httpx has no pings")
    async with Peer(http2) as peer, opened(ping_interval_s=0.05, ping_timeout_s=1) as transport:
        await transport.send(a_push(peer))
        await peer.until(lambda: peer.pings >= 3)
        await transport.send(a_push(peer))
        assert len(peer.connections) == 1


async def test_a_peer_that_freezes_while_idle_is_left_before_the_next_request(
    engine: str, opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    if engine == "httpx":
        pytest.skip("httpx has no pings")
    async with Peer(http2) as peer, opened(ping_interval_s=0.05, ping_timeout_s=0.05) as transport:
        await transport.send(a_push(peer))
        first = peer.connections[0]
        first.deaf = True
        await first.closed
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(20)))) == 20
        assert len(peer.connections) == 2


# ---- settings and secrets


async def test_requests_go_through_the_proxy(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    async with Peer(http2) as peer, Proxy("Basic dXNlcjpwYXNz") as proxy:
        async with opened(proxy=f"http://user:pass@127.0.0.1:{proxy.port}") as transport:
            assert answered(await outcomes(transport, (a_push(peer, number) for number in range(20)))) == 20
            await transport.renew()
            assert answered(await outcomes(transport, (a_push(peer, number) for number in range(20)))) == 20
            assert proxy.asked == [f"localhost:{peer.port}"] * 2
        async with opened(proxy=f"http://127.0.0.1:{proxy.port}") as transport:
            assert not (await no_answer(transport, a_push(peer))).maybe_delivered


@pytest.mark.parametrize("manner", ["silent", "closes", "resets"])
@pytest.mark.parametrize("http2", [True, False])
async def test_a_proxy_that_opens_no_tunnel_is_known_not_to_have_delivered(
    engine: str, opened: OpenTransport, http2: bool, manner: Literal["silent", "closes", "resets"]
) -> None:
    if engine == "aioapns" and not http2:
        return
    async with (
        BadProxy(manner) as bad,
        opened(timeout_s=0.5, http2=http2, proxy=f"http://127.0.0.1:{bad.port}") as transport,
    ):
        for _ in range(2):
            assert not (await no_answer(transport, a_secure_push(Peer(None, port=1)))).maybe_delivered


async def test_a_peer_that_asks_for_a_certificate_is_shown_ours(
    opened: OpenTransport, http2_for_the_known: ssl.SSLContext, identity: Identity
) -> None:
    shown = x509.load_pem_x509_certificate(identity.pem).public_bytes(Encoding.DER)
    async with Peer(http2_for_the_known) as peer, opened(identity=identity) as transport:
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(20)))) == 20
        await transport.renew()
        assert (await transport.send(a_push(peer))).status == 200
        assert peer.certificates == [shown] * 2
        async with Proxy("") as proxy, opened(identity=identity, proxy=f"http://127.0.0.1:{proxy.port}") as tunnelled:
            assert (await tunnelled.send(a_push(peer))).status == 200
        assert peer.certificates == [shown] * 3


async def test_a_peer_that_insists_on_a_certificate_takes_nothing_without_one(
    opened: OpenTransport, http2_for_the_known: ssl.SSLContext
) -> None:
    async with Peer(http2_for_the_known) as peer, opened(timeout_s=5) as transport:
        await no_answer(transport, a_push(peer))
        assert not peer.calls


async def test_a_peer_that_asks_for_no_certificate_is_shown_none(
    opened: OpenTransport, http2: ssl.SSLContext, identity: Identity
) -> None:
    async with Peer(http2) as peer, opened(identity=identity) as transport:
        assert (await transport.send(a_push(peer))).status == 200
        assert peer.certificates == [None]


@pytest.mark.parametrize(
    "flaw",
    [
        lambda pem: b"",
        lambda pem: b"no PEM",
        lambda pem: pem.partition(b"-----BEGIN CERTIFICATE")[0],
        lambda pem: b"-----BEGIN CERTIFICATE" + pem.partition(b"-----BEGIN CERTIFICATE")[2],
        lambda pem: pem_pair(ec.generate_private_key(ec.SECP256R1()))[0] + pem[pem.index(b"-----BEGIN CERTIFICATE") :],
    ],
    ids=["empty", "garbage", "no certificate", "no key", "another key"],
)
def test_a_certificate_that_cannot_be_shown_is_refused_at_once(
    engine: str, identity: Identity, flaw: Callable[[bytes], bytes]
) -> None:
    with pytest.raises(SettingsError, match="no PEM with one certificate and its private key"):
        open_transport(engine, TransportOptions(http2=True, identity=Identity(flaw(identity.pem))))


@pytest.mark.parametrize(
    "flaw", [{"url": "not an address"}, {"url": "ftp://localhost/"}, {"headers": {"authorization": f"{JWT}\r\nx: y"}}]
)
async def test_a_request_that_cannot_be_built_is_its_own_problem(
    opened: OpenTransport, http2: ssl.SSLContext, flaw: dict[str, Any]
) -> None:
    async with Peer(http2) as peer, opened() as transport:
        good = a_push(peer)
        bad = Request(flaw.get("url", good.url), flaw.get("headers", good.headers), good.body)
        results = await outcomes(transport, [good, bad, good])
        assert [isinstance(result, Response) for result in results] == [True, False, True]
        assert unknown(results) == 1
        assert peer.calls_total == 2


async def test_errors_and_logs_hold_neither_token_nor_text(
    opened: OpenTransport, http2: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    problems = []
    async with Peer(http2) as peer, opened(timeout_s=0.3) as transport:
        await transport.send(a_push(peer))
        peer.script = lambda call: call.answer(410, b'{"reason":"Unregistered","timestamp":1766001234567}')
        await transport.send(a_push(peer))
        for script in (silent, lambda call: call.reset(), lambda call: call.connection.kill()):
            peer.script = script
            problems.append(await no_answer(transport, a_push(peer)))
        await peer.stop()
        problems.append(await no_answer(transport, a_push(peer)))
    for problem in problems:
        # Neither in what is chained to it: a traceback would show it.
        assert problem.__cause__ is None
        assert problem.__context__ is None
    told = [repr(problem) + str(problem) for problem in problems]
    told += [record.getMessage() + repr(record.args) for record in caplog.records]
    for secret in (TOKEN, "jwt-of-the-test", TEXT):
        assert not [text for text in told if secret in text]


def test_a_transport_that_cannot_be_is_refused_with_a_reason(engine: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="known are aioapns, httpx, pyreqwest"):
        open_transport("carrier-pigeon", TransportOptions())
    with pytest.raises(SettingsError, match="cannot be read"):
        open_transport(engine, TransportOptions(http2=True, ca_bundle=tmp_path / "missing.pem"))
    (tmp_path / "garbage.pem").write_text("garbage")
    with pytest.raises(SettingsError, match="no PEM certificate"):
        open_transport(engine, TransportOptions(http2=True, ca_bundle=tmp_path / "garbage.pem"))
    with pytest.raises(SettingsError, match="proxy is not an address"):
        open_transport(engine, TransportOptions(http2=True, proxy="nonsense"))


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop])
async def test_the_plain_loop_serves_as_well(
    opened: OpenTransport, http2: ssl.SSLContext, http1: ssl.SSLContext, loop_factory: object
) -> None:
    async with Peer(http2) as peer, opened() as transport:
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(100)))) == 100
        await transport.renew()
        peer.script = lambda call: call.connection.kill()
        assert (await no_answer(transport, a_push(peer))).maybe_delivered
    async with Http1Peer(http1) as peer1, opened() as transport:
        assert not (await no_answer(transport, a_push(peer1))).maybe_delivered
