"""What lies in a vendor's Celery queue is let through to Celery, or put aside."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from pushfleet_workers.app import make_app
from pushfleet_workers.settings import Settings
from pushfleet_workers.tasks import publish_drain
from pushfleet_workers.trigger_sieve import fault_in

QUEUE = "push.apns"
EMBEDDED: dict[str, None] = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))
SECRET = "0a1b2c3d" * 8


def body(content: Any) -> str:
    return base64.b64encode(json.dumps(content).encode()).decode()


def envelope(
    *, headers: Any = None, properties: Any = None, content: Any = (["apns"], {}, EMBEDDED), **changes: Any
) -> bytes:
    """As Celery writes it, but for what is given."""
    whole = {
        "body": body(content),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "push.drain", "id": "1", "root_id": "1", "retries": 0, "eta": None,
                    "expires": "2026-07-07T12:00:00.5+00:00", "timelimit": [None, None], **(headers or {})},
        "properties": {"delivery_tag": "t", "body_encoding": "base64", "priority": 0,
                       "delivery_info": {"exchange": "", "routing_key": QUEUE}, **(properties or {})},
        **changes,
    }  # fmt: skip
    return json.dumps(whole).encode()


def test_what_the_fleet_publishes_passes(redis_url: str, redis_client: redis.Redis) -> None:
    app = make_app(Settings(redis={"url": redis_url, "prefix": "t"}, apps={"demo": {}}))
    with app.connection() as connection:
        publish_drain(app, "apns")
        connection.release()
    (entry,) = redis_client.lrange("t:celery:push.apns", 0, -1)  # type: ignore[misc]
    assert fault_in(entry, QUEUE) == ""
    assert fault_in(entry, "push.fcm") == "it asks for something else than to drain its vendor"


def test_what_later_versions_of_celery_may_add_passes() -> None:
    assert fault_in(envelope(), QUEUE) == ""
    assert fault_in(envelope(headers={"new": {"x": 1}, "stamps": {}}, properties={"newer": 2}, newest=3), QUEUE) == ""


FOREIGN = {
    "no JSON": b"this is no JSON",
    "bytes": b"\xff\xfe\x00",
    "nothing": b"",
    "a number": b"5",
    "null": b"null",
    "a list": b"[1, 2]",
    "another object": b'{"token": "x"}',
    "another task": envelope(headers={"task": f"send to {SECRET}"}),
    "no task": envelope(headers={"task": None}),
    "an id that is a number": envelope(headers={"id": 5}),
    "a root that is a number": envelope(headers={"root_id": 7}),
    "a countdown": envelope(headers={"eta": "2026-07-07T12:00:00+00:00"}),
    "an expiry that is no time": envelope(headers={"expires": "soon"}),
    "a time limit that is none": envelope(headers={"timelimit": "long"}),
    "no tag": envelope(properties={"delivery_tag": None}),
    "no way back": envelope(properties={"delivery_info": {}}),
    "another encoding": envelope(properties={"body_encoding": SECRET}),
    "pickle": envelope(**{"content-type": "application/x-python-serialize"}),
    "a body that is no base64": envelope(body="!!"),
    "an empty body": envelope(body=""),
    "a body that is no JSON": envelope(body=base64.b64encode(b"{[").decode()),
    "a body of two": envelope(content=(["apns"], {})),
    "a body of words": envelope(content=SECRET),
    "three arguments": envelope(content=(["apns", "b", SECRET], {}, EMBEDDED)),
    "no argument": envelope(content=([], {}, EMBEDDED)),
    "a named argument": envelope(content=(["apns"], {"x": None}, EMBEDDED)),
    "another vendor": envelope(content=(["fcm"], {}, EMBEDDED)),
    "a callback": envelope(content=(["apns"], {}, {**EMBEDDED, "callbacks": [{"task": "x"}]})),
    "far too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_the_fleet_would_not_write_is_told_without_repeating_it(name: str) -> None:
    fault = fault_in(FOREIGN[name], QUEUE)
    assert fault
    assert SECRET not in fault


@given(st.binary(max_size=200))
def test_no_bytes_break_it(entry: bytes) -> None:
    assert fault_in(entry, QUEUE)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda some: st.lists(some) | st.dictionaries(st.text(max_size=5), some),
)


@given(JSON, st.sampled_from(["headers", "properties", "body", "content-type"]))
def test_no_field_breaks_it(value: Any, field: str) -> None:
    assert fault_in(json.dumps({**json.loads(envelope()), field: value}).encode(), QUEUE)
