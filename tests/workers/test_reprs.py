"""What ends up in a traceback or a log line by its repr holds no secret, no token and no text."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from tests.workers.ledger.support import an_entry

from pushfleet.message import OfflineMessage
from pushfleet_workers.dead_letters.renewal import Renewed
from pushfleet_workers.hand import Held
from pushfleet_workers.ingress import Raw
from pushfleet_workers.ingress.refused import Readmission
from pushfleet_workers.job import Job
from pushfleet_workers.ledger import Return, Settlement, pack, unpack
from pushfleet_workers.push import Push
from pushfleet_workers.recheck import Rechecked
from pushfleet_workers.redis_address import RedisAddress, master_address, read_url

SECRETS = ["s3cret", "token-0", "hi there"]


def packed() -> bytes:
    entry = an_entry("m")
    entry.parcel.deliveries[0].token = "token-0"
    entry.parcel.push = replace(entry.parcel.push, body="hi there")
    data = pack(entry)
    assert all(secret.encode() in data for secret in SECRETS[1:])
    return data


def a_push() -> Push:
    return unpack(packed()).parcel.push


def a_job() -> Job:
    message = OfflineMessage(id="m", app="demo", kind="chat", body="hi there", recipients=("bob",))
    job = Job(Raw(b"1-0", 1, {b"m": b"hi there"}), message, b"p", [])
    job.texts["en", False, False] = "Ann", "hi there"
    return job


def behind_sentinels() -> RedisAddress:
    address = read_url("redis+sentinel://ann:s3cret@h:1/fleet/0?sentinel_password=s3cret")
    assert not isinstance(address, RedisAddress)
    return master_address(address, address.sentinels[0])


@pytest.mark.parametrize(
    "value",
    [
        RedisAddress.from_url("rediss://ann:s3cret@h:1/0"),
        behind_sentinels(),
        a_push(),
        a_job(),
        Rechecked(rendered={b"x": a_push()}, later={b"x": (1, a_push())}),
        Held(unpack(packed()), Settlement(b"x", 1, 1), 0, 1),
        Renewed(packed(), 5),
        Return("1-0", 5, packed()),
        Readmission("1-0", 1, b"1", "m", b'{"title": "hi there"}'),
        Settlement(b"x", 1, 1, rest=packed(), later=[(1, packed())], dead=[(packed(), "expired", "", 1)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_it_shows_nothing_that_is_not_for_everybody(value: object) -> None:
    for shown in (repr(value), str(value), repr([value])):
        assert not any(secret in shown for secret in SECRETS)
