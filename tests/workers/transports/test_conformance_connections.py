"""How every engine treats its connections: the first request, streams, renewal, the end."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

import pytest
from msgspec.structs import replace
from tests.workers.transports.peer import Call, Peer, ok, silent
from tests.workers.transports.peers1 import Http1Peer
from tests.workers.transports.pushes import (
    OpenTransport,
    a_push,
    answered,
    no_answer,
    outcomes,
    unknown,
)

from pushfleet_workers.errors import NoAnswer, NotInTime
from pushfleet_workers.transports import Transport
from pushfleet_workers.vendor import Response

# ---- streams and connections


@pytest.mark.parametrize("streams_max", [1, 100])
async def test_more_requests_than_streams_are_all_answered(
    opened: OpenTransport, http2: ssl.SSLContext, streams_max: int
) -> None:
    async with Peer(http2, streams_max=streams_max) as peer, opened() as transport:
        results = await outcomes(transport, (a_push(peer, number) for number in range(300)))
        assert answered(results) == 300
        assert len(peer.connections) == 1
        assert peer.connections[0].streams_peak <= streams_max
        assert not peer.protocol_errors


async def test_the_first_request_of_a_connection_goes_alone(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    """As Apple does it: one stream until the first request was answered, then many."""
    seen_alone = []

    def after_a_while(call: Call) -> None:
        peer.script = ok
        connection = call.connection

        def answer() -> None:
            seen_alone.append(peer.calls_total)
            connection.limit_streams(1_000)
            call.answer()

        asyncio.get_running_loop().call_later(0.05, answer)

    async with Peer(http2, after_a_while, streams_max=1) as peer, opened() as transport:
        results = await outcomes(transport, (a_push(peer, number) for number in range(100)))
        assert answered(results) == 100
        assert seen_alone == [1]
        assert len(peer.connections) == 1
        assert not peer.protocol_errors


async def test_requests_are_spread_over_as_many_connections_as_wanted(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    async with Peer(http2) as peer, opened(connections=3) as transport:
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(100)))) == 100
        assert len(peer.connections) == 3
        before = [connection.calls for connection in peer.connections]
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(30)))) == 30
        assert [now.calls - then for now, then in zip(peer.connections, before, strict=True)] == [10, 10, 10]


async def test_when_the_first_request_fails_the_next_one_is_first(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    def first_fails(call: Call) -> None:
        peer.script = ok
        call.reset()

    async with Peer(http2, first_fails) as peer, opened() as transport:
        results = await outcomes(transport, (a_push(peer, number) for number in range(20)))
        assert (answered(results), unknown(results)) == (19, 1)


async def test_those_that_waited_in_vain_for_the_first_answer_were_never_sent(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    async with Peer(http2, silent) as peer, opened(timeout_s=0.3) as transport:
        results = await outcomes(transport, (a_push(peer, number) for number in range(10)))
        assert not answered(results)
        assert unknown(results) == len(peer.calls) <= 2


async def test_a_peer_that_answers_nobody_is_to_blame_for_those_who_waited_too_long_for_it(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    async with Peer(http2, silent) as peer, opened(timeout_s=0.3) as transport:
        leave_by = time.monotonic() + 0.1
        waiting = (replace(a_push(peer, number), leave_by=leave_by) for number in range(10))
        results = await outcomes(transport, waiting)
        assert all(isinstance(one, NoAnswer) and not isinstance(one, NotInTime) for one in results)
        assert unknown(results) == len(peer.calls) == 1


async def test_what_waited_for_a_connection_until_it_was_not_to_leave_any_more_is_not_sent(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    async with Peer(http2, silent) as peer, opened() as transport:
        first = asyncio.create_task(transport.send(a_push(peer)))
        await peer.until(lambda: bool(peer.calls))
        now = time.monotonic()
        soon = [replace(a_push(peer, number), leave_by=now + 0.05) for number in range(1, 10)]
        later = [replace(a_push(peer, number), leave_by=now + 60) for number in range(10, 15)]
        sending = asyncio.create_task(outcomes(transport, [*soon, *later]))
        await asyncio.sleep(0.1)
        peer.script = ok
        peer.calls[0].answer()
        assert (await first).status == 200
        results = await sending
        assert [type(result) for result in results] == [NotInTime] * 9 + [Response] * 5
        assert not any(result.maybe_delivered for result in results[:9] if isinstance(result, NotInTime))
        assert peer.calls_total == 6


async def test_what_waits_for_a_connection_is_held_back(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    async with Peer(http2, silent) as peer, opened() as transport:
        first = asyncio.create_task(transport.send(a_push(peer)))
        await peer.until(lambda: bool(peer.calls))
        waiting = asyncio.create_task(outcomes(transport, (a_push(peer, number) for number in range(1, 10))))
        await asyncio.sleep(0.05)
        transport.hold_back()
        results = await waiting
        assert [type(result) for result in results] == [NotInTime] * 9, "at once, not when the first is answered"
        assert not any(result.maybe_delivered for result in results if isinstance(result, NotInTime))
        peer.script = ok
        peer.calls[0].answer()
        assert (await first).status == 200, "what has left is under way"
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(10, 15)))) == 5
        assert peer.calls_total == 6


async def test_what_was_not_to_leave_any_more_when_its_turn_came_is_not_sent(
    engine: str, opened: OpenTransport, http1: ssl.SSLContext, http2: ssl.SSLContext
) -> None:
    async def only_the_others(peer: Any, transport: Transport) -> None:
        for _ in range(2):
            assert (await transport.send(a_push(peer))).status == 200
            late = await no_answer(transport, replace(a_push(peer, 9), leave_by=time.monotonic() - 0.001))
            assert isinstance(late, NotInTime)
            assert not late.maybe_delivered

    async with Peer(http2) as peer, opened() as transport:
        await only_the_others(peer, transport)
        assert peer.calls_total == 2
    if engine == "aioapns":
        return
    async with Http1Peer(http1) as peer1, opened(http2=False) as transport:
        await only_the_others(peer1, transport)
        assert len(peer1.heads) == 2


async def test_a_cold_connection_holds_up_nobody_while_another_is_warm(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    held: list[Call] = []

    def first_connection_only(call: Call) -> None:
        call.answer() if call.connection is peer.connections[0] else held.append(call)

    async with Peer(http2, first_connection_only) as peer, opened(connections=2) as transport:
        await transport.send(a_push(peer))
        sending = asyncio.create_task(transport.send(a_push(peer)))
        await peer.until(lambda: bool(held))
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(20)))) == 20
        held[0].answer()
        assert (await sending).status == 200


async def test_a_cancelled_caller_does_not_disturb_the_others(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    async with Peer(http2) as peer, opened() as transport:
        await transport.send(a_push(peer))
        held: list[Call] = []
        peer.script = held.append
        sending = [asyncio.create_task(transport.send(a_push(peer, number))) for number in range(40)]
        await peer.until(lambda: len(held) == 40)
        for task in sending[::2]:
            task.cancel()
        await asyncio.wait(sending[::2])
        assert [task.cancelled() for task in sending] == [True, False] * 20
        for call in held:
            call.answer()
        assert answered(await asyncio.gather(*sending[1::2])) == 20
        peer.script = ok
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(100)))) == 100
        assert len(peer.connections) == 1


async def test_a_cancelled_caller_holds_no_stream_for_long(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    async with Peer(http2, streams_max=2) as peer, opened(timeout_s=0.3) as transport:
        await transport.send(a_push(peer))
        peer.script = silent
        sending = [asyncio.create_task(transport.send(a_push(peer, number))) for number in range(2)]
        await peer.until(lambda: len(peer.calls) == 3)
        for task in sending:
            task.cancel()
        await asyncio.wait(sending)
        peer.script = ok
        # Either the streams are given back, or their connection is.
        await peer.until(lambda: peer.resets == 2 or not peer.alive)
        assert answered(await outcomes(transport, (a_push(peer, number) for number in range(10)))) == 10


async def test_a_cancelled_first_request_leaves_its_place_to_the_next(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    # The deadline bounds how long pyreqwest keeps a cancelled request and its connection.
    async with Peer(http2, silent) as peer, opened(timeout_s=2) as transport:
        first = asyncio.create_task(transport.send(a_push(peer)))
        await peer.until(lambda: len(peer.calls) == 1)
        sending = asyncio.create_task(outcomes(transport, (a_push(peer, number) for number in range(20))))
        await asyncio.sleep(0)
        peer.script = ok
        first.cancel()
        assert answered(await sending) == 20
        await asyncio.wait([first])
        assert first.cancelled()


# ---- renewal and end


async def test_renewal_lets_those_in_flight_finish_on_the_old_connection(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    async with Peer(http2) as peer, opened() as transport:
        await transport.send(a_push(peer))
        held: list[Call] = []
        peer.script = held.append
        sending = asyncio.create_task(transport.send(a_push(peer, 1)))
        await peer.until(lambda: bool(held))
        await transport.renew()
        peer.script = ok
        assert (await transport.send(a_push(peer, 2))).status == 200
        old, new = peer.connections
        assert (old.calls, new.calls) == (2, 1)
        held[0].answer()
        assert (await sending).status == 200
        await old.closed
        assert new in peer.alive


async def test_renewal_of_a_transport_that_was_never_used_or_is_idle(
    opened: OpenTransport, http2: ssl.SSLContext
) -> None:
    async with Peer(http2) as peer, opened() as transport:
        await transport.renew()
        await transport.send(a_push(peer))
        await transport.renew()
        await peer.connections[0].closed
        await transport.send(a_push(peer))
        assert len(peer.connections) == 2


async def test_renewal_moves_those_that_wait_for_a_first_answer(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    async with Peer(http2, silent) as peer, opened() as transport:
        sending = asyncio.create_task(outcomes(transport, (a_push(peer, number) for number in range(20))))
        await peer.until(lambda: len(peer.calls) == 1)
        stuck = peer.calls[0]
        peer.script = ok
        await transport.renew()
        await peer.until(lambda: len(peer.calls) == 20)
        stuck.answer()
        assert answered(await sending) == 20


async def test_closing_waits_for_what_is_in_flight(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    async with Peer(http2) as peer, opened() as transport:
        await transport.send(a_push(peer))
        held: list[Call] = []
        peer.script = held.append
        sending = asyncio.create_task(outcomes(transport, (a_push(peer, number) for number in range(20))))
        await peer.until(lambda: len(held) == 20)
        closing = asyncio.create_task(transport.close())
        for call in held:
            call.answer()
        await closing
        results = await sending
        assert answered(results) == 20
        await peer.until(lambda: not peer.alive)
        problem = await no_answer(transport, a_push(peer))
        assert (str(problem), problem.maybe_delivered) == ("the transport is closed", False)
        await transport.close()


async def test_closing_gives_up_on_a_silent_peer(opened: OpenTransport, http2: ssl.SSLContext) -> None:
    async with Peer(http2) as peer, opened(timeout_s=0.3) as transport:
        await transport.send(a_push(peer))
        peer.script = silent
        cancelled = asyncio.create_task(transport.send(a_push(peer)))
        sending = asyncio.create_task(outcomes(transport, (a_push(peer, number) for number in range(5))))
        await peer.until(lambda: len(peer.calls) == 7)
        cancelled.cancel()
        await transport.close()
        assert unknown(await sending) == 5
        await peer.until(lambda: not peer.alive)
