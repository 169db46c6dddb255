"""Calls that are stopped before they ring on a device: nobody there is told that they ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

from pushfleet_workers.ledger import Entry
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.redis_replies import is_damaged
from pushfleet_workers.tokens.keys import UserKeys, device_field
from pushfleet_workers.tokens.reads import CALL_LIFE_MS, Done, ends_call

__all__ = ["NeverRang", "never_rang", "never_rang_command", "note_commands", "say_no_end"]

Command = tuple[str | bytes | int, ...]


class NeverRang(NamedTuple):
    """A call that was stopped before anybody tried to send it to a device."""

    call: Push
    user: str
    device: str
    done: Done
    """The end that stopped it."""


def say_no_end(
    entries: Sequence[Entry], refused: MutableMapping[bytes, str], done: Mapping[bytes, Done]
) -> list[NeverRang]:
    """Refuse among *entries* the ends of calls that are *refused* before anybody tried to send them.

    A call's own end is the one that names it, else the first one after it: another one ends another call of the
    conversation, which may well ring. Gives the calls whose end is not among *entries*, for :func:`note_commands`.

    * **done** - by delivery id, what it was refused by.
    """
    silent: list[NeverRang] = []
    ends: dict[tuple[str, str, str], list[tuple[Push, bytes]]] = {}
    for entry in entries:
        push = entry.parcel.push
        for one in entry.parcel.deliveries:
            if push.kind == "call_cancel" and not push.recall:
                ends.setdefault((push.app, one.user, one.device), []).append((push, one.id))
            elif refused.get(one.id) == "call_over" and not (one.tries or one.unknown or entry.lost):
                silent.append(NeverRang(push, one.user, one.device, done.get(one.id, Done())))
    left: list[NeverRang] = []
    for told in silent:
        call = told.call
        own = [one for one in ends.get((call.app, told.user, told.device), ()) if _ends(one[0], call)]
        if own:
            _, identity = min(own, key=lambda one: (one[0].replace_key != call.replace_key, one[0].sent_at_ms))
            refused.setdefault(identity, "call_over")
        else:
            left.append(told)
    return left


def _ends(end: Push, call: Push) -> bool:
    name = end.replace_key or end.conversation_id
    if not name or name not in (call.replace_key, call.conversation_id):
        return False
    return ends_call(end.sent_at_ms, end.enqueued_at_ms, call.sent_at_ms, call.enqueued_at_ms)


# ---- for ends that are claimed later, as what is parked is


def note_commands(prefix: str, silent: Iterable[NeverRang]) -> list[Command]:
    """The commands that note that the ends of *silent* calls need not be told on their devices."""
    commands: list[Command] = []
    for one in silent:
        key = UserKeys(prefix, one.call.app, one.user).calls
        value = f"{one.done.sent_ms}:{one.done.entered_ms}"
        names = dict.fromkeys(filter(None, (one.call.replace_key, one.call.conversation_id)))
        commands += [("HSET", key, _field(one.device, name), value) for name in names]
        commands.append(("PEXPIRE", key, CALL_LIFE_MS))
    return commands


def never_rang_command(prefix: str, end: Push, delivery: Delivery) -> tuple[str | bytes, ...] | None:
    """The command whose reply :func:`never_rang` takes; None where *end* names no call."""
    name = end.replace_key or end.conversation_id
    if end.kind != "call_cancel" or end.recall or not name:
        return None
    return "HGET", UserKeys(prefix, end.app, delivery.user).calls, _field(delivery.device, name)


def never_rang(end: Push, reply: Any) -> bool:
    """Whether *end* is that of a call which was stopped before it rang on the device: it is the one that stopped it."""
    if reply is None or is_damaged(reply):
        return False
    sent, _, entered = reply.partition(b":")
    at_ms, which = (end.enqueued_at_ms, entered) if end.sent_at_ms == end.enqueued_at_ms else (end.sent_at_ms, sent)
    return bool(which == b"%d" % at_ms)


def _field(device: str, name: str) -> bytes:
    """No call has such a name: no message's begins with a byte that is no character."""
    field = device_field(device)
    return bytes((255, len(field))) + field + name.encode(errors="surrogatepass")
