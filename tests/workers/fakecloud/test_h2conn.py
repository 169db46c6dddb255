"""What only a client that holds the frames in its own hands can see."""

from __future__ import annotations

import json
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from typing import TypeVar

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest
from tests.workers.commands import until

from pushfleet_workers.fakecloud import FakeCloudThread

TOKEN = "0a1b2c3d" * 8
BODY = json.dumps({"aps": {"alert": "Hi"}}).encode()
E = TypeVar("E", bound=h2.events.Event)
MAX_STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS


class Peer:
    """A client of APNs, one frame at a time."""

    def __init__(self, sock: ssl.SSLSocket, headers: dict[str, str]) -> None:
        self.sock = sock
        self.headers = headers
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events: deque[h2.events.Event] = deque()
        self.flush()

    def flush(self) -> None:
        self.sock.sendall(self.h2.data_to_send())

    def send(self, body: bytes = BODY, end: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", "x"), (":path", f"/3/device/{TOKEN}")]
        self.h2.send_headers(stream, [*pseudo, *self.headers.items()])
        self.h2.send_data(stream, body, end_stream=end)
        return stream

    def until(self, kind: type[E]) -> E:
        """The next event of *kind*; those before it are dropped."""
        while True:
            while self.events:
                event = self.events.popleft()
                if isinstance(event, kind):
                    return event
            data = self.sock.recv(65_536)
            assert data, "the connection was closed"
            self.events.extend(self.h2.receive_data(data))
            self.flush()


@pytest.fixture
def connect(
    cloud: FakeCloudThread,
) -> Iterator[Callable[..., ssl.SSLSocket]]:
    opened: list[ssl.SSLSocket] = []

    def open_socket(*protocols: str) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=cloud.ca_file)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        plain = socket.create_connection(("127.0.0.1", cloud.port("apns")), timeout=5)
        opened.append(context.wrap_socket(plain, server_hostname="localhost"))
        return opened[-1]

    yield open_socket
    for sock in opened:
        sock.close()


@pytest.fixture
def peer(connect: Callable[..., ssl.SSLSocket], apns_headers: dict[str, str]) -> Peer:
    return Peer(connect("h2"), apns_headers)


def test_the_stream_limit_is_announced_and_follows_a_change(cloud: FakeCloudThread, peer: Peer) -> None:
    peer.until(h2.events.SettingsAcknowledged)
    assert peer.h2.remote_settings.max_concurrent_streams == 1_000

    cloud.max_streams("apns", 1)

    assert peer.until(h2.events.RemoteSettingsChanged).changed_settings[MAX_STREAMS].new_value == 1
    stream = peer.send()
    peer.flush()
    assert peer.until(h2.events.StreamEnded).stream_id == stream


def test_a_client_that_breaks_the_stream_limit_is_cut_off(cloud: FakeCloudThread, peer: Peer) -> None:
    cloud.max_streams("apns", 1)
    peer.until(h2.events.RemoteSettingsChanged)
    while peer.h2.remote_settings.max_concurrent_streams != 1:
        peer.until(h2.events.RemoteSettingsChanged)
    peer.h2.remote_settings[MAX_STREAMS] = 100
    peer.h2.remote_settings.acknowledge()

    for _ in range(3):
        peer.send(end=False)
    peer.flush()

    peer.until(h2.events.ConnectionTerminated)


def test_a_goaway_names_the_last_stream_that_counts_and_the_reason(cloud: FakeCloudThread, peer: Peer) -> None:
    cloud.rule("apns", "goaway", after=1, code="Shutdown")
    peer.send()
    peer.send()
    peer.flush()

    event = peer.until(h2.events.ConnectionTerminated)

    assert (event.last_stream_id, event.error_code) == (1, 0)
    assert json.loads(event.additional_data or b"") == {"reason": "Shutdown"}


def test_a_late_goaway_does_not_disown_what_was_answered_meanwhile(cloud: FakeCloudThread, peer: Peer) -> None:
    cloud.rule("apns", "goaway", times=1, delay_s=0.05)
    peer.send()
    answered = peer.send()
    peer.flush()

    assert peer.until(h2.events.ResponseReceived).stream_id == answered
    assert peer.until(h2.events.ConnectionTerminated).last_stream_id == answered


def test_a_reset_carries_the_scripted_error(cloud: FakeCloudThread, peer: Peer) -> None:
    cloud.rule("apns", "reset", h2_error=7)
    peer.send()
    peer.flush()

    assert peer.until(h2.events.StreamReset).error_code == 7


def test_a_half_closed_connection_takes_what_comes_after(cloud: FakeCloudThread, peer: Peer) -> None:
    cloud.rule("apns", "half_close", times=1)
    peer.send()
    peer.flush()
    until(lambda: cloud.stats()["vendors"]["apns"]["results"].get("half_close"))

    peer.send()
    peer.flush()

    until(lambda: len(cloud.received("apns")) == 2)


def test_a_stream_that_the_client_gives_up_is_not_answered(cloud: FakeCloudThread, peer: Peer) -> None:
    cloud.rule("apns", "answer", delay_s=0.05, times=1)
    given_up = peer.send()
    peer.flush()
    peer.h2.reset_stream(given_up)
    at_once = peer.send()
    peer.h2.reset_stream(at_once)
    kept = peer.send()
    peer.flush()

    assert peer.until(h2.events.ResponseReceived).stream_id == kept
    cloud.rule("apns", "answer", delay_s=0.1, times=1)
    late = peer.send()
    peer.flush()
    assert peer.until(h2.events.ResponseReceived).stream_id == late


def test_received_data_is_acknowledged_for_ever(peer: Peer) -> None:
    body = json.dumps({"aps": {"alert": "x" * 4_000}}).encode()

    peer.until(h2.events.WindowUpdated)
    for _ in range(24):
        for _ in range(50):
            peer.send(body)
        peer.flush()
        for _ in range(50):
            peer.until(h2.events.StreamEnded)


def test_an_answer_waits_for_the_clients_window(cloud: FakeCloudThread, peer: Peer) -> None:
    cloud.rule("apns", "raw", status=200, body=b"x" * 100_000)
    stream = peer.send()
    peer.flush()
    size = 0
    while size < 65_535:
        size += len(peer.until(h2.events.DataReceived).data)

    peer.h2.increment_flow_control_window(100_000)
    peer.h2.increment_flow_control_window(100_000, stream)
    peer.flush()

    while size < 100_000:
        size += len(peer.until(h2.events.DataReceived).data)
    assert size == 100_000


def test_a_client_that_offers_no_alpn_is_served(
    connect: Callable[..., ssl.SSLSocket], apns_headers: dict[str, str]
) -> None:
    peer = Peer(connect(), apns_headers)
    peer.send()
    peer.flush()

    peer.until(h2.events.StreamEnded)


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
def test_apns_closes_on_a_client_that_speaks_http1(
    connect: Callable[..., ssl.SSLSocket], protocols: tuple[str, ...]
) -> None:
    sock = connect(*protocols)
    assert sock.selected_alpn_protocol() is None
    sock.sendall(f"POST /3/device/{TOKEN} HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n".encode())

    answer = b"".join(iter(lambda: sock.recv(65_536), b""))

    assert not answer.startswith(b"HTTP/1.1")
