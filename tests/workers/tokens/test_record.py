import asyncio
import logging
import os
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.tokens.support import NOW_MS, a_registration

from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_server import EmbeddedRedis
from pushfleet_workers.tokens import keys
from pushfleet_workers.tokens.record import Channel, Device, decode_device, encode_device, read_devices
from pushfleet_workers.tokens.store import TokenStore

TEXTS = st.text(max_size=20)
TIMES = st.integers(0, 253_402_300_799_999)
CHANNELS = st.builds(
    Channel,
    vendor=st.sampled_from(["apns", "fcm", "huawei"]),
    credential=TEXTS,
    token=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200),
    registered_at_ms=TIMES,
    kind=st.sampled_from(["alert", "voip", "fid"]),
    region=TEXTS,
    quarantined_until_ms=TIMES,
)
DEVICES = st.builds(
    Device,
    channels=st.lists(CHANNELS, max_size=8),
    state=st.sampled_from(["", "f", "b", "k", "o"]),
    state_at_ms=TIMES,
    lease_until_ms=TIMES,
    unread=st.integers(0, 1_000_000),
    unread_lag_ms=TIMES,
    permitted=st.booleans(),
    locale=TEXTS,
    time_zone=TEXTS,
    platform=TEXTS,
    maker=TEXTS,
    os_version=TEXTS,
    app_version=TEXTS,
    registered_at_ms=TIMES,
)


def packed(*values: Any) -> bytes:
    return msgspec.msgpack.encode(values)


@given(DEVICES)
def test_what_is_written_is_read(device: Device) -> None:
    assert decode_device(encode_device(device)) == device


@given(DEVICES, st.integers(0, 14))
def test_a_record_of_an_older_version_decodes(device: Device, length: int) -> None:
    whole = msgspec.msgpack.decode(encode_device(device))
    older = decode_device(packed(*whole[:length]))
    for at, name in enumerate(Device.__struct_fields__):
        assert getattr(older, name) == getattr(device if at < length else Device(), name)


@given(DEVICES, st.lists(st.none() | st.integers(0, 9) | st.text() | st.lists(st.text()), min_size=1, max_size=3))
def test_a_record_of_a_newer_version_decodes(device: Device, more: list[Any]) -> None:
    whole = msgspec.msgpack.decode(encode_device(device))
    whole[0] = [[*channel, *more] for channel in whole[0]]
    assert decode_device(packed(*whole, *more)) == device


def test_a_channel_of_an_older_version_decodes() -> None:
    device = decode_device(packed([["apns", "main", "t1", 5]]))
    assert device.channels == [Channel("apns", "main", "t1", 5)]


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\xc1", b"\xff" * 40, b"not msgpack", packed("text"), packed([["apns"]]), packed([], "x"), packed([5])],
)
def test_a_damaged_record_is_left_out_and_its_neighbours_are_read(
    damaged: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    whole = Device([Channel("apns", "main", "t1", 5)])
    fields = [b"d1", encode_device(whole), b"bad", damaged, b"d2", encode_device(Device(state="b"))]
    with caplog.at_level(logging.WARNING):
        devices = read_devices(fields)
    assert devices == {"d1": whole, "d2": Device(state="b")}
    assert "bad" in caplog.text


def test_the_warning_about_a_damaged_record_does_not_show_what_is_in_it(caplog: pytest.LogCaptureFixture) -> None:
    secret = "secret-token"
    for record in (
        packed([["apns", "main", secret, "x"]]),
        packed([["apns", "main", "t", 1, secret]]),
        secret.encode(),
    ):
        assert read_devices([b"d1", record]) == {}
    assert caplog.text
    assert secret not in caplog.text


def test_a_representation_does_not_show_the_token() -> None:
    assert "secret-token" not in repr(Device([Channel("apns", "main", "secret-token", 5)]))


def test_a_device_with_a_token_of_160_characters_costs_450_bytes_at_most(
    redis_server: EmbeddedRedis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As full as the index is with a million devices: 16 tokens in a hash.
    devices = 4_096
    monkeypatch.setattr(keys, "_BUCKET_DIGITS", 2)

    told = {
        "state": "background",
        "unread": 3,
        "locale": "zh-Hans-CN",
        "time_zone": "Asia/Shanghai",
        "platform": "ios",
        "maker": "apple",
        "os_version": "18.1.1",
        "app_version": "10.20.30",
    }

    async def measure() -> float:
        link = Link(redis_server.url)
        store = TokenStore(link, "pushfleet", lambda: NOW_MS)
        try:
            for first in range(0, devices, 512):
                await store.register_many(
                    [
                        (
                            "demo",
                            f"user-{number:06d}",
                            str(UUID(bytes=os.urandom(16))),
                            a_registration(os.urandom(80).hex(), **told),
                        )
                        for number in range(first, first + 512)
                    ]
                )
            names = await link.call("KEYS", "*")
            sizes = await link.pipeline([("MEMORY", "USAGE", name, "SAMPLES", 0) for name in names])
            return float(sum(sizes) / devices)
        finally:
            await link.close()

    per_device = asyncio.run(measure())
    assert per_device <= 450, f"{per_device:.0f} bytes"
