"""The contract on the wire: stream names, entry fields, and how a message is cut into parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b

import msgspec

from pushfleet.errors import InvalidMessage
from pushfleet.message import PART_RECIPIENTS_MAX, Lane, OfflineMessage, Recipient, Target

__all__ = ["ENTRY_BYTES_MAX", "VERSION", "decode", "encode", "entry", "ingress_key", "part_id", "parts"]

VERSION = b"1"
"""Field ``v`` of a stream entry: raised only for a change that older routers must not read."""

ENTRY_BYTES_MAX = 1_048_576
"""Longest JSON of one entry; a router reads some 300 entries at a time."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(OfflineMessage)


def ingress_key(prefix: str, lane: Lane) -> str:
    """The stream of a lane, for example ``pushfleet:{ingress:urgent}``."""
    return f"{prefix}:{{ingress:{lane}}}"


def encode(message: OfflineMessage) -> bytes:
    """
    The JSON of *message*, defaults left out.

    Raises :class:`InvalidMessage` for what JSON cannot carry, and beyond 1 MiB.
    """
    try:
        payload = _encoder.encode(message)
    except UnicodeEncodeError as problem:
        where = _lone_surrogate(msgspec.to_builtins(message), "$")
        raise InvalidMessage(f"not an OfflineMessage: half of a surrogate pair - at `{where}`") from problem
    except (TypeError, ValueError, OverflowError, RecursionError) as problem:
        raise InvalidMessage(f"not an OfflineMessage: {problem}") from problem
    _check_size(payload)
    return payload


def decode(payload: bytes | str) -> OfflineMessage:
    """
    The message in *payload*.

    Raises :class:`InvalidMessage` with the path of the offending field.
    """
    try:
        message = _decoder.decode(payload)
    except RecursionError as problem:
        raise InvalidMessage("not an OfflineMessage: nested too deeply") from problem
    except (msgspec.DecodeError, UnicodeError) as problem:
        raise InvalidMessage(f"not an OfflineMessage: {problem}") from problem
    _check_size(payload)
    if len(message.recipients) + len(message.targets) > PART_RECIPIENTS_MAX:
        raise InvalidMessage(
            f"{len(message.recipients) + len(message.targets)} recipients and targets in one entry, the limit is "
            f"{PART_RECIPIENTS_MAX}: cut the message into parts"
        )
    return message


def _check_size(payload: bytes | str) -> None:
    if len(payload) > ENTRY_BYTES_MAX:
        raise InvalidMessage(
            f"one entry has {len(payload)} bytes, the limit is {ENTRY_BYTES_MAX}: send fewer or shorter elements"
        )


def _lone_surrogate(value: object, path: str) -> str | None:
    """Where the text is that UTF-8 cannot carry; it is itself not shown."""
    if isinstance(value, str):
        return path if any("\ud800" <= character <= "\udfff" for character in value) else None
    pairs: Iterable[tuple[str, object]] = ()
    if isinstance(value, dict):
        pairs = ((f"{path}.{name}", inner) for name, inner in value.items())
        if any(_lone_surrogate(name, path) for name in value):
            return path
    elif isinstance(value, list | tuple):
        pairs = ((f"{path}[{number}]", inner) for number, inner in enumerate(value))
    return next((found for where, inner in pairs if (found := _lone_surrogate(inner, where))), None)


def entry(message: OfflineMessage) -> dict[bytes, bytes]:
    """The fields of the stream entry that carries *message*: ``v`` and ``m``."""
    return {b"v": VERSION, b"m": encode(message)}


def part_id(message: OfflineMessage) -> bytes:
    """Sixteen bytes that name this part of this message of this app, the same in every process."""
    name = f"{message.app}\0{message.id}\0{message.part}".encode(errors="surrogatepass")
    return blake2b(name, digest_size=16, person=b"pushfleet-part").digest()


def parts(message: OfflineMessage) -> Iterator[OfflineMessage]:
    """
    *message* in parts of at most 500 recipients and targets, repeated recipients dropped.

    Every part carries the lane of the whole, so that a large message does not travel as many small ones.
    """
    recipients = _once(message.recipients)
    targets = tuple(dict.fromkeys(message.targets))
    if len(recipients) + len(targets) <= PART_RECIPIENTS_MAX:
        if len(recipients) == len(message.recipients) and len(targets) == len(message.targets):
            yield message
        else:
            yield msgspec.structs.replace(message, recipients=recipients, targets=targets)
        return
    lane = msgspec.structs.replace(message, recipients=recipients, targets=targets).effective_lane
    everyone: tuple[str | Recipient | Target, ...] = recipients + targets
    for number, start in enumerate(range(0, len(everyone), PART_RECIPIENTS_MAX)):
        chunk = everyone[start : start + PART_RECIPIENTS_MAX]
        yield msgspec.structs.replace(
            message,
            recipients=tuple(one for one in chunk if not isinstance(one, Target)),
            targets=tuple(one for one in chunk if isinstance(one, Target)),
            lane=lane,
            part=number,
        )


def _once(recipients: tuple[str | Recipient, ...]) -> tuple[str | Recipient, ...]:
    """Each user once; where one is named twice, the first entry counts."""
    if len(recipients) < 2:
        return recipients
    seen: dict[str, str | Recipient] = {}
    for recipient in recipients:
        seen.setdefault(recipient if isinstance(recipient, str) else recipient.id, recipient)
    return tuple(seen.values())
