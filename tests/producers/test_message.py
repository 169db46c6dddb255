import time
from collections.abc import Callable
from typing import Any

import pytest

from pushfleet import wire
from pushfleet.errors import InvalidMessage
from pushfleet.message import (
    EXT_BYTES_MAX,
    ID_BYTES_MAX,
    LARGE_GROUP_RECIPIENTS,
    SENT_MS_MIN,
    TEXT_BYTES_MAX,
    TOKEN_BYTES_MAX,
    ApnsOptions,
    Conversation,
    Element,
    FcmOptions,
    HarmonyOptions,
    HonorOptions,
    HuaweiOptions,
    Kind,
    Lane,
    MeizuOptions,
    OfflineMessage,
    OfflinePush,
    OppoOptions,
    Recipient,
    Sender,
    Target,
    VivoOptions,
    XiaomiOptions,
)
from pushfleet.transfer import Policy, prepare

POLICY = Policy(
    prefix="pushfleet",
    linger_ms=0,
    ingress_max=1_000,
    memory_mark=0.7,
    wait_replicas=0,
    wait_timeout_ms=1_000,
    socket_timeout_s=5,
)


def a_message(**fields: Any) -> OfflineMessage:
    return OfflineMessage(**{"id": "m1", "app": "chat", "recipients": ("bob",), "body": "Lunch?", **fields})


REFUSED_BY_THE_CONSTRUCTOR: dict[str, tuple[Callable[[], object], str]] = {
    "nobody": (lambda: a_message(recipients=()), "recipients and targets are both empty: name at least one"),
    "empty id": (lambda: a_message(id=""), "id is empty"),
    "long id": (lambda: a_message(id="m" * 257), r"id is longer than 256 bytes: 'mmmm.*… \(257 characters\)"),
    "long id in bytes": (lambda: a_message(id="午" * 86), "id is longer than 256 bytes"),
    "huge id": (lambda: a_message(id="m" * 1_000_000), r"id is longer than 256 bytes: .*1000000 characters"),
    "id of bytes": (lambda: a_message(id=b"m1"), "id must be of type str, not bytes"),
    "app with a space": (lambda: a_message(app="my app"), "app must be 1 to 64 of letters, .* not 'my app'"),
    "app with a newline": (lambda: a_message(app="chat\n"), r"app must be .* not 'chat\\n'"),
    "app as a number": (lambda: a_message(app=7), "app must be of type str, not int"),
    "one name as recipients": (lambda: a_message(recipients="bob"), "recipients must be of type tuple, not str"),
    "a set of recipients": (lambda: a_message(recipients={"bob"}), "recipients must be of type tuple, not set"),
    "a number among recipients": (
        lambda: a_message(recipients=("bob", 7)),
        r"recipients\[1\] must be of type str or Recipient, not int",
    ),
    "an empty recipient": (lambda: a_message(recipients=("bob", "")), r"recipients\[\]\.id is empty"),
    "an empty Recipient": (lambda: Recipient(id=""), r"recipients\[\]\.id is empty"),
    "a long recipient": (lambda: a_message(recipients=("b" * 257,)), r"recipients\[\]\.id is longer than 256 bytes"),
    "sender as a dict": (lambda: a_message(sender={"id": "a"}), "sender must be of type Sender, not dict"),
    "sender without id": (lambda: Sender(id=""), r"sender\.id is empty"),
    "conversation as text": (
        lambda: a_message(conversation="c1"),
        "conversation must be of type Conversation, not str",
    ),
    "conversation without id": (lambda: Conversation(id=""), r"conversation\.id is empty"),
    "push as a dict": (lambda: a_message(offline_push={}), "offline_push must be of type OfflinePush, not dict"),
    "element as text": (lambda: a_message(elements=("hi",)), r"elements\[0\] must be of type Element, not str"),
    "long text": (
        lambda: Element(type="text", text="x" * 16_385),
        r"elements\[\]\.text has 16385 bytes, the limit is 16384",
    ),
    "long text in bytes": (
        lambda: a_message(body="🍜" * 4_097),
        "body has 16388 bytes, the limit is 16384",
    ),
    "long title": (lambda: a_message(title="x" * 20_000), "title has 20000 bytes, the limit is 16384"),
    "title as a number": (lambda: a_message(title=7), "title must be of type str, not int"),
    "long ext": (lambda: OfflinePush(ext="x" * 2_049), r"offline_push\.ext has 2049 bytes, the limit is 2048"),
    "long replace key": (lambda: a_message(replace_key="k" * 300), "replace_key has 300 bytes, the limit is 256"),
    "empty token": (
        lambda: Target(vendor="apns", credential="prod", token=""),
        r"targets\[\]\.token is empty",
    ),
    "long token": (
        lambda: Target(vendor="apns", credential="prod", token="t" * 5_000),
        r"targets\[\]\.token has 5000 bytes, the limit is 4096",
    ),
    "vendor with a slash": (
        lambda: Target(vendor="a/b", credential="prod", token="t"),
        r"targets\[\]\.vendor must be 1 to 64 of letters, .* not 'a/b'",
    ),
}

# The constructor of a Struct takes these as they are; they are found before anything is sent.
REFUSED_WHEN_ENQUEUED: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown kind": (lambda: a_message(kind="telegram"), r"Invalid enum value 'telegram' - at `\$\.kind`"),
    "unknown lane": (lambda: a_message(lane="fast"), r"Invalid enum value 'fast' - at `\$\.lane`"),
    "negative ttl": (lambda: a_message(ttl_s=-1), r"Expected `int` >= 0 - at `\$\.ttl_s`"),
    "ttl beyond four weeks": (lambda: a_message(ttl_s=2_419_201), r"`int` <= 2419200 - at `\$\.ttl_s`"),
    "ttl as text": (lambda: a_message(ttl_s="60"), r"Expected `int \| null`, got `str` - at `\$\.ttl_s`"),
    "ttl as a fraction": (lambda: a_message(ttl_s=0.5), r"got `float` - at `\$\.ttl_s`"),
    "time in seconds": (
        lambda: a_message(sent_at_ms=1_764_500_000),
        "^sent_at_ms is 1764500000, which is before the year 2000: give milliseconds, not seconds$",
    ),
    "time just before 2000": (lambda: a_message(sent_at_ms=SENT_MS_MIN - 1), "before the year 2000"),
    "time in microseconds": (lambda: a_message(sent_at_ms=1_764_500_000_000_000), r"at `\$\.sent_at_ms`"),
    "time two days ahead": (
        lambda: a_message(sent_at_ms=int(time.time() * 1000) + 172_800_000),
        r"sent_at_ms is \d{13}, which is more than a day ahead of this clock",
    ),
    "time before 1970": (lambda: a_message(sent_at_ms=-1), r"`int` >= 0 - at `\$\.sent_at_ms`"),
    "time in nanoseconds": (lambda: a_message(sent_at_ms=10**18), r"`int` <= 253402300799999 - at `\$\.sent_at_ms`"),
    "time beyond any integer": (lambda: a_message(sent_at_ms=2**80), r"`int` <= 253402300799999 - at `\$\.sent_at_ms`"),
    "online_only as a number": (lambda: a_message(online_only=1), r"got `int` - at `\$\.online_only`"),
    "negative unread": (
        lambda: a_message(recipients=(Recipient(id="bob", unread=-1),)),
        r">= 0 - at `\$\.recipients\[0\]\.unread`",
    ),
    "unknown option": (
        lambda: a_message(offline_push=OfflinePush(apns=ApnsOptions(badge_mode="add"))),  # type: ignore[arg-type]
        r"Invalid enum value 'add' - at `\$\.offline_push\.apns\.badge_mode`",
    ),
    "something JSON has no form for": (
        lambda: a_message(offline_push=OfflinePush(apns=ApnsOptions(sound=object()))),  # type: ignore[arg-type]
        "Encoding objects of type object is unsupported",
    ),
    "half a surrogate pair": (
        lambda: a_message(elements=[Element(type="text", text="\ud83c")]),
        r"half of a surrogate pair - at `\$\.elements\[0\]\.text`",
    ),
    "more than an entry holds": (
        lambda: a_message(elements=[Element(type="text", text="x" * TEXT_BYTES_MAX)] * 80),
        "one entry has 131.* bytes, the limit is 1048576: send fewer or shorter elements",
    ),
    "not a message": (lambda: {"id": "m1"}, "an OfflineMessage is expected, not dict"),
    "more parts than the stream may hold": (
        lambda: a_message(recipients=tuple(f"u{number}" for number in range(500_001))),
        "1001 parts and can never fit into a stream of ingress_max 1000",
    ),
    "a part that is none": (
        lambda: a_message(recipients=tuple(f"u{number}" for number in range(501)), part=3),
        "part is 3, but only a producer numbers the parts",
    ),
}


@pytest.mark.parametrize("case", REFUSED_BY_THE_CONSTRUCTOR)
def test_bad_input_is_refused_with_field_limit_and_what_was_given(case: str) -> None:
    make, sentence = REFUSED_BY_THE_CONSTRUCTOR[case]
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("case", REFUSED_WHEN_ENQUEUED)
def test_what_the_constructor_lets_through_is_refused_before_anything_is_sent(case: str) -> None:
    make, sentence = REFUSED_WHEN_ENQUEUED[case]
    with pytest.raises(InvalidMessage, match=sentence):
        prepare(make(), POLICY)


def test_a_value_at_its_limit_is_taken() -> None:
    at_the_limit = a_message(
        id="午" * 85 + "m",
        body="🍜" * (TEXT_BYTES_MAX // 4),
        offline_push=OfflinePush(ext="x" * EXT_BYTES_MAX),
        recipients=("b" * ID_BYTES_MAX,),
        targets=(Target(vendor="apns", credential="prod", token="t" * TOKEN_BYTES_MAX),),
        ttl_s=0,
    )
    assert wire.decode(wire.encode(at_the_limit)) == at_the_limit


@pytest.mark.parametrize("ahead_ms", [-86_400_000 * 365, 0, 86_000_000])
def test_a_time_that_may_be_meant_is_taken(ahead_ms: int) -> None:
    for sent_at_ms in (0, SENT_MS_MIN, int(time.time() * 1000) + ahead_ms):
        prepare(a_message(sent_at_ms=sent_at_ms), POLICY)


def test_lists_are_as_good_as_tuples() -> None:
    given = a_message(recipients=["bob"], elements=[Element(type="text", text="hi")], targets=[])
    assert given == a_message(recipients=("bob",), elements=(Element(type="text", text="hi"),))
    assert isinstance(given.recipients, tuple)


@pytest.mark.parametrize(
    ("kind", "people", "lane"),
    [
        ("chat", 1, "normal"),
        ("chat", LARGE_GROUP_RECIPIENTS - 1, "normal"),
        ("chat", LARGE_GROUP_RECIPIENTS, "bulk"),
        ("mention", LARGE_GROUP_RECIPIENTS, "urgent"),
        ("call", 1, "urgent"),
        ("call_cancel", 1, "urgent"),
        ("missed_call", 1, "urgent"),
        ("summary", 1, "normal"),
        ("system", 1, "normal"),
        ("official", 1, "bulk"),
        ("marketing", 1, "bulk"),
    ],
)
def test_the_lane_follows_kind_and_size(kind: Kind, people: int, lane: Lane) -> None:
    recipients = tuple(f"u{number}" for number in range(people))
    assert a_message(kind=kind, recipients=recipients).effective_lane == lane
    assert a_message(kind=kind, recipients=recipients, lane="normal").effective_lane == "normal"


@pytest.mark.parametrize(("kind", "ttl_s"), [("chat", 86_400), ("call", 30), ("call_cancel", 30)])
def test_a_call_lives_thirty_seconds_anything_else_a_day(kind: Kind, ttl_s: int) -> None:
    assert a_message(kind=kind).effective_ttl_s == ttl_s
    assert a_message(kind=kind, ttl_s=0).effective_ttl_s == 0


def test_the_replace_key_is_the_conversation_unless_given() -> None:
    assert a_message().effective_replace_key is None
    assert a_message(conversation=Conversation(id="c1")).effective_replace_key == "c1"
    assert a_message(conversation=Conversation(id="c1"), replace_key="k").effective_replace_key == "k"


def test_no_text_token_or_name_shows_where_objects_are_printed() -> None:
    secret = "s3cret"
    whole = a_message(
        title=secret,
        body=secret,
        sender=Sender(id="alice", name=secret, avatar=secret),
        conversation=Conversation(id="c1", name=secret),
        elements=(Element(type="custom", text=secret, desc=secret),),
        targets=(Target(vendor="apns", credential="prod", token=secret),),
        offline_push=OfflinePush(
            title=secret, desc=secret, ext=secret, apns=ApnsOptions(title=secret, subtitle=secret)
        ),
    )
    assert repr(whole) == (
        "OfflineMessage(id='m1', app='chat', kind='chat', part=0, lane='normal', recipients=1, targets=1)"
    )
    for part in (whole, whole.sender, whole.conversation, *whole.elements, *whole.targets, whole.offline_push):
        assert secret not in repr(part)
        assert part is not None
        assert secret not in repr(part.__rich_repr__())
    assert repr(whole.targets[0]) == "Target(vendor='apns', credential='prod', token=…)"
    assert repr(Recipient(id="bob", unread=2)) == "Recipient(id='bob', unread=2)"


@pytest.mark.parametrize(
    "options",
    [ApnsOptions, FcmOptions, HarmonyOptions, HonorOptions, HuaweiOptions, MeizuOptions, OppoOptions, VivoOptions,
     XiaomiOptions],
)  # fmt: skip
def test_options_name_a_class_only_by_fields_that_decide_it(options: Any) -> None:
    assert not options().names_class()
    assert options._class_fields <= set(options.__struct_fields__)
    for field in options.__struct_fields__:
        assert options(**{field: "IM"}).names_class() == (field in options._class_fields)
