"""The contract between an IM backend and the fleet: one offline message and whom it is for, and taking it back.

Evolution rules, held by tests: a new field has a default; no field changes its type or meaning;
unknown fields are skipped. So older and newer processes read each other's entries.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import force_setattr

__all__ = [
    "AndroidOptions",
    "ApnsOptions",
    "Conversation",
    "Element",
    "FcmOptions",
    "HarmonyOptions",
    "HonorOptions",
    "HuaweiOptions",
    "Kind",
    "Lane",
    "MeizuOptions",
    "OfflineMessage",
    "OfflinePush",
    "OppoOptions",
    "Recall",
    "Recipient",
    "Sender",
    "Target",
    "VivoOptions",
    "XiaomiOptions",
]

ID_BYTES_MAX = 256
"""Longest id of a message, user, conversation or app, in UTF-8 bytes."""

TEXT_BYTES_MAX = 16_384
"""Longest single text, in UTF-8 bytes; what is shown is cut further to each vendor's limit."""

EXT_BYTES_MAX = 2_048
"""Longest ``ext``, in UTF-8 bytes. It is never cut: a vendor that has less room gets none of it (docs/contract.md)."""

TOKEN_BYTES_MAX = 4_096
"""Longest push token of a target, in UTF-8 bytes: no vendor promises a length."""

PART_RECIPIENTS_MAX = 500
"""Most recipients and targets of one stream entry. Part ids depend on it: it never changes."""

SENT_MS_MIN = 946_684_800_000
"""The year 2000, Unix milliseconds: no message is older. Seconds taken for milliseconds are of 1970."""

SENT_AHEAD_MS_MAX = 86_400_000
"""How far ahead of a producer's clock a message may have been written: that clock may be the wrong one."""

LARGE_GROUP_RECIPIENTS = 100
"""From this many recipients on, a chat message travels in the ``bulk`` lane."""

DEFAULT_TTL_S = 86_400
CALL_TTL_S = 30

Kind = Literal["chat", "mention", "call", "call_cancel", "missed_call", "summary", "system", "official", "marketing"]
Lane = Literal["urgent", "normal", "bulk"]
LANES: tuple[Lane, ...] = ("urgent", "normal", "bulk")
"""The lanes in order of urgency."""

_URGENT_KINDS = frozenset({"mention", "call", "call_cancel", "missed_call"})
_BULK_KINDS = frozenset({"official", "marketing"})
_SHORT_LIVED_KINDS = frozenset({"call", "call_cancel"})
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What apps, vendors and credentials may be called."""

_SURELY_FITS_AN_ID = ID_BYTES_MAX // 4
"""A character has at most four bytes: most ids need no encoding to be known as short enough."""


Seconds = Annotated[int, Meta(ge=0, le=2_419_200)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Millis = Annotated[int, Meta(ge=0, le=253_402_300_799_999)]
"""Unix milliseconds up to the year 9999: what every reader's integers and doubles can hold."""

Share = Annotated[float, Meta(ge=0, le=1)]

# What `__post_init__` checks with sentences of its own is only told to the schema here. The limits are in bytes,
# JSON Schema counts characters: its bound is the wider one.
Id = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": ID_BYTES_MAX})]
Key = Annotated[str, Meta(extra_json_schema={"maxLength": ID_BYTES_MAX})]
Text = Annotated[str, Meta(extra_json_schema={"maxLength": TEXT_BYTES_MAX})]
Ext = Annotated[str, Meta(extra_json_schema={"maxLength": EXT_BYTES_MAX})]
Token = Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": TOKEN_BYTES_MAX})]
Name = Annotated[str, Meta(extra_json_schema={"pattern": f"^{NAME.pattern}$"})]


class _Hidden:
    """Stands for a text or token wherever an object is shown."""

    def __repr__(self) -> str:
        return "…"


class _Part(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of all parts of the contract: immutable, defaults left out of the JSON, texts never shown."""

    _private: ClassVar[frozenset[str]] = frozenset()
    _class_fields: ClassVar[frozenset[str]] = frozenset()
    """With which a message says itself what class, channel or template a vendor counts it in."""

    def names_class(self) -> bool:
        """Whether the vendor's class of the message comes from here, not from the account's settings."""
        return any(getattr(self, field) not in (None, {}) for field in self._class_fields)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The fields that differ from their defaults, as reprs, rich and log records may show them."""
        fields = ((field, getattr(self, field.name)) for field in msgspec.structs.fields(self))
        return [
            (field.name, _Hidden() if field.name in self._private else value)
            for field, value in fields
            if value != field.default
        ]


class Sender(_Part, frozen=True):
    """Who wrote the message."""

    _private: ClassVar[frozenset[str]] = frozenset({"name", "avatar"})

    id: Id
    """The user's id."""

    name: Text = ""
    """Shown before the text of a single chat; a group card goes here too."""

    avatar: Text = ""
    """An https address, for apps that draw the notification themselves."""

    def __post_init__(self) -> None:
        _check_id("sender.id", self.id)
        _check_text("sender.name", self.name, TEXT_BYTES_MAX)
        # Decoding runs this for every message, here and below: what is absent costs no call.
        if self.avatar != "":
            _check_text("sender.avatar", self.avatar, TEXT_BYTES_MAX)


class Conversation(_Part, frozen=True):
    """Where the message was written."""

    _private: ClassVar[frozenset[str]] = frozenset({"name"})

    id: Id
    """Unique within the app. Reads, mute and the replace key go by it."""

    kind: Literal["single", "group", "channel"] = "single"
    """Decides how sender, conversation name and text are put together."""

    name: Text = ""
    """Shown before the text in groups and channels."""

    def __post_init__(self) -> None:
        _check_id("conversation.id", self.id)
        if self.name != "":
            _check_text("conversation.name", self.name, TEXT_BYTES_MAX)


class Recipient(_Part, frozen=True):
    """A user the message is for, with what only the backend knows about them."""

    id: Id
    """The user's id."""

    unread: Count | None = None
    """The user's total unread number with this message; becomes the badge as it is."""

    mention: bool = False
    """This user is mentioned: passes "only mentions"."""

    push: Literal["auto", "never", "force"] = "auto"
    """``force`` passes what the user wants and the foreground, ``never`` pushes nothing; ``auto`` decides by both."""

    def __post_init__(self) -> None:
        _check_id("recipients[].id", self.id)


class Target(_Part, frozen=True):
    """One device addressed directly, past state, preferences and badge."""

    _private: ClassVar[frozenset[str]] = frozenset({"token"})

    vendor: Name
    """``apns fcm huawei harmony honor xiaomi oppo vivo meizu tpns``, or one that a plug-in adds."""

    credential: Name
    """Which of the vendor's credentials, as named in the fleet's settings."""

    token: Token
    """The push token, as the vendor's SDK gave it to the app."""

    def __post_init__(self) -> None:
        _check_name("targets[].vendor", self.vendor)
        _check_name("targets[].credential", self.credential)
        _check_text("targets[].token", self.token, TOKEN_BYTES_MAX)
        if not self.token:
            raise ValueError("targets[].token is empty")


class Element(_Part, frozen=True):
    """One piece of an IM message; the fleet composes the push text from its elements, in order."""

    _private: ClassVar[frozenset[str]] = frozenset({"text", "desc"})

    type: Key
    """``text image sound video file location face merged custom``; others show as a neutral text."""

    text: Text = ""
    """The text of a ``text`` element."""

    desc: Text = ""
    """What a ``custom`` element shows; without it a lone custom element pushes nothing."""

    def __post_init__(self) -> None:
        _check_text("elements[].type", self.type, ID_BYTES_MAX)
        _check_text("elements[].text", self.text, TEXT_BYTES_MAX)
        if self.desc != "":
            _check_text("elements[].desc", self.desc, TEXT_BYTES_MAX)


class ApnsOptions(_Part, frozen=True):
    """What only APNs understands."""

    _private: ClassVar[frozenset[str]] = frozenset(
        {"title", "subtitle", "title_loc_args", "subtitle_loc_args", "loc_args"}
    )
    _class_fields: ClassVar[frozenset[str]] = frozenset({"push_type"})

    title: str | None = None
    """Replaces the title on iOS."""

    subtitle: str | None = None
    """A second line under the title."""

    sound: str | None = None
    """A file in the app bundle with its suffix; ``""`` for silence; absent for the default sound."""

    badge_mode: Literal["count", "ignore"] = "count"
    """``ignore``: this message does not count in the badge."""

    image: str | None = None
    """An https address, handed to the app's notification service extension."""

    mutable_content: bool = False
    """Lets the app's notification service extension change the push before it is shown."""

    category: str | None = None
    """Names the actions that the app registered for this kind of notification."""

    interruption_level: Literal["passive", "active", "time-sensitive", "critical"] | None = None
    """How much the push may interrupt the user."""

    push_type: Literal["alert", "background", "voip"] | None = None
    """``voip`` goes to the device's VoIP token, ``background`` wakes the app without showing anything."""

    title_loc_key: str | None = None
    """Names a text of the app, which iOS shows as title in the device's language."""

    title_loc_args: tuple[str, ...] = ()
    """What fills the ``%@`` of that text, in order."""

    subtitle_loc_key: str | None = None
    """As ``title_loc_key``, for the subtitle."""

    subtitle_loc_args: tuple[str, ...] = ()
    """What fills the ``%@`` of that text, in order."""

    loc_key: str | None = None
    """As ``title_loc_key``, for the text of the push."""

    loc_args: tuple[str, ...] = ()
    """What fills the ``%@`` of that text, in order."""

    thread_id: str | None = None
    """What iOS stacks the push with, instead of its conversation."""

    relevance_score: Share | None = None
    """Which push of the app heads a summary: 0 to 1, the highest first."""

    critical_volume: Share | None = None
    """How loud a critical push sounds: 0 to 1; absent: full volume."""


class AndroidOptions(_Part, frozen=True):
    """What several Android vendors understand."""

    sound: str | None = None
    """A raw resource without suffix."""

    style: Literal["default", "big_text"] = "default"
    """``big_text`` shows the whole text when the notification is opened up."""


class HuaweiOptions(_Part, frozen=True):
    """What only Huawei understands; set fields win over the account's settings."""

    _class_fields: ClassVar[frozenset[str]] = frozenset({"category", "channel_id", "importance"})

    channel_id: str | None = None
    """The notification channel."""

    category: str | None = None
    """The message class, for example ``IM``."""

    importance: Literal["LOW", "NORMAL"] | None = None
    """``LOW`` is shown quietly."""

    image: str | None = None
    """An https address, at most 512 KB."""

    ext_as_intent_param: bool = False
    """``ext`` reaches the app as an intent parameter instead of an action parameter."""


class HonorOptions(_Part, frozen=True):
    """What only Honor understands."""

    _class_fields: ClassVar[frozenset[str]] = frozenset({"importance"})

    importance: Literal["LOW", "NORMAL"] | None = None
    """``NORMAL`` for service and communication, ``LOW`` for marketing."""

    image: str | None = None
    """An https address of a small picture."""


class XiaomiOptions(_Part, frozen=True):
    """What only Xiaomi understands."""

    _private: ClassVar[frozenset[str]] = frozenset({"template_params"})
    _class_fields: ClassVar[frozenset[str]] = frozenset({"channel_id", "template_id", "template_params"})

    channel_id: str | None = None
    """The notification channel; without one nothing arrives on Android 8 and later."""

    template_id: str | None = None
    """A text template approved by the vendor."""

    template_params: dict[str, str] | None = None
    """What fills the template."""


class OppoOptions(_Part, frozen=True):
    """What only OPPO understands."""

    _private: ClassVar[frozenset[str]] = frozenset({"title_params", "content_params"})
    _class_fields: ClassVar[frozenset[str]] = frozenset(
        {"category", "channel_id", "content_params", "notify_level", "template_id", "title_params"}
    )

    channel_id: str | None = None
    """The notification channel."""

    category: str | None = None
    """The message class, for example ``IM``."""

    notify_level: Literal[1, 2, 16] | None = None
    """1 bar, 2 bar and lock screen, 16 banner, vibration and sound as well; needs ``category``."""

    template_id: str | None = None
    """A private-message template approved by the vendor."""

    title_params: dict[str, str] | None = None
    """What fills the template's title."""

    content_params: dict[str, str] | None = None
    """What fills the template's text."""


class VivoOptions(_Part, frozen=True):
    """What only vivo understands."""

    _class_fields: ClassVar[frozenset[str]] = frozenset({"category", "classification", "notify_type"})

    category: str | None = None
    """The message class, for example ``IM``."""

    classification: Literal[0, 1] | None = None
    """0 operation, 1 system; ``category`` supersedes it."""

    notify_type: Literal[1, 2, 3, 4] | None = None
    """1 none, 2 sound, 3 vibration, 4 both; newer Androids go by the channel."""


class MeizuOptions(_Part, frozen=True):
    """What only Meizu understands."""

    _class_fields: ClassVar[frozenset[str]] = frozenset({"notice_type"})

    notice_type: Literal[0, 1] | None = None
    """0 public, 1 private (IM)."""


class HarmonyOptions(_Part, frozen=True):
    """What only HarmonyOS understands."""

    _class_fields: ClassVar[frozenset[str]] = frozenset({"category"})

    category: str | None = None
    """The message class, for example ``IM``."""

    image: str | None = None
    """An https address."""

    ignore_badge: bool = False
    """This message does not count in the badge."""


class FcmOptions(_Part, frozen=True):
    """What only FCM understands."""

    channel_id: str | None = None
    """The notification channel."""

    image: str | None = None
    """An https address, at most 1 MB."""

    priority: Literal["high", "normal"] | None = None
    """``high`` wakes a sleeping device."""

    form: Literal["data", "notification"] | None = None
    """``data`` is handed to the app, ``notification`` is shown by the system."""


class OfflinePush(_Part, frozen=True):
    """How the push should look; every field may be left out."""

    _private: ClassVar[frozenset[str]] = frozenset({"title", "desc", "ext"})

    disabled: bool = False
    """Never push this message."""

    title: Text | None = None
    """Replaces the composed title."""

    desc: Text | None = None
    """Replaces the text composed from the elements."""

    ext: Ext | None = None
    """Reaches the app's click handler unchanged, or, where a vendor has no room for it, not at all: `docs/contract.md`
    lists the sizes. Should be JSON."""

    apns: ApnsOptions | None = None
    """Only for APNs."""

    android: AndroidOptions | None = None
    """For all Android vendors that know the field."""

    huawei: HuaweiOptions | None = None
    """Only for Huawei."""

    honor: HonorOptions | None = None
    """Only for Honor."""

    xiaomi: XiaomiOptions | None = None
    """Only for Xiaomi."""

    oppo: OppoOptions | None = None
    """Only for OPPO."""

    vivo: VivoOptions | None = None
    """Only for vivo."""

    meizu: MeizuOptions | None = None
    """Only for Meizu."""

    harmony: HarmonyOptions | None = None
    """Only for HarmonyOS."""

    fcm: FcmOptions | None = None
    """Only for FCM."""

    def __post_init__(self) -> None:
        if self.title is not None:
            _check_text("offline_push.title", self.title, TEXT_BYTES_MAX)
        if self.desc is not None:
            _check_text("offline_push.desc", self.desc, TEXT_BYTES_MAX)
        if self.ext is not None:
            _check_text("offline_push.ext", self.ext, EXT_BYTES_MAX)


class OfflineMessage(_Part, frozen=True):
    """One IM message that some users must hear of although their app is not in front.

    Raises ``ValueError`` (from decoding: :class:`msgspec.ValidationError`) when a limit of the
    contract is broken; the text names the field, the limit and what was given.
    """

    id: Id
    """Unique within the app. Enqueueing the same id again within ten minutes changes nothing."""

    app: Name
    """The IM product, as named in the fleet's settings."""

    kind: Kind = "chat"
    """Decides lane, TTL and how hard the push may knock."""

    sender: Sender | None = None
    """Who wrote it; absent for messages of the system."""

    conversation: Conversation | None = None
    """Where it was written."""

    recipients: tuple[Id | Recipient, ...] = ()
    """The users, each an id or an object; a user named twice counts once. At most 500 in one stream entry."""

    targets: tuple[Target, ...] = ()
    """Devices addressed directly. Together with ``recipients`` at most 500 in one stream entry, at least one."""

    elements: tuple[Element, ...] = ()
    """What the push text is composed from."""

    title: Text | None = None
    """A finished title, instead of the composed one."""

    body: Text | None = None
    """A finished text, instead of ``elements``."""

    offline_push: OfflinePush | None = None
    """How the push should look."""

    sent_at_ms: Millis = 0
    """When the sender wrote it, Unix milliseconds; 0: when it was enqueued. The TTL counts from here."""

    ttl_s: Seconds | None = None
    """How long the push makes sense. Default: one day, calls 30 seconds."""

    lane: Lane | None = None
    """Default: by kind and number of recipients."""

    replace_key: Key | None = None
    """A later push with it replaces this one on screen, a ``call_cancel`` ends its calls. Default: the conversation."""

    online_only: bool = False
    """For users who are online; it is never pushed."""

    part: Annotated[int, Meta(ge=0, le=2_147_483_647)] = 0
    """Which part of a large message this is. Set by the producer when it cuts."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What identifies the message: no text, and its recipients only as a number."""
        shown = ("id", "app", "kind", "part")
        numbers = [("recipients", len(self.recipients)), ("targets", len(self.targets))]
        return [*((name, getattr(self, name)) for name in shown), ("lane", self.effective_lane), *numbers]

    def __post_init__(self) -> None:
        _check_id("id", self.id)
        _check_name("app", self.app)
        if self.sender is not None and not isinstance(self.sender, Sender):
            raise _wrong_type("sender", self.sender, Sender)
        if self.conversation is not None and not isinstance(self.conversation, Conversation):
            raise _wrong_type("conversation", self.conversation, Conversation)
        if self.offline_push is not None and not isinstance(self.offline_push, OfflinePush):
            raise _wrong_type("offline_push", self.offline_push, OfflinePush)
        _keep_as_tuple(self, "recipients", self.recipients, (str, Recipient))
        if self.targets != ():
            _keep_as_tuple(self, "targets", self.targets, Target)
        if self.elements != ():
            _keep_as_tuple(self, "elements", self.elements, Element)
        if not self.recipients and not self.targets:
            raise ValueError("recipients and targets are both empty: name at least one")
        for recipient in self.recipients:
            # Most ids of a broadcast pass here: a call for each would double the cost of a large message.
            if isinstance(recipient, str) and not 0 < len(recipient) <= _SURELY_FITS_AN_ID:
                _check_id("recipients[].id", recipient)
        if self.title is not None:
            _check_text("title", self.title, TEXT_BYTES_MAX)
        if self.body is not None:
            _check_text("body", self.body, TEXT_BYTES_MAX)
        if self.replace_key is not None:
            _check_text("replace_key", self.replace_key, ID_BYTES_MAX)

    @property
    def effective_lane(self) -> Lane:
        """The lane given, or the one that kind and number of recipients call for."""
        return self.lane or default_lane(self.kind, len(self.recipients) + len(self.targets))

    @property
    def effective_ttl_s(self) -> int:
        """The TTL given, or the default of the message's kind."""
        if self.ttl_s is not None:
            return self.ttl_s
        return CALL_TTL_S if self.kind in _SHORT_LIVED_KINDS else DEFAULT_TTL_S

    @property
    def effective_replace_key(self) -> str | None:
        """The replace key given, or the conversation's id, or nothing."""
        if self.replace_key is not None:
            return self.replace_key
        return self.conversation.id if self.conversation is not None else None


class Recall(_Part, frozen=True):
    """A message that is taken back: what has not left is stopped, what is still shown is withdrawn or replaced.

    Raises ``ValueError`` as :class:`OfflineMessage` does.
    """

    id: Id
    """The message's id."""

    app: Name
    """The message's app."""

    conversation: Key = ""
    """The message's conversation, or its ``replace_key`` where it had one; counts where the fleet has forgotten it."""

    recipients: tuple[Id, ...] = ()
    """Whose screens it is taken off; none: those that the fleet remembers. What has not left is stopped for everybody,
    named or not. At most 500 in one stream entry."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """What identifies the recall; its recipients only as a number."""
        return [("id", self.id), ("app", self.app), ("recipients", len(self.recipients))]

    def __post_init__(self) -> None:
        _check_id("id", self.id)
        _check_name("app", self.app)
        _check_text("conversation", self.conversation, ID_BYTES_MAX)
        _keep_as_tuple(self, "recipients", self.recipients, str)
        for recipient in self.recipients:
            _check_id("recipients[]", recipient)


def _keep_as_tuple(message: OfflineMessage | Recall, field: str, value: Any, wanted: Any) -> None:
    """Lets callers give a list; what has no order of its own is refused, part ids would not be stable."""
    if type(value) is not tuple:
        if not isinstance(value, list | tuple):
            raise _wrong_type(field, value, tuple)
        force_setattr(message, field, tuple(value))
    for number, one in enumerate(value):
        if not isinstance(one, wanted):
            raise _wrong_type(f"{field}[{number}]", one, wanted)


def _wrong_type(field: str, value: object, wanted: Any) -> ValueError:
    name = "str or Recipient" if isinstance(wanted, tuple) else wanted.__name__
    return ValueError(f"{field} must be of type {name}, not {type(value).__name__}")


def _check_id(field: str, value: str) -> None:
    if not isinstance(value, str):
        raise _wrong_type(field, value, str)
    if not value:
        raise ValueError(f"{field} is empty")
    if len(value) > _SURELY_FITS_AN_ID and len(value.encode(errors="replace")) > ID_BYTES_MAX:
        raise ValueError(f"{field} is longer than {ID_BYTES_MAX} bytes: {clip(value)}")


def _check_name(field: str, value: str) -> None:
    if not isinstance(value, str):
        raise _wrong_type(field, value, str)
    if not NAME.fullmatch(value):
        raise ValueError(
            f"{field} must be 1 to 64 of letters, digits, '.', '_', '-' and start with a letter or digit, "
            f"not {clip(value)}"
        )


def _check_text(field: str, value: str | None, limit: int) -> None:
    if value is None:
        return
    if not isinstance(value, str):
        raise _wrong_type(field, value, str)
    if len(value) * 4 > limit:
        size = len(value.encode(errors="replace"))
        if size > limit:
            raise ValueError(f"{field} has {size} bytes, the limit is {limit}")


def check_sent(sent_at_ms: int, now_ms: int) -> None:
    """Raise ``ValueError`` for a time that cannot be meant; routers take it at its word."""
    if 0 < sent_at_ms < SENT_MS_MIN:
        raise ValueError(f"sent_at_ms is {sent_at_ms}, which is before the year 2000: give milliseconds, not seconds")
    if sent_at_ms > now_ms + SENT_AHEAD_MS_MAX:
        raise ValueError(f"sent_at_ms is {sent_at_ms}, which is more than a day ahead of this clock")


def default_lane(kind: Kind, people: int) -> Lane:
    """The lane of a message of *kind* to so many recipients and targets that names none itself."""
    if kind in _URGENT_KINDS:
        return "urgent"
    if kind in _BULK_KINDS or people >= LARGE_GROUP_RECIPIENTS:
        return "bulk"
    return "normal"


def clip(value: str, length: int = 40) -> str:
    """A short printable form of *value* for error texts, its full length named when it was cut."""
    if len(value) <= length:
        return repr(value)
    return f"{value[:length]!r}… ({len(value)} characters)"


def schema(contract: type[OfflineMessage | Recall] = OfflineMessage) -> dict[str, object]:
    """The JSON Schema (draft 2020-12) of *contract*, as published in ``docs/``."""
    (root,), components = msgspec.json.schema_components([contract], ref_template="#/$defs/{name}")
    documented = _field_docs()
    for name, component in components.items():
        component["description"] = _prose(component.get("description", ""))
        for field, text in documented[name].items():
            component["properties"][field]["description"] = text
    if contract is OfflineMessage:
        components["OfflineMessage"]["anyOf"] = [
            {"required": [field], "properties": {field: {"minItems": 1}}} for field in ("recipients", "targets")
        ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": contract.__name__,
        **root,
        "$defs": components,
    }


def _field_docs() -> dict[str, dict[str, str]]:
    """By class and field: the docstring under the field. Python keeps these only in the source."""
    documented: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[__name__])).body:
        if isinstance(node, ast.ClassDef):
            documented[node.name] = {
                field.target.id: _prose(said.value.value)
                for field, said in zip(node.body, node.body[1:], strict=False)
                if isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(said, ast.Expr)
                and isinstance(said.value, ast.Constant)
                and isinstance(said.value.value, str)
            }
    return documented


def _prose(docstring: str) -> str:
    """The first paragraph of *docstring* on one line, in Markdown."""
    return " ".join(docstring.strip().split("\n\n", 1)[0].split()).replace("``", "`")
