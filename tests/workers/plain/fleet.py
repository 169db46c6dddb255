"""The decisions on messages, holds, storms, calls and recalls in plain Python: what a fleet should come to, in memory.

Written from what the design says and without the fleet's own rules, so that the two can be held against each other.
Times are Unix milliseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from tests.workers.plain.registry import Device, Registry, Token
from tests.workers.plain.storms import Storm, Told, Written

from pushfleet import OfflineMessage, Recipient
from pushfleet.message import LANES

EXACT_BADGE = {"apns", "fcm"}
ACCOUNTS = {("apns", "main"), ("fcm", "main"), ("huawei", "main")}
CALLS = {"call", "call_cancel"}
HOLD_BULK_S = 30
HOLD_AT_DESK_S = 60
DESKTOPS = {"mac", "web"}


@dataclass(frozen=True)
class Planned:
    """A delivery that is to go out, or to be taken back."""

    message: str
    recall: bool
    user: str
    device: str
    channel: Token
    badge: int
    mention: bool
    forced: bool
    hidden: bool
    key: str
    """What it replaces on the screen, and is replaced by."""

    later: str = ""
    """Why it waits."""

    count: int = 0
    """How many messages it says there are; 0: it says what its own is."""

    by: str = ""
    """Who is said to have written the latest of them."""

    counted: bool = field(default=False, compare=False)
    """The badge is the device's own count."""

    due: int = field(default=0, compare=False)


class Fleet(Registry):
    """One app of a fleet where messages can be taken back, reads count, pushes wait, and conversations storm."""

    def __init__(self) -> None:
        super().__init__()
        self.suppressed: Counter[str] = Counter()
        self.messages: dict[str, OfflineMessage] = {}
        self.came: dict[str, int] = {}
        """When each message came."""

        self.passed = 0
        """How much later it is for holds and storms than for all else."""

        self.kept: dict[str, list[str]] = {}
        """Whom messages went to."""

        self.recalled: set[str] = set()
        self.recalls: set[tuple[str, ...]] = set()
        self.screens: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
        """What was put for a device under a replace key, the last first: its message, and what is shown of it."""

        self.uncovered: list[tuple[str, str, str]] = []
        """Messages that were recalled while others hid them that never left: with their replace key and user."""

        """By replace key, user and device the message that is shown; empty: a count of some."""

    def written_at(self, message: OfflineMessage) -> int:
        return message.sent_at_ms or self.came[message.id]

    # ---- messages

    def send(self, batch: Sequence[OfflineMessage], came: Sequence[int], now: int) -> list[Planned]:
        """What is to go out for messages that come together; whoever gets nothing is counted."""
        planned: list[Planned] = []
        fresh: list[OfflineMessage] = []
        for message, at in sorted(zip(batch, came, strict=True), key=lambda one: LANES.index(one[0].effective_lane)):
            if message.id not in self.messages:
                self.messages[message.id], self.came[message.id] = message, at
                fresh.append(message)
                planned += self._send(message, now)
        # What ends a call is heard of by those that come later, and by whoever sends what came before.
        for message in fresh:
            if message.kind == "call_cancel":
                self._end_calls(message)
        return planned

    def _send(self, message: OfflineMessage, now: int) -> list[Planned]:
        recipients = {one.id: one for one in map(_recipient, reversed(message.recipients))}
        refusal = ""
        if message.online_only:
            refusal = "online_only"
        elif self._expires_at(message) <= now:
            refusal = "expired"
        elif message.id in self.recalled:
            refusal = "recalled"
        if refusal:
            self.suppressed[refusal] += len(recipients)
            return []
        planned = [one for to in recipients.values() for one in self._send_to(to, message, now)]
        if planned:
            self.kept[message.id] = list({one.user: None for one in planned})
        for one in planned:
            if not one.later:
                self._show(one)
        return planned

    def _send_to(self, to: Recipient, message: OfflineMessage, now: int) -> Iterator[Planned]:
        user = self.user(to.id)
        if not user.devices:
            self.suppressed["no_device"] += 1
        held_until = self._held_until(to, message, now)
        for name, device in user.devices.items():
            refusal = self._refuse_user(to, message, self.written_at(message), now)
            refusal = refusal or self._refuse_device(device, now, forced=to.push == "force")
            channel = _channel(device, voip=message.kind == "call")
            refusal = refusal or _refuse_channel(channel)
            if refusal:
                self.suppressed[refusal] += 1
                continue
            assert channel is not None
            counted = to.unread is None and channel.vendor in EXACT_BADGE
            one = Planned(
                message.id,
                recall=False,
                user=to.id,
                device=name,
                channel=channel,
                badge=device.count(message.id, self.written_at(message)) if counted else to.unread or 0,
                mention=to.mention,
                forced=to.push == "force",
                hidden=user.preferences.hide_text,
                key=_key(message),
                later="held" if held_until else "",
                counted=counted,
                due=held_until,
            )
            storm = self._storm(one) if _may_wait_for_others(message, to) else None
            if storm is not None:
                note = Written(message.id, self.written_at(message), _sender(message), to.unread)
                met = storm.meet(note, now + self.passed, self._expires_at(message) + self.passed)
                if met == "told":
                    self.suppressed["stormed"] += 1
                    continue
                if met == "carries":
                    one = replace(one, later="storm", due=max(storm.until, held_until))
            yield one

    def _held_until(self, to: Recipient, message: OfflineMessage, now: int) -> int:
        """Until when pushes to the user wait in case that they look at the app; 0: they go at once."""
        at_desk = any(one.is_open(now) and one.platform in DESKTOPS for one in self.user(to.id).devices.values())
        held_s = max(HOLD_BULK_S if message.effective_lane == "bulk" else 0, HOLD_AT_DESK_S if at_desk else 0)
        due = self.came[message.id] + held_s * 1000
        waits = held_s and message.kind not in CALLS and to.push != "force" and due < self._expires_at(message)
        return due + self.passed if waits else 0

    def _storm(self, one: Planned) -> Storm:
        place = (_conversation(self.messages[one.message]), one.device, replace(one.channel, token=""))
        return self.user(one.user).storms.setdefault(place, Storm())

    def _expires_at(self, message: OfflineMessage) -> int:
        return self.written_at(message) + message.effective_ttl_s * 1000

    def _refuse_user(self, to: Recipient, message: OfflineMessage, written_at: int, now: int) -> str:
        user, conversation = self.user(to.id), _conversation(message)
        call, mention = message.kind in CALLS, to.mention or message.kind == "mention"
        is_over = message.kind == "call" and self._is_over(message, to.id)
        if to.push == "never":
            return "push_never"
        if to.push == "force":
            return "call_over" if is_over else ""
        if not user.preferences.push:
            return "push_off"
        receive, until = user.options.get(conversation, ("all", 0))
        if until and until <= now:
            receive = "all"
        if receive == "none":
            return "muted"
        if receive == "mentions" and not (call or mention):
            return "mentions_only"
        if is_over:
            return "call_over"
        if written_at <= user.read.get(conversation, 0) and not call:
            return "read"
        wanted = user.preferences
        quiet = now < wanted.quiet_until_ms or bool(wanted.quiet_daily)
        passes = (call and wanted.calls_pass) or (mention and wanted.mentions_pass)
        return "do_not_disturb" if quiet and not passes else ""

    def _refuse_device(self, device: Device, now: int, *, forced: bool) -> str:
        if device.logged_out:
            return "logged_out"
        if not device.permitted:
            return "notifications_off"
        return "foreground" if device.is_open(now) and not forced else ""

    def _show(self, one: Planned) -> None:
        if one.channel.kind != "voip":
            others = [layer for layer in self.screens.get(_screen(one), []) if layer[0] != one.message]
            self.screens[_screen(one)] = [(one.message, "count" if one.count else "itself"), *others][:8]

    def _in_front(self, screen: tuple[str, str, str]) -> tuple[str, str]:
        return next(iter(self.screens.get(screen, [])), ("", ""))

    # ---- calls

    def _end_calls(self, end: OfflineMessage) -> None:
        for to in {_recipient(one).id for one in end.recipients}:
            user = self.user(to)
            user.ended_by[_key(end)] = max(user.ended_by[_key(end)], self.came[end.id])
            if end.sent_at_ms:
                user.ended[_key(end)] = max(user.ended[_key(end)], end.sent_at_ms)
            else:
                user.ended_before[_key(end)] = max(user.ended_before[_key(end)], self.came[end.id])

    def _is_over(self, call: OfflineMessage, name: str) -> bool:
        """Dates are compared with dates; where an end or the call has none, with when they came."""
        user = self.user(name)
        if not call.sent_at_ms:
            return any(self.came[call.id] <= user.ended_by[key] for key in (_key(call), _conversation(call)))
        return any(
            self.written_at(call) <= user.ended[key] or self.came[call.id] <= user.ended_before[key]
            for key in (_key(call), _conversation(call))
        )

    def _end_of(self, call: OfflineMessage, ends: Sequence[OfflineMessage]) -> OfflineMessage | None:
        """The one of *ends* that is the call's own: it names it, or else is the first after it."""
        own = [
            end
            for end in ends
            if _key(end) in (_key(call), _conversation(call))
            and (
                self.written_at(call) <= end.sent_at_ms
                if end.sent_at_ms and call.sent_at_ms
                else self.came[call.id] <= self.came[end.id]
            )
        ]
        return min(own, key=lambda end: (_key(end) != _key(call), self.written_at(end)), default=None)

    def _note_that_it_never_rang(self, one: Planned) -> None:
        user, call = self.user(one.user), self.messages[one.message]
        names = {name for name in (_key(call), _conversation(call)) if name}
        end = max(user.ended[name] for name in names), max(user.ended_before[name] for name in names)
        user.never_rang |= {(one.device, name): end for name in names}

    def _never_rang(self, one: Planned, end: OfflineMessage) -> bool:
        """Whether the end is that of a call that was stopped before it rang on the device."""
        dated, came = self.user(one.user).never_rang.get((one.device, _key(end)), (0, 0))
        return dated == end.sent_at_ms if end.sent_at_ms else came == self.came[end.id]

    # ---- taking back

    def recall(self, message_id: str, conversation: str, named: list[str], now: int) -> list[Planned]:
        """What is to be taken back."""
        self.recalled.add(message_id)
        name = (message_id, *sorted(set(named)))
        if name in self.recalls:
            return []
        self.recalls.add(name)
        return self._recall(message_id, conversation, named, now)

    def recall_uncovered(self, now: int) -> list[Planned]:
        """What workers ask to be taken back, as what hid it was stopped."""
        asked: dict[tuple[str, str], list[str]] = {}
        for message_id, key, user in self.uncovered:
            asked.setdefault((message_id, key), []).append(user)
        self.uncovered = []
        return [one for (name, key), users in asked.items() for one in self._recall(name, key, users, now)]

    def _recall(self, message_id: str, conversation: str, named: list[str], now: int) -> list[Planned]:
        message = self.messages[message_id] if message_id in self.kept else None
        users = list(dict.fromkeys(named)) or self.kept.get(message_id, [])
        kind = message.kind if message is not None else "system"
        if not users:
            self.suppressed["recall_unknown"] += 1
            return []
        if kind == "call":
            self.suppressed["not_shown"] += len(users)
            return []
        planned = []
        for user in users:
            devices = self.user(user).devices
            if not devices:
                self.suppressed["no_device"] += 1
            for device_name, device in devices.items():
                channel = _channel(device, voip=False)
                refusal = self._refuse_device(device, now, forced=False) or _refuse_channel(channel)
                key = _key(message) if message is not None else conversation
                if not refusal and self._in_front((key or message_id, user, device_name)) != (message_id, "itself"):
                    refusal = "not_shown"
                if refusal:
                    self.suppressed[refusal] += 1
                    continue
                assert channel is not None
                hidden = self.user(user).preferences.hide_text
                planned.append(Planned(message_id, True, user, device_name, channel, -1, False, False, hidden, key))
        return planned

    # ---- at the claim

    def claim(self, claimed: Sequence[Planned], now: int) -> list[str | Planned]:
        """For each delivery that is claimed, why it must not be sent any more; else what it has become."""
        fates = {one: self._decide_again(one, now) for one in claimed if not one.recall}
        over = [one for one, fate in fates.items() if fate == "call_over"]
        for call in [one for one in over if self.messages[one.message].kind == "call"]:
            # It never rang: its end needs not be told.
            ends = {
                self.messages[one.message].id: one
                for one in fates
                if self.messages[one.message].kind == "call_cancel"
                and (one.user, one.device) == (call.user, call.device)
            }
            own = self._end_of(self.messages[call.message], [self.messages[name] for name in ends])
            if own is None:
                self._note_that_it_never_rang(call)
            elif isinstance(fates[ends[own.id]], Planned):
                fates[ends[own.id]] = "call_over"
        hid = {_screen(one): self._in_front(_screen(one))[0] for one in fates}
        stopped = {(_screen(one), one.message) for one, fate in fates.items() if isinstance(fate, str)}
        for screen, message in stopped:
            self.screens[screen] = [layer for layer in self.screens.get(screen, []) if layer[0] != message]
        recalls = {one: self._decide_again(one, now) for one in claimed if one.recall}
        for one in [one for one, fate in recalls.items() if isinstance(fate, Planned)]:
            layers = self.screens[_screen(one)]
            self.screens[_screen(one)] = [(name, "" if name == one.message else what) for name, what in layers]
        for screen, message in hid.items():
            front, what = self._in_front(screen)
            if (screen, message) in stopped and what == "itself" and front in self.recalled:
                self.uncovered.append((front, screen[0], screen[1]))
        fates |= recalls
        for fate in fates.values():
            if isinstance(fate, Planned) and fate.later:
                self._show(fate)
        return [fates[one] for one in claimed]

    def _decide_again(self, one: Planned, now: int) -> str | Planned:
        user, message = self.user(one.user), self.messages.get(one.message)
        read_up_to = user.read.get(_conversation(message), 0) if message is not None else 0
        told, left, by, refusal = None, [], "", ""
        taken_back = not one.recall and one.message in self.recalled
        if not one.recall and message is not None and message.kind == "call_cancel" and self._never_rang(one, message):
            # Of what was taken back nothing else is said, whatever else there was to say.
            return "recalled" if taken_back else "call_over"
        if one.later == "storm":
            told = self._told_by(one, now, read_up_to)
            left, by = told.left(read_up_to, self.recalled) if told is not None else ([], "")
        if not one.recall:
            assert message is not None
            to = Recipient(id=one.user, mention=one.mention, push="force" if one.forced else "auto")
            written_at = max(self.written_at(message), told.latest.at if told is not None else 0)
            refusal = self._refuse_user(to, message, written_at, now)
        device = user.devices.get(one.device)
        channel = None
        if not refusal and device is None:
            refusal = "no_device"
        elif not refusal:
            assert device is not None
            same = [other for other in device.channels if _like(other, one.channel)]
            channel = one.channel if one.channel in same else next(iter(same), None)
            refusal = self._refuse_device(device, now, forced=one.forced) or (
                "" if channel is not None else "no_channel"
            )
        if not refusal and one.later == "storm" and not left:
            refusal = "stormed" if told is None else "read"
        if taken_back and (refusal or not left):
            return "recalled"
        front, what = self._in_front(_screen(one))
        if one.recall and not refusal and (front != one.message or what == "count"):
            return "not_shown"
        if refusal:
            return refusal
        assert device is not None
        assert channel is not None
        badge = device.unread + device.since_base if one.counted else one.badge
        if told is not None and not one.counted and told.latest.unread is not None:
            badge = told.latest.unread
        # Of what was taken back no word is said, and a count names nobody where texts are hidden.
        hidden = one.hidden or user.preferences.hide_text or taken_back
        speaks_for_itself = told is None or [note.message for note in left] == [one.message]
        count = 0 if speaks_for_itself else len(left)
        named = count > 1 and message is not None and _is_group(message) and not hidden
        return replace(one, channel=channel, badge=badge, hidden=hidden, count=count, by=by if named else "")

    def _told_by(self, one: Planned, now: int, read_up_to: int) -> Told | None:
        """What a carrier tells of: itself where nothing is known of its storm any more."""
        message = self.messages[one.message]
        place = (_conversation(message), one.device, replace(one.channel, token=""))
        storm = self.user(one.user).storms.get(place)
        if storm is not None:
            return storm.told_by(one.message, now + self.passed, read_up_to, self.recalled)
        alone = Written(message.id, self.written_at(message), _sender(message))
        return Told([alone], alone)


def _recipient(one: str | Recipient) -> Recipient:
    return one if isinstance(one, Recipient) else Recipient(id=one)


def _may_wait_for_others(message: OfflineMessage, to: Recipient) -> bool:
    plain = message.kind == "chat" and message.effective_lane != "urgent"
    return plain and not to.mention and to.push != "force"


def _conversation(message: OfflineMessage) -> str:
    return message.conversation.id if message.conversation is not None else ""


def _is_group(message: OfflineMessage) -> bool:
    return message.conversation is not None and message.conversation.kind != "single"


def _sender(message: OfflineMessage) -> str:
    return message.sender.name if message.sender is not None else ""


def _key(message: OfflineMessage) -> str:
    return message.replace_key or _conversation(message)


def _screen(one: Planned) -> tuple[str, str, str]:
    return one.key or one.message, one.user, one.device


def _like(one: Token, other: Token) -> bool:
    return (one.vendor, one.credential, one.kind) == (other.vendor, other.credential, other.kind)


def _channel(device: Device, *, voip: bool) -> Token | None:
    """A call rings where it can; everything else, and a call elsewhere, takes the first channel for alerts."""
    ringing = [one for one in device.channels if one.kind == "voip"]
    shown = [one for one in device.channels if one.kind != "voip"]
    return next(iter([*ringing, *shown] if voip else shown), None)


def _refuse_channel(channel: Token | None) -> str:
    if channel is None:
        return "no_channel"
    return "" if (channel.vendor, channel.credential) in ACCOUNTS else "unknown_account"
