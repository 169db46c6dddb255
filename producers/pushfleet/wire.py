"""The contract on the wire: stream names, entry fields, and how a message is cut into parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b

import msgspec

from pushfleet.errors import InvalidMessage
from pushfleet.message import PART_RECIPIENTS_MAX, Lane, OfflineMessage, Recall, Recipient, clip, default_lane

__all__ = [
    "ENTRY_BYTES_MAX",
    "RECALL_LANE",
    "VERSION",
    "decode",
    "decode_message",
    "decode_recall",
    "encode",
    "entry",
    "ingress_key",
    "part_id",
    "parts",
    "read_entry",
    "recall_id",
    "recalls",
]

VERSION = b"1"
"""Field ``v`` of a stream entry: raised only for a change that older routers must not read."""

ENTRY_BYTES_MAX = 1_048_576
"""Longest JSON of one entry; a router reads some 300 entries at a time."""

RECALL_LANE: Lane = "urgent"
"""The stream of recalls: one that overtakes its message stops it."""

_REASON_MAX = 300

_PART = blake2b(digest_size=16, person=b"pushfleet-part")
"""Copied for each: half the cost of a new one."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(OfflineMessage)
_recall_decoder = msgspec.json.Decoder(Recall)


def ingress_key(prefix: str, lane: Lane) -> str:
    """The stream of a lane, for example ``pushfleet:{ingress:urgent}``."""
    return f"{prefix}:{{ingress:{lane}}}"


def encode(message: OfflineMessage | Recall) -> bytes:
    """The JSON of *message*, defaults left out.

    Raises :class:`InvalidMessage` for what JSON cannot carry, and beyond 1 MiB.
    """
    try:
        payload = _encoder.encode(message)
    except UnicodeEncodeError as problem:
        where = _lone_surrogate(message, "$")
        raise _refusal(f"half of a surrogate pair - at `{where}`", type(message).__name__) from problem
    except (TypeError, ValueError, OverflowError, RecursionError) as problem:
        raise _refusal(str(problem), type(message).__name__) from problem
    _check_size(payload)
    return payload


def decode(payload: bytes | str) -> OfflineMessage:
    """The message in *payload*, which is a stream entry's: at most 500 recipients and targets.

    Raises :class:`InvalidMessage` with the path of the offending field.
    """
    _check_size(payload)
    message = decode_message(payload)
    people = len(message.recipients) + len(message.targets)
    if people > PART_RECIPIENTS_MAX:
        raise _refusal(
            f"{people} recipients and targets in one entry, the limit is {PART_RECIPIENTS_MAX}: cut it into parts"
        )
    return message


def decode_message(payload: bytes | str) -> OfflineMessage:
    """The message in *payload*, for as many recipients as it names; a producer cuts it into parts.

    Raises :class:`InvalidMessage` with the path of the offending field.
    """
    try:
        return _decoder.decode(payload)
    except RecursionError as problem:
        raise _refusal("nested too deeply") from problem
    except (msgspec.DecodeError, UnicodeError) as problem:
        raise _refusal(str(problem)) from problem


def decode_recall(payload: bytes | str) -> Recall:
    """The recall in *payload*, which is a stream entry's: at most 500 recipients.

    Raises :class:`InvalidMessage` with the path of the offending field.
    """
    _check_size(payload)
    try:
        recall = _recall_decoder.decode(payload)
    except RecursionError as problem:
        raise _refusal("nested too deeply", "Recall") from problem
    except (msgspec.DecodeError, UnicodeError) as problem:
        raise _refusal(str(problem), "Recall") from problem
    if len(recall.recipients) > PART_RECIPIENTS_MAX:
        raise _refusal(
            f"{len(recall.recipients)} recipients in one entry, the limit is {PART_RECIPIENTS_MAX}: send several",
            "Recall",
        )
    return recall


def _check_size(payload: bytes | str) -> None:
    if len(payload) > ENTRY_BYTES_MAX:
        raise _refusal(
            f"one entry has {len(payload)} bytes, the limit is {ENTRY_BYTES_MAX}: send fewer or shorter elements"
        )


def _refusal(why: str, what: str = "OfflineMessage") -> InvalidMessage:
    """Bounded: some texts of the decoder repeat what was sent, and a reason ends in logs and dead letters."""
    article = "an" if what == "OfflineMessage" else "a"
    return InvalidMessage(f"not {article} {what}: {why if len(why) <= _REASON_MAX else why[:_REASON_MAX] + '…'}")


def _lone_surrogate(value: object, path: str) -> str | None:
    """Where the text is that UTF-8 cannot carry; it is itself not shown."""
    if isinstance(value, str):
        return path if any("\ud800" <= character <= "\udfff" for character in value) else None
    inner: Iterable[tuple[str, object]] = ()
    if isinstance(value, msgspec.Struct):
        inner = ((f"{path}.{name}", getattr(value, name)) for name in value.__struct_fields__)
    elif isinstance(value, dict):
        inner = ((path, one) for pair in value.items() for one in pair)
    elif isinstance(value, list | tuple):
        inner = ((f"{path}[{number}]", one) for number, one in enumerate(value))
    return next((found for where, one in inner if (found := _lone_surrogate(one, where))), None)


def entry(message: OfflineMessage) -> dict[bytes, bytes]:
    """The fields of the stream entry that carries *message*: ``v`` and ``m``."""
    return {b"v": VERSION, b"m": encode(message)}


def read_entry(fields: Mapping[bytes, bytes]) -> OfflineMessage | Recall:
    """The message or the recall in a stream entry; an entry without ``v`` counts as version 1.

    Raises :class:`InvalidMessage` for another version, for neither ``m`` nor ``r``, and whatever :func:`decode` and
    :func:`decode_recall` refuse.
    """
    version = fields.get(b"v", VERSION)
    if version != VERSION:
        raise _refusal(f"field v is {clip(version.decode(errors='replace'))}, this fleet reads {VERSION.decode()}")
    payload, recall = fields.get(b"m"), fields.get(b"r")
    if payload is not None and recall is not None:
        raise _refusal("the entry has both m and r: a recall goes in an entry of its own")
    if recall is not None:
        return decode_recall(recall)
    if payload is None:
        raise _refusal("the entry has no field m")
    return decode(payload)


def part_id(message: OfflineMessage) -> bytes:
    """Sixteen bytes that name this part of this message of this app, the same in every process."""
    digest = _PART.copy()
    digest.update(f"{message.app}\0{message.id}\0{message.part}".encode(errors="surrogatepass"))
    return digest.digest()


def parts(message: OfflineMessage) -> Iterator[OfflineMessage]:
    """*message* in parts of at most 500 recipients and targets, repeated recipients dropped.

    Every part carries the lane of the whole, so that a large message does not travel as many small ones. Raises
    :class:`InvalidMessage` for a message that claims to be a part and is too large for one.
    """
    recipients = _once(message.recipients)
    targets = message.targets if len(message.targets) < 2 else tuple(dict.fromkeys(message.targets))
    people = len(recipients) + len(targets)
    if people <= PART_RECIPIENTS_MAX:
        if len(recipients) == len(message.recipients) and len(targets) == len(message.targets):
            yield message
        else:
            yield msgspec.structs.replace(message, recipients=recipients, targets=targets)
        return
    if message.part:
        raise InvalidMessage(f"part is {message.part}, but only a producer numbers the parts of {people} recipients")
    lane = message.lane or default_lane(message.kind, people)
    for number, start in enumerate(range(0, people, PART_RECIPIENTS_MAX)):
        stop = start + PART_RECIPIENTS_MAX
        yield msgspec.structs.replace(
            message,
            recipients=recipients[start:stop],
            # Targets follow the recipients, as if both were one row.
            targets=targets[max(0, start - len(recipients)) : max(0, stop - len(recipients))],
            lane=lane,
            part=number,
        )


def recalls(recall: Recall) -> Iterator[Recall]:
    """*recall* in entries of at most 500 recipients, repeated ones dropped."""
    recipients = tuple(dict.fromkeys(recall.recipients))
    for start in range(0, max(1, len(recipients)), PART_RECIPIENTS_MAX):
        yield msgspec.structs.replace(recall, recipients=recipients[start : start + PART_RECIPIENTS_MAX])


def recall_id(recall: Recall) -> bytes:
    """Sixteen bytes, the same for the recall of the same message from the same recipients, in every process."""
    name = [
        f"{recall.app}\0{len(recall.id)}\0{recall.id}",
        *(f"{len(one)}\0{one}" for one in sorted(recall.recipients)),
    ]
    data = "\0".join(name).encode(errors="surrogatepass")
    return blake2b(data, digest_size=16, person=b"pushfleet-recall").digest()


def _once(recipients: tuple[str | Recipient, ...]) -> tuple[str | Recipient, ...]:
    """Each user once; where one is named twice, the first entry counts."""
    if len(recipients) < 2:
        return recipients
    ids = [recipient if isinstance(recipient, str) else recipient.id for recipient in recipients]
    if len(set(ids)) == len(ids):
        return recipients
    seen: dict[str, str | Recipient] = {}
    for name, recipient in zip(ids, recipients, strict=True):
        seen.setdefault(name, recipient)
    return tuple(seen.values())
