"""What lies in a vendor's Celery queue and is no trigger of ours is put aside before Celery sees it.

One entry that is no JSON, or whose body is not what Celery expects, ends a worker; some are put back when it ends and
end the next one as well. Nobody but the fleet has any business in these lists, so whatever it would not have written
itself is refused, and kept for whoever looks.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from celery import bootsteps
from msgspec import Struct

from pushfleet_workers.hooks import metrics
from pushfleet_workers.settings import Settings
from pushfleet_workers.topology import DRAIN, vendor_of

__all__ = ["fault_in", "refused_key", "sieve_step"]

log = logging.getLogger(__name__)

_KEPT = 1_000
_KEPT_BYTES_MAX = 4_096


class _DeliveryInfo(Struct):
    exchange: str
    routing_key: str


class _Properties(Struct):
    delivery_tag: str
    delivery_info: _DeliveryInfo
    body_encoding: str


class _Headers(Struct):
    task: str
    id: str
    root_id: str | None = None
    parent_id: str | None = None
    retries: int | None = None
    eta: None = None
    expires: datetime | None = None
    timelimit: tuple[float | None, float | None] | None = None
    shadow: str | None = None
    group: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None


class _Envelope(Struct):
    """As far as the type of a field matters to Celery; what it may add in later versions is let through."""

    body: str
    headers: _Headers
    properties: _Properties
    content_type: str = msgspec.field(name="content-type")
    content_encoding: str = msgspec.field(name="content-encoding")


class _Embedded(Struct):
    callbacks: None = None
    errbacks: None = None
    chain: None = None
    chord: None = None


_envelopes = msgspec.json.Decoder(_Envelope)
_bodies = msgspec.json.Decoder(tuple[tuple[str], dict[str, None], _Embedded])


def fault_in(entry: bytes, queue: str) -> str:
    """Why *entry* of *queue* is no trigger for the vendor of the queue; empty when it is one. Repeats nothing of it."""
    try:
        envelope = _envelopes.decode(entry)
        if envelope.headers.task != DRAIN:
            return f"its task is not {DRAIN}"
        form = envelope.content_type, envelope.content_encoding, envelope.properties.body_encoding
        if form != ("application/json", "utf-8", "base64"):
            return "its body is not JSON in UTF-8 and base64"
        (vendor,), words, _ = _bodies.decode(base64.b64decode(envelope.body, validate=True))
    except (msgspec.DecodeError, binascii.Error) as problem:
        return str(problem)
    except (ValueError, RecursionError) as problem:
        return type(problem).__name__
    return "" if vendor == vendor_of(queue) and not words else "it asks for something else than to drain its vendor"


def refused_key(prefix: str) -> str:
    """The stream of what was put aside, the latest last."""
    return f"{prefix}:celery:refused"


def sieve_step(settings: Settings) -> type[bootsteps.StartStopStep]:
    """The step of a Celery consumer that has every reply of Redis looked at, from each start of the consumer on."""
    kept = refused_key(settings.redis.prefix)

    class Sieve(bootsteps.StartStopStep):
        requires = ("celery.worker.consumer.tasks:Tasks",)

        def start(self, parent: Any) -> None:
            channel = parent.task_consumer.channel
            channel.client.parse_response = _sieved(channel, kept)

    return Sieve


def _sieved(channel: Any, kept: str) -> Callable[..., Any]:
    """How the channel's client reads replies: a refused entry looks as if nothing had come."""
    client = channel.client
    read = client.parse_response

    def parse_response(connection: Any, command_name: str, **options: Any) -> Any:
        reply = read(connection, command_name, **options)
        if command_name != "BRPOP" or not reply:
            return reply
        key, entry = reply
        queue = (key.decode(errors="replace") if isinstance(key, bytes) else key).partition(channel.sep)[0]
        fault = fault_in(entry, queue)
        if not fault:
            return reply
        metrics.REFUSED_TRIGGERS.labels(queue).inc()
        log.error("an entry of the queue %s is no trigger and was put aside in %s: %s", queue, kept, fault)
        _keep(channel, kept, queue, entry, fault)
        return None

    return parse_response


def _keep(channel: Any, kept: str, queue: str, entry: bytes, fault: str) -> None:
    try:
        with channel.conn_or_acquire() as client:
            what = ("queue", queue, "problem", fault, "entry", entry[:_KEPT_BYTES_MAX])
            client.execute_command("XADD", kept, "MAXLEN", "~", _KEPT, "*", *what)
    except Exception as problem:  # noqa: BLE001 - a worker must not end by it
        log.warning("it could not be kept: %s", type(problem).__name__)
