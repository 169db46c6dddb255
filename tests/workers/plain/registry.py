"""Users, their devices and push tokens: what reports, registrations and logins in any order come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.workers.plain.storms import Storm

from pushfleet_workers.tokens.preferences import Preferences

LEASE_MS = 400_000
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
    platform: str = ""
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

    def is_open(self, now: int) -> bool:
        """Whether its user looks at the app; a report of it holds for a while."""
        return self.state == "foreground" and now < self.state_at + LEASE_MS

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


@dataclass
class User:
    """What is known of one person."""

    devices: dict[str, Device] = field(default_factory=dict)
    options: dict[str, tuple[str, int]] = field(default_factory=dict)
    preferences: Preferences = field(default_factory=Preferences)
    read: dict[str, int] = field(default_factory=dict)
    logins: dict[str, int] = field(default_factory=dict)
    """When each device logged in last, whether it is registered or not."""

    storms: dict[tuple[str, str, Token], Storm] = field(default_factory=dict)
    """By conversation, device and channel, whatever the token is."""

    ended: Counter[str] = field(default_factory=Counter)
    """By name of calls, or conversation, when the last of them was over, as their backend dates it."""

    ended_before: Counter[str] = field(default_factory=Counter)
    """The same of ends without a date: when they came."""

    ended_by: Counter[str] = field(default_factory=Counter)
    """The same of all ends."""

    never_rang: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """By device and name, the end of a call that was stopped before it rang there: its date, and when it came."""


class Registry:
    """The users of one app, and who has which token."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        self.index: dict[Token, tuple[str, int]] = {}
        """Who claimed a token last, and as of when."""

    def user(self, name: str) -> User:
        return self.users.setdefault(name, User())

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
        platform: str = "",
    ) -> bool:
        user = self.user(name)
        won = [one for one in tokens if self._claim(name, one, at)]
        before = user.devices.get(device)
        holds = before is None or before.registered_at <= at
        gone: list[tuple[Token, int]] = []
        if holds:
            now = Device(at, dict.fromkeys(won, at), permitted, platform)
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
        # A storm of which everything is read is over.
        for place in [place for place, storm in user.storms.items() if place[0] == conversation]:
            if user.storms[place].latest_at <= up_to:
                del user.storms[place]
        if unread is not None:
            based = [device.rebase(unread, at) for device in user.devices.values()]
            news = news or any(based)
        return news
