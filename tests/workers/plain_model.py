"""The token state, the decisions, badges and recalls in plain Python: what a fleet should come to, in memory.

Written from what the design says and without the fleet's own rules, so that the two can be held against each other.
Times are Unix milliseconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from pushfleet import OfflineMessage, Recipient
from pushfleet_workers.tokens.preferences import Preferences

LEASE_MS = 400_000
EXACT_BADGE = {"apns", "fcm"}
ACCOUNTS = {("apns", "main"), ("fcm", "main"), ("huawei", "main")}
STEPS = ["", "foreground", "background", "killed", "logged_out"]
"""Of two reports of one moment the later one of these holds."""


@dataclass(frozen=True)
class Token:
    """A push token, and which of a device's channels it is."""

    vendor: str
    credential: str
    token: str
    kind: str = "alert"


@dataclass
class Device:
    """An installation as its reports left it."""

    registered_at: int
    channels: dict[Token, int]
    """In order of preference, with when each was registered."""

    permitted: bool = True
    state: str = ""
    state_at: int = 0
    unread: int = 0
    unread_at: int = 0
    logged_out_at: int = 0
    counted: dict[str, int] = field(default_factory=dict)
    """Messages that its badge has counted, since ever, and when they were written."""

    since_base: int = 0

    @property
    def logged_out(self) -> bool:
        return self.logged_out_at > 0 or self.state == "logged_out"

    def rebase(self, base: int, at: int) -> bool:
        if at < self.unread_at or (at == self.unread_at and base <= self.unread):
            return False
        self.unread, self.unread_at = base, at
        self.since_base = sum(sent_at > at for sent_at in list(self.counted.values())[-63:])
        return True

    def report(self, state: str, at: int, unread: int | None = None) -> bool:
        """Whether any of it was news."""
        left = False
        if state == "logged_out":
            if at < self.registered_at:
                return False
            left = at > self.logged_out_at
            self.logged_out_at = max(at, self.logged_out_at)
        newer = (at, STEPS.index(state)) > (self.state_at, STEPS.index(self.state))
        if newer:
            self.state, self.state_at = state, at
        base = 0 if unread is None and state == "foreground" else unread
        based = base is not None and self.rebase(base, at)
        return newer or left or based

    def count(self, message: str, sent_at: int) -> int:
        if message not in list(self.counted)[-63:]:
            self.counted[message] = sent_at
            self.since_base += 1
        return self.unread + self.since_base


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
    counted: bool = field(default=False, compare=False)
    """The badge is the device's own count."""


@dataclass
class User:
    """What is known of one person."""

    devices: dict[str, Device] = field(default_factory=dict)
    options: dict[str, tuple[str, int]] = field(default_factory=dict)
    preferences: Preferences = field(default_factory=Preferences)
    read: dict[str, int] = field(default_factory=dict)
    logins: dict[str, int] = field(default_factory=dict)
    """When each device logged in last, whether it is registered or not."""


class Model:
    """One app of a fleet where messages can be taken back and reads count."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.index: dict[Token, tuple[str, int]] = {}
        """Who claimed a token last, and as of when."""

        self.suppressed: Counter[str] = Counter()
        self.messages: dict[str, OfflineMessage] = {}
        self.kept: dict[str, list[str]] = {}
        """Whom messages went to."""

        self.recalled: set[str] = set()
        self.recalls: set[tuple[str, ...]] = set()
        self.screens: dict[tuple[str, str, str], str] = {}
        """By replace key, user and device the message that is shown."""

    def user(self, name: str) -> User:
        return self.users.setdefault(name, User())

    # ---- devices

    def register(
        self,
        name: str,
        device: str,
        tokens: list[Token],
        at: int,
        *,
        state: str | None,
        unread: int | None,
        permitted: bool,
    ) -> bool:
        user = self.user(name)
        won = [one for one in tokens if self._claim(name, one, at)]
        before = user.devices.get(device)
        holds = before is None or before.registered_at <= at
        gone: list[tuple[Token, int]] = []
        if holds:
            now = Device(at, dict.fromkeys(won, at), permitted)
            if before is not None:
                now.state, now.state_at = before.state, before.state_at
                now.unread, now.unread_at = before.unread, before.unread_at
                now.counted, now.since_base = before.counted, before.since_base
                if before.state == "logged_out" and before.state_at < at:
                    now.state = ""
                if before.logged_out_at >= at:
                    now.logged_out_at = before.logged_out_at
                gone = [(one, since) for one, since in before.channels.items() if one not in now.channels]
            for other_name, other in user.devices.items():
                for one in [one for one in other.channels if other_name != device and one in now.channels]:
                    older = other if other.channels[one] <= at else now
                    del older.channels[one]
            user.devices[device] = now
        else:
            assert before is not None
            gone = [(one, at) for one in won if one not in before.channels]
        if state is not None:
            user.devices[device].report(state, at, unread)
        for other_name, login_at in user.logins.items():
            if other_name != device:
                user.devices[device].report("logged_out", login_at)
        self._give_up(name, gone)
        return holds

    def _claim(self, name: str, token: Token, at: int) -> bool:
        owner, since = self.index.get(token, (name, 0))
        if owner != name and since > at:
            return False
        self.index[token] = (name, max(at, since) if owner == name else at)
        if owner != name:
            for device in self.user(owner).devices.values():
                device.channels.pop(token, None)
        return True

    def _give_up(self, name: str, gone: list[tuple[Token, int]]) -> None:
        for token, at in gone:
            owner, since = self.index.get(token, ("", 0))
            held = any(token in device.channels for device in self.user(name).devices.values())
            if owner == name and since <= at and not held:
                del self.index[token]

    def remove(self, name: str, device: str) -> bool:
        gone = self.user(name).devices.pop(device, None)
        if gone is not None:
            self._give_up(name, list(gone.channels.items()))
        return gone is not None

    def forget(self, name: str) -> None:
        gone = self.users.pop(name, User())
        for device in gone.devices.values():
            self._give_up(name, list(device.channels.items()))

    def log_in(self, name: str, device: str, at: int) -> list[str]:
        logins = self.user(name).logins
        logins[device] = max(at, logins.get(device, 0))
        return [
            other
            for other, one in self.user(name).devices.items()
            if other != device and one.logged_out_at < at and one.report("logged_out", at)
        ]

    def read(self, name: str, conversation: str, up_to: int, unread: int | None, at: int) -> bool:
        user = self.user(name)
        news = up_to > user.read.get(conversation, 0)
        user.read[conversation] = max(up_to, user.read.get(conversation, 0))
        if unread is not None:
            based = [device.rebase(unread, at) for device in user.devices.values()]
            news = news or any(based)
        return news

    # ---- messages

    def send(self, message: OfflineMessage, now: int) -> list[Planned]:
        """What is to go out for *message*; whoever gets nothing is counted."""
        if message.id in self.messages:
            return []
        self.messages[message.id] = message
        recipients = {one.id: one for one in map(_recipient, reversed(message.recipients))}
        sent_at = message.sent_at_ms or now
        refusal = ""
        if message.online_only:
            refusal = "online_only"
        elif sent_at + message.effective_ttl_s * 1000 <= now:
            refusal = "expired"
        elif message.id in self.recalled:
            refusal = "recalled"
        if refusal:
            self.suppressed[refusal] += len(recipients)
            return []
        planned = [one for to in recipients.values() for one in self._send_to(to, message, sent_at, now)]
        if planned:
            self.kept[message.id] = list({one.user: None for one in planned})
        for one in planned:
            if one.channel.kind != "voip":
                self.screens[_screen(message, one)] = message.id
        return planned

    def _send_to(self, to: Recipient, message: OfflineMessage, sent_at: int, now: int) -> Iterator[Planned]:
        user = self.user(to.id)
        if not user.devices:
            self.suppressed["no_device"] += 1
        for name, device in user.devices.items():
            refusal = self._refuse_user(to, message, sent_at, now) or self._refuse_device(
                device, now, forced=to.push == "force"
            )
            channel = _channel(device, voip=message.kind == "call")
            refusal = refusal or _refuse_channel(channel)
            if refusal:
                self.suppressed[refusal] += 1
                continue
            assert channel is not None
            counted = to.unread is None and channel.vendor in EXACT_BADGE
            badge = device.count(message.id, sent_at) if counted else to.unread or 0
            hidden, forced = user.preferences.hide_text, to.push == "force"
            yield Planned(message.id, False, to.id, name, channel, badge, to.mention, forced, hidden, counted)

    def _refuse_user(self, to: Recipient, message: OfflineMessage, sent_at: int, now: int) -> str:
        user, conversation = self.user(to.id), _conversation(message)
        call, mention = message.kind == "call", to.mention or message.kind == "mention"
        if to.push == "never":
            return "push_never"
        if to.push == "force":
            return ""
        if not user.preferences.push:
            return "push_off"
        receive, until = user.options.get(conversation, ("all", 0))
        if until and until <= now:
            receive = "all"
        if receive == "none":
            return "muted"
        if receive == "mentions" and not (call or mention):
            return "mentions_only"
        wanted = user.preferences
        quiet = now < wanted.quiet_until_ms or bool(wanted.quiet_daily)
        passes = (call and wanted.calls_pass) or (mention and wanted.mentions_pass)
        if sent_at <= user.read.get(conversation, 0) and not call:
            return "read"
        return "do_not_disturb" if quiet and not passes else ""

    def _refuse_device(self, device: Device, now: int, *, forced: bool) -> str:
        if device.logged_out:
            return "logged_out"
        if not device.permitted:
            return "notifications_off"
        looking = device.state == "foreground" and now < device.state_at + LEASE_MS
        return "foreground" if looking and not forced else ""

    # ---- taking back

    def recall(self, message_id: str, conversation: str, named: list[str], now: int) -> list[Planned]:
        """What is to be taken back."""
        self.recalled.add(message_id)
        name = (message_id, *sorted(set(named)))
        if name in self.recalls:
            return []
        self.recalls.add(name)
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
                key = _conversation(message) if message is not None else conversation
                if not refusal and self.screens.get((key or message_id, user, device_name)) != message_id:
                    refusal = "not_shown"
                if refusal:
                    self.suppressed[refusal] += 1
                    continue
                assert channel is not None
                hidden = self.user(user).preferences.hide_text
                planned.append(Planned(message_id, True, user, device_name, channel, -1, False, False, hidden))
        return planned

    # ---- at the claim

    def recheck(self, one: Planned, sent_at: int, key: str, now: int) -> str | Planned:
        """Why *one* must not be sent any more; else what it has become."""
        message = self.messages.get(one.message)
        to = Recipient(id=one.user, mention=one.mention, push="force" if one.forced else "auto")
        refusal = ""
        if not one.recall:
            assert message is not None
            refusal = self._refuse_user(to, message, sent_at, now)
        device = self.user(one.user).devices.get(one.device)
        channel = None
        if not refusal:
            if device is None:
                refusal = "no_device"
            else:
                refusal = self._refuse_device(device, now, forced=one.forced)
                same = [_like(other, one.channel) for other in device.channels]
                left = [other for other, alike in zip(device.channels, same, strict=True) if alike]
                channel = one.channel if one.channel in left else next(iter(left), None)
                refusal = refusal or ("" if channel is not None else "no_channel")
        screen = (key or one.message, one.user, one.device)
        if not one.recall and one.message in self.recalled:
            refusal = "recalled"
        if one.recall and not refusal and self.screens.get(screen) != one.message:
            refusal = "not_shown"
        if refusal and not one.recall and self.screens.get(screen) == one.message:
            del self.screens[screen]
        if refusal:
            return refusal
        assert device is not None
        assert channel is not None
        return replace(
            one,
            channel=channel,
            badge=device.unread + device.since_base if one.counted else one.badge,
            hidden=one.hidden or self.user(one.user).preferences.hide_text,
        )


def _recipient(one: str | Recipient) -> Recipient:
    return one if isinstance(one, Recipient) else Recipient(id=one)


def _conversation(message: OfflineMessage) -> str:
    return message.conversation.id if message.conversation is not None else ""


def _screen(message: OfflineMessage, one: Planned) -> tuple[str, str, str]:
    return _conversation(message) or message.id, one.user, one.device


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
