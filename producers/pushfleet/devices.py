"""The shapes of the token state, as a backend gives them to the API and gets them back.

Those that are given are checked by the API, which names what is wrong with its path. Of an answer, fields that are not
known here are skipped, so that a newer API may say more. Times are Unix milliseconds, 0: now or never.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

__all__ = [
    "AccountDeaths",
    "AccountsWithDeaths",
    "Channel",
    "ClientReceipt",
    "Confirmation",
    "Confirmed",
    "Death",
    "DeathDecision",
    "DeathPage",
    "DeathsDecided",
    "DeathsRestored",
    "Device",
    "DeviceChannel",
    "DeviceJudged",
    "DoNotDisturb",
    "Preferences",
    "PushVerdict",
    "QuietHours",
    "ReceiptsRecorded",
    "Receive",
    "ReceiveOption",
    "Registered",
    "Registration",
    "Reported",
    "Sounds",
    "StateName",
    "StateReport",
    "TokenKind",
    "User",
]

DeathDecision = Literal["confirm", "lift"]
TokenKind = Literal["alert", "voip", "fid"]
StateName = Literal["foreground", "background", "killed", "logged_out"]
Receive = Literal["all", "mentions", "none"]


class _Given(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of what is given: immutable, defaults left out of the JSON."""


class _Shown(Struct, frozen=True, kw_only=True):
    """Base of what is answered."""


# ---- what is given


class Channel(_Given, frozen=True):
    """A push token, as the vendor's SDK gave it to the app; never shown in a repr."""

    vendor: str
    """Lower-case name, for example ``apns``."""

    token: str
    """1 to 4,096 printable ASCII characters."""

    credential: str = "main"
    """The account of that vendor that the token belongs to, as in the fleet's settings."""

    kind: TokenKind = "alert"
    """``voip``: an iOS PushKit token; ``fid``: a Firebase installation id."""

    region: str = ""
    """Where the vendor keeps regions apart; at most 64 characters."""

    def __repr__(self) -> str:
        return f"Channel({self.vendor}:{self.credential}, {self.kind})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """All but the token."""
        return [(name, getattr(self, name)) for name in ("vendor", "credential", "kind", "region")]


class Registration(_Given, frozen=True):
    """A device as the app reports it after login; the channels replace those before."""

    channels: tuple[Channel, ...]
    """1 to 8, in order of preference: the first of a kind is the primary one."""

    platform: str = ""
    maker: str = ""
    os_version: str = ""
    app_version: str = ""
    locale: str = ""
    """BCP 47, for example ``zh-Hans-CN``; texts are composed in its language."""

    time_zone: str = ""
    """IANA name, for example ``Asia/Shanghai``."""

    notifications: bool = True
    """Whether the user allows notifications."""

    state: StateName | None = None
    """The app's state now, as a report of the same time."""

    unread: int | None = None
    """The unread number that the badge counts on from, 0 to 1,000,000; only with a state."""

    at_ms: int = 0
    """When this was true, at most five minutes ahead of the fleet's clock."""


class StateReport(_Given, frozen=True):
    """The state of the app on a device, as of its own time; in whatever order reports come, the latest holds."""

    user: str
    """1 to 256 UTF-8 bytes."""

    device: str
    """The installation's id, 1 to 128 UTF-8 bytes."""

    state: StateName
    unread: int | None = None
    """The unread number that the badge counts on from, 0 to 1,000,000."""

    at_ms: int = 0
    """When this was true, at most five minutes ahead of the fleet's clock."""


class Confirmation(_Given, frozen=True):
    """A device has all messages of a conversation that were written until a time, over the app's own connection."""

    user: str
    """1 to 256 UTF-8 bytes."""

    device: str
    """The installation's id, 1 to 128 UTF-8 bytes."""

    up_to_ms: int
    """``sent_at_ms`` of the last message that the device has, and none before it is missing there."""

    conversation: str = ""
    """As in messages; empty: all of them, and what belongs to none."""


class ClientReceipt(_Given, frozen=True):
    """What the app on a device saw of a push."""

    mid: str
    """The message's id, which the push carries as ``mid``."""

    user: str
    device: str
    event: Literal["delivered", "clicked"]
    at_ms: int = 0


# ---- what is given and answered alike


class QuietHours(_Given, frozen=True):
    """A part of each day, by the clock on the wall; an end before its start lies on the next day."""

    start: str
    """As ``22:00`` or ``22:00:30``."""

    end: str | None = None
    duration_s: int | None = None
    """In place of an end, 1 to 86,400: all day."""


class DoNotDisturb(_Given, frozen=True):
    """When a user gets no pushes, and which come all the same."""

    daily: tuple[QuietHours, ...] = ()
    """At most 16, none over another."""

    time_zone: str = ""
    """IANA name, by whose clock ``daily`` goes; empty: the device's, UTC where it reports none."""

    until_ms: int = 0
    """Not before then; 0: no such time."""

    calls_pass: bool = True
    mentions_pass: bool = False


class Sounds(_Given, frozen=True):
    """How messages sound: a file that the app ships, with its suffix; empty: silence; None: as the account has it."""

    single: str | None = None
    """In single chats."""

    group: str | None = None
    """In groups and channels."""


class Preferences(_Given, frozen=True):
    """What a user wants of pushes altogether; the defaults are those of a user who never said anything."""

    push: bool = True
    """False: none but forced ones."""

    do_not_disturb: DoNotDisturb = DoNotDisturb()
    hide_text: bool = False
    """Show that there is a message, not what it says nor who wrote it."""

    sound: Sounds = Sounds()


# ---- what is answered


class DeviceChannel(_Shown, frozen=True):
    """A push token as it is shown: never the token itself."""

    vendor: str
    credential: str
    kind: str
    region: str
    token_fingerprint: str
    """Tells tokens apart, also in logs; addresses nothing."""

    registered_at_ms: int
    quarantined_until_ms: int
    """Until when the channel is passed over."""


class Device(_Shown, frozen=True):
    """A device as the fleet knows it."""

    state: str
    """One of :data:`StateName`, or ``unknown`` before the first report."""

    state_at_ms: int
    lease_until_ms: int
    """Until when a foreground report holds."""

    unread: int
    """What the badge counts on from."""

    notifications: bool
    locale: str
    time_zone: str
    platform: str
    maker: str
    os_version: str
    app_version: str
    channels: tuple[DeviceChannel, ...]


class Registered(_Shown, frozen=True):
    """What became of a registration."""

    applied: bool
    """False when the device had registered later than this already."""

    device: Device


class Reported(_Shown, frozen=True):
    """What became of reports; the counts add up to those given."""

    applied: int = 0
    outdated: int = 0
    """Older than what was known; they change nothing."""

    unknown: int = 0
    """Of devices that are not registered; they change nothing."""


class Confirmed(_Shown, frozen=True):
    """What became of confirmations; the counts add up to those given."""

    applied: int = 0
    outdated: int = 0
    """More was confirmed before; they change nothing."""

    unknown: int = 0
    """Of devices that are not registered; they change nothing."""


class PushVerdict(_Shown, frozen=True):
    """Whether a push to a device would go now."""

    goes: bool
    channel: str
    """``<vendor>:<credential>:<kind of token>`` by which; empty: by none."""

    reason: str
    """Why not, one of ``docs/decisions.md``; empty where it would go."""

    message: str
    """The reason in a sentence."""

    parked: bool = False
    """It would wait, and go unless it is confirmed that the device has the message."""


class DeviceJudged(Device, frozen=True):
    """A device, and what would become of a push to it now."""

    push: PushVerdict


class ReceiveOption(_Shown, frozen=True):
    """What a user wants from a conversation."""

    receive: str
    """One of :data:`Receive`."""

    until_ms: int
    """When a mute ends."""


class User(_Shown, frozen=True):
    """What is known of a user; all of it empty for one that was never heard of."""

    devices: dict[str, DeviceJudged]
    receive_options: dict[str, ReceiveOption]
    """By conversation; ``all`` is not listed."""

    erasing_since_ms: int = 0
    """Since when the user is being erased, and something of them may be left, Unix milliseconds; 0: they are not."""


class ReceiptsRecorded(_Shown, frozen=True):
    """What became of receipts; the counts add up to those given."""

    recorded: int = 0
    repeated: int = 0
    """Recorded before, some minutes ago at most; they change nothing."""


class Death(_Shown, frozen=True):
    """What became of a token that its vendor called dead; the same may be told twice, with the same id and fate."""

    id: str
    """The same for all that becomes of one token, device and registration."""

    fate: str
    """``dropped``, ``quarantined``, ``restored`` or ``reported``."""

    at_ms: int
    """When the fleet heard of it."""

    vendor: str
    credential: str
    token_fingerprint: str
    token_sha256: str
    """In hexadecimal: who keeps tokens finds theirs by it."""

    cursor: str = ""
    """Its place in the order."""

    user: str = ""
    """Empty for a token that was addressed directly; so is ``device``."""

    device: str = ""
    kind: str = ""
    code: str = ""
    """The vendor's own code."""

    since_ms: int = 0
    """When the vendor noticed the death; 0: it does not say."""

    registered_at_ms: int = 0


class DeathPage(_Shown, frozen=True):
    """What became of dead tokens, in order; a page may be empty with more to come."""

    deaths: tuple[Death, ...]
    cursor: str
    """Where the next page begins."""

    more: bool
    """Whether there is more already."""


class DeathsRestored(_Shown, frozen=True):
    """What came of bringing dead tokens back; the counts add up to the deaths that were meant."""

    restored: int = 0
    """Back, or passed over no more; in a dry run: that could be tried."""

    unknown: int = 0
    """Restored before, or nothing is left to restore."""

    no_device: int = 0
    """The device is gone."""

    outdated: int = 0
    """The device has registered since."""

    taken: int = 0
    """Another user has the token now."""

    more: bool = False
    """Whether the limit left some out: repeat it."""


class AccountDeaths(_Shown, frozen=True):
    """How an account stands that has tokens which are passed over, or whose guard has tripped."""

    vendor: str
    credential: str
    guarded_since_ms: int
    """When its guard tripped; 0: it has not."""

    quarantined: int
    """Tokens that are passed over."""

    window_deaths: int
    """Undated deaths lately."""

    window_accepted: int
    """Pushes that were accepted in the same time."""


class AccountsWithDeaths(_Shown, frozen=True):
    """Those accounts of the app."""

    accounts: tuple[AccountDeaths, ...]


class DeathsDecided(_Shown, frozen=True):
    """What came of a decision on an account's tokens that are passed over."""

    dropped: int = 0
    restored: int = 0
    other: int = 0
    """Registered anew, removed, or decided before."""

    more: bool = False
    """Whether some are left: repeat it. The guard holds until then."""
