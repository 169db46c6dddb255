"""What travels through the ledger: a push, its deliveries, and the parcel that binds them."""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec
from msgspec import Struct

from pushfleet.message import Kind, Lane, OfflinePush

__all__ = [
    "Delivery",
    "Parcel",
    "Parking",
    "Push",
    "PutOff",
    "TokenKind",
    "Wait",
    "delivery_id",
    "fingerprint",
    "sent_id",
    "shared_id",
]


TokenKind = Literal["alert", "voip", "fid"]
"""What a token is for: notifications, calls (APNs), or notifications of an installation (FCM)."""

Wait = Literal["", "held", "storm", "cap"]
"""Why a push was not put at once."""

Parking = Literal["", "parked", "released"]
"""Whether a push waits for the backend to confirm that its devices have the message, or goes as that did not come."""


class Push(Struct, frozen=True, array_like=True):
    """What all deliveries of a parcel share, text already composed. Its repr does not show what it says.

    Array-like on the wire: new fields are appended, with a default.
    """

    app: str
    message_id: str
    kind: Kind
    lane: Lane
    title: str
    body: str
    expires_at_ms: int
    """Unix milliseconds after which the push makes no sense."""

    sent_at_ms: int
    enqueued_at_ms: int
    """When the ingress entry was written, by Redis' clock; end-to-end latency counts from here."""

    conversation_id: str = ""
    replace_key: str = ""
    """A later push with the same key replaces this one on screen; empty: none."""

    ext: str = ""
    options: OfflinePush | None = None
    """Per-message overrides, as the backend gave them."""

    group: bool = False
    sender_name: str = ""
    revision: int = 0
    """How often what this message shows was changed: a replacement is no repeat of what it replaces."""

    recall: bool = False
    """Takes back what an earlier revision of this message showed; the texts say so where it can only be replaced."""

    later: Wait = ""
    """Why it was put for later; whoever claims it then decides and composes again."""

    hidden: bool = False
    """The users of its deliveries hide what messages say: the texts tell that there is one and nothing more."""

    sound: str | None = None
    """What the users of its deliveries chose: a file of the app with its suffix; empty: silence; None: nothing."""

    is_count: bool = False
    """Its text says how many messages there are, and no word of any: what it said itself is gone."""

    parking: Parking = ""
    """A parked one is claimed to ask whether it is to go. It takes no permit of the account's rate and cannot leave."""

    tells: int = 1
    """Of how many messages its text tells."""

    confirmed_ms: int = 0
    """Of what was parked: until when its device had everything as it was released."""

    def __repr__(self) -> str:
        return f"Push({self.app}/{self.message_id}, {self.kind}, {self.lane})"

    @property
    def variant(self) -> tuple[object, ...]:
        """What may differ between pushes of one message that have been decided again."""
        told = self.title, self.body, self.hidden, self.is_count, self.tells, self.sent_at_ms
        return *told, self.expires_at_ms, self.later, self.parking, self.confirmed_ms

    @property
    def tells_of_others(self) -> bool:
        """Whether it waited for other messages to tell of: until when those make sense is known once it is composed."""
        return self.later in ("storm", "cap")

    @property
    def passes_foreground(self) -> bool:
        """Whether it goes to devices in the foreground too: it was parked for as long as something urgent may be."""
        return self.parking != "" and self.lane == "urgent"


class Delivery(Struct, array_like=True):
    """One message to one device. Array-like on the wire: new fields are appended, with a default."""

    id: bytes
    """Sixteen bytes, see :func:`delivery_id`; as a UUID it is the vendor's message id."""

    user: str
    """Empty for a device that was addressed directly."""

    device: str
    token: str
    registered_at_ms: int
    badge: int = -1
    """Absolute badge; -1: leave the badge as it is."""

    token_kind: str = "alert"
    """``alert``, ``voip`` or ``fid``."""

    attempt: int = 0
    """How many answers or failures this delivery has seen."""

    remedy: str = ""
    """The remedy already used, if any."""

    unknown: int = 0
    """How many attempts ended without our knowing whether the vendor took the push."""

    mention: bool = False
    """The user is mentioned in it."""

    forced: bool = False
    """The backend asked for a push whatever the user muted or sees."""

    tried: list[str] = []
    """Names of the device's channels that could not deliver it; the others are left."""

    tries: int = 0
    """How many requests have left with it, as far as we know; a process that died had it in hand as well."""

    counted: bool = False
    """The badge is the device's base and what the fleet counted since: later it may be another one."""

    def __repr__(self) -> str:
        return f"Delivery(id={self.id.hex()}, device={self.device!r}, attempt={self.attempt})"


class PutOff(Struct, frozen=True, array_like=True):
    """What is known of deliveries that could not leave in time, so that they are not asked about for ever."""

    decided_ms: int = 0
    """When it was decided on them again; 0: it was not."""

    lost: int = 0
    """How often a process had died with them by then."""

    counted_day: int = 0
    """The vendor's day on which caps of devices counted them; negative: on which nobody could; 0: none did."""


class Parcel(Struct, array_like=True):
    """Deliveries of one account that are claimed together. Array-like: new fields are appended."""

    push: Push
    deliveries: list[Delivery]
    put_off: PutOff | None = None
    """None for nearly all: they leave when they are claimed."""

    gated: bool = False
    """It waits for what the vendor asked of its account or of a kind of messages, not for a reason of its own."""

    def __repr__(self) -> str:
        return f"Parcel({self.push.app}/{self.push.message_id}, {len(self.deliveries)} deliveries)"


_DELIVERY = blake2b(digest_size=16, person=b"pushfleet-dlvry")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Parcel)


def encode_parcel(parcel: Parcel) -> bytes:
    """The msgpack form of *parcel*, as it lies in the ledger."""
    return _encoder.encode(parcel)


def decode_parcel(data: bytes) -> Parcel:
    """The parcel in *data*; raises :class:`msgspec.DecodeError`."""
    return _decoder.decode(data)


def delivery_id(app: str, message_id: str, user: str, device: str) -> bytes:
    """Sixteen bytes, the same in every process, shaped as a UUID (version 8, RFC 9562)."""
    name = "\0".join([app, str(len(message_id)), message_id, str(len(user)), user, device])
    return _uuid(name.encode(errors="surrogatepass"))


def _uuid(name: bytes) -> bytes:
    digest = _DELIVERY.copy()
    digest.update(name)
    raw = bytearray(digest.digest())
    raw[6] = (raw[6] & 0x0F) | 0x80
    raw[8] = (raw[8] & 0x3F) | 0x80
    return bytes(raw)


def sent_id(push: Push, delivery: Delivery) -> bytes:
    """The vendor's message id of *delivery*: sixteen bytes, the same for a repeat, another for a new revision."""
    if not push.revision:
        return delivery.id
    return _uuid(b"%b\0%d" % (delivery.id, push.revision))


def shared_id(push: Push) -> bytes:
    """The vendor's message id where one request serves many devices: as :func:`sent_id`, made from the message."""
    return _uuid(f"{push.app}\0{push.message_id}\0{push.revision}".encode(errors="surrogatepass"))


def fingerprint(token: str) -> str:
    """A short form of *token* that may be logged: it identifies, but does not address."""
    return blake2b(token.encode(errors="surrogatepass"), digest_size=6).hexdigest()
