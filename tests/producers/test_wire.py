import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pushfleet import wire
from pushfleet.errors import InvalidMessage
from pushfleet.message import (
    ID_BYTES_MAX,
    LANES,
    PART_RECIPIENTS_MAX,
    Conversation,
    Element,
    OfflineMessage,
    OfflinePush,
    Recipient,
    Sender,
    Target,
)

texts = st.text(max_size=30)
ids = st.text(min_size=1, max_size=20)
recipients = st.one_of(
    ids,
    st.builds(
        Recipient,
        id=ids,
        unread=st.none() | st.integers(0, 1_000_000),
        mention=st.booleans(),
        push=st.sampled_from(["auto", "never", "force"]),
    ),
)
targets = st.builds(
    Target,
    vendor=st.sampled_from(["apns", "fcm", "huawei"]),
    credential=st.just("prod"),
    token=st.text("0123456789abcdef", min_size=1, max_size=8),
)
messages = st.builds(
    OfflineMessage,
    id=ids,
    app=st.sampled_from(["chat", "a.b-c_d"]),
    kind=st.sampled_from(["chat", "mention", "call", "marketing", "system"]),
    sender=st.none() | st.builds(Sender, id=ids, name=texts),
    conversation=st.none() | st.builds(Conversation, id=ids, kind=st.sampled_from(["single", "group", "channel"])),
    recipients=st.lists(recipients, min_size=1, max_size=8).map(tuple),
    targets=st.lists(targets, max_size=3).map(tuple),
    elements=st.lists(st.builds(Element, type=st.sampled_from(["text", "x"]), text=texts), max_size=3).map(tuple),
    offline_push=st.none() | st.builds(OfflinePush, desc=st.none() | texts, disabled=st.booleans()),
    sent_at_ms=st.integers(0, 2**47),
    ttl_s=st.none() | st.integers(0, 2_419_200),
    lane=st.none() | st.sampled_from(LANES),
)


def user_of(recipient: str | Recipient) -> str:
    return recipient if isinstance(recipient, str) else recipient.id


@given(messages)
def test_what_is_encoded_decodes_to_the_same(message: OfflineMessage) -> None:
    assert wire.decode(wire.encode(message)) == message
    assert wire.decode(wire.entry(message)[b"m"].decode()) == message


@given(messages)
def test_the_json_is_what_any_other_library_reads(message: OfflineMessage) -> None:
    assert json.loads(wire.encode(message))["id"] == message.id


@given(
    users=st.lists(st.integers(0, 1_500), max_size=1_700),
    tokens=st.lists(st.integers(0, 600), max_size=700),
    objects=st.booleans(),
)
@example(users=list(range(500)), tokens=[], objects=False)
@example(users=list(range(501)), tokens=[], objects=True)
@example(users=[], tokens=list(range(501)), objects=False)
@example(users=list(range(499)), tokens=[1, 1, 2], objects=False)
@example(users=[7] * 1_000, tokens=[], objects=False)
def test_parts_hold_everybody_exactly_once(users: list[int], tokens: list[int], objects: bool) -> None:
    if not users and not tokens:
        return
    named = [Recipient(id=f"u{n}", unread=1) if objects and n % 2 else f"u{n}" for n in users]
    devices = [Target(vendor="apns", credential="prod", token=f"t{n}") for n in tokens]
    message = OfflineMessage(id="m", app="chat", recipients=tuple(named), targets=tuple(devices))

    cut = list(wire.parts(message))

    assert [user_of(one) for part in cut for one in part.recipients] == list(dict.fromkeys(map(user_of, named)))
    assert [one for part in cut for one in part.targets] == list(dict.fromkeys(devices))
    sizes = [len(part.recipients) + len(part.targets) for part in cut]
    assert sizes[:-1] == [PART_RECIPIENTS_MAX] * (len(cut) - 1)
    assert 1 <= sizes[-1] <= PART_RECIPIENTS_MAX
    assert [part.part for part in cut] == list(range(len(cut)))
    assert len({wire.part_id(part) for part in cut}) == len(cut)
    assert list(map(wire.part_id, wire.parts(message))) == list(map(wire.part_id, cut))
    whole = "bulk" if sum(sizes) >= 100 else "normal"
    assert {part.effective_lane for part in cut} == {whole}
    for part in cut:
        assert wire.decode(wire.encode(part)) == part


def test_of_a_user_named_twice_the_first_entry_counts() -> None:
    message = OfflineMessage(id="m", app="chat", recipients=(Recipient(id="bob", unread=1), "bob", "alice"))
    (part,) = wire.parts(message)
    assert part.recipients == (Recipient(id="bob", unread=1), "alice")


def test_a_message_that_fits_is_handed_on_as_it_is() -> None:
    message = OfflineMessage(id="m", app="chat", recipients=("alice", "bob"))
    (part,) = wire.parts(message)
    assert part is message


def test_part_ids_never_change() -> None:
    message = OfflineMessage(id="m1", app="chat", recipients=("bob",))
    assert wire.part_id(message).hex() == "79765324bb8f0d2639a5a38cbf71c663"
    assert wire.part_id(msgspec.structs.replace(message, part=2)).hex() == "102a0a948f8adea728539ecc33f20e7f"


@given(
    st.tuples(st.sampled_from(["a", "a.b"]), ids, st.integers(0, 99)),
    st.tuples(st.sampled_from(["a", "a.b"]), ids, st.integers(0, 99)),
)
@example(("a", "m\x001", 2), ("a", "m", 12))
def test_two_parts_share_an_id_only_when_they_are_one(one: tuple[str, str, int], two: tuple[str, str, int]) -> None:
    first, second = (
        wire.part_id(OfflineMessage(id=id_, app=app, part=part, recipients=("bob",))) for app, id_, part in (one, two)
    )
    assert (first == second) == (one == two)


def test_lanes_have_streams_of_their_own_hash_tag() -> None:
    assert [wire.ingress_key("pushfleet", lane) for lane in LANES] == [
        "pushfleet:{ingress:urgent}",
        "pushfleet:{ingress:normal}",
        "pushfleet:{ingress:bulk}",
    ]


HOSTILE = ["}", "{u:1}", "a\nb", "\r\n", "\0", "a\0b", "*", " ", "'; DROP", "\u202e", "\ufeff", "𐍈" * 60, "\u2028"]


@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_hostile_id_is_taken_as_it_is(name: str) -> None:
    message = OfflineMessage(
        id=name,
        app="chat",
        sender=Sender(id=name),
        conversation=Conversation(id=name),
        recipients=(name,),
        replace_key=name,
    )
    assert wire.decode(wire.encode(message)) == message
    assert len(wire.part_id(message)) == 16


@given(st.text(st.characters(codec=None), min_size=1, max_size=300))
@example("\ud800")
@example("a" * 1_000_000)
def test_any_id_is_taken_or_refused_with_one_sentence(name: str) -> None:
    too_long = len(name.encode(errors="replace")) > ID_BYTES_MAX
    if not too_long and not any("\ud800" <= character <= "\udfff" for character in name):
        message = OfflineMessage(id=name, app="chat", recipients=(name,))
        assert wire.decode(wire.encode(message)) == message
        return
    with pytest.raises(
        (InvalidMessage, ValueError), match=r"^(id is longer than 256|.*half of a surrogate)"
    ) as refusal:
        wire.encode(OfflineMessage(id=name, app="chat", recipients=(name,)))
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_a_message_that_is_not_yet_cut_may_name_more_than_an_entry_holds() -> None:
    payload = json.dumps({"id": "m", "app": "chat", "recipients": [f"u{n}" for n in range(501)]})
    assert [len(part.recipients) for part in wire.parts(wire.decode_message(payload))] == [500, 1]


def test_a_stream_entry_is_read_by_its_fields() -> None:
    message = OfflineMessage(id="m", app="chat", recipients=("bob",))
    assert wire.read_entry(wire.entry(message)) == message
    assert wire.read_entry({b"m": wire.encode(message), b"trace": b"x"}) == message


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({b"v": b"2", b"m": b"{}"}, "field v is '2', this fleet reads 1"),
        ({b"v": b"\xff" * 1_000, b"m": b"{}"}, "field v is .*characters"),
        ({b"v": b"1"}, "the entry has no field m"),
        ({}, "the entry has no field m"),
        ({b"v": b"1", b"m": b"{}"}, "missing required field `id`"),
    ],
)
def test_an_entry_that_this_fleet_cannot_read_is_refused(fields: dict[bytes, bytes], sentence: str) -> None:
    with pytest.raises(InvalidMessage, match=sentence):
        wire.read_entry(fields)


BROKEN: dict[str, tuple[bytes | str, str]] = {
    "nothing": (b"", "truncated"),
    "null": (b"null", "Expected `object`, got `null`"),
    "a list": (b"[]", "Expected `object`, got `array`"),
    "a page of HTML": (b"<html></html>", "JSON is malformed"),
    "cut off": (b'{"id":"m1","app":"ch', "truncated"),
    "two documents": (b"{}{}", "JSON is malformed|missing required field"),
    "not UTF-8": (b'{"id":"\xff","app":"chat","recipients":["bob"]}', "can't decode byte"),
    "half a surrogate pair, escaped": (b'{"id":"\\ud800","app":"chat","recipients":["bob"]}', "surrogate"),
    "half a surrogate pair": ('{"id":"\ud800","app":"chat","recipients":["bob"]}', "surrogates not allowed"),
    "nested without end": (b'{"new":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    "larger than an entry": (
        b'{"id":"' + b"m" * 1_100_000 + b'"}',
        "one entry has 1100009 bytes, the limit is 1048576",
    ),
    "a huge kind": (
        b'{"id":"m1","app":"chat","recipients":["bob"],"kind":"' + b"k" * 100_000 + b'"}',
        "Invalid enum value 'kkk.*…$",
    ),
    "no id": (b'{"app":"chat","recipients":["bob"]}', "missing required field `id`"),
    "nobody": (b'{"id":"m1","app":"chat"}', "recipients and targets are both empty"),
    "an empty user": (b'{"id":"m1","app":"chat","recipients":["a",{"id":""}]}', r"empty - at `\$\.recipients\[1\]`"),
    "501 recipients": (
        json.dumps({"id": "m1", "app": "chat", "recipients": [f"u{n}" for n in range(501)]}).encode(),
        "501 recipients and targets in one entry, the limit is 500",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_entry_is_refused_with_one_short_sentence(case: str) -> None:
    payload, sentence = BROKEN[case]
    with pytest.raises(InvalidMessage, match=sentence) as refusal:
        wire.decode(payload)
    assert len(str(refusal.value)) < 400


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(payload: bytes) -> None:
    with pytest.raises(InvalidMessage):
        wire.decode(payload)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([field.name for field in msgspec.structs.fields(OfflineMessage)]), json_values)
def test_any_value_in_any_field_is_taken_or_refused(field: str, value: Any) -> None:
    payload = json.dumps({"id": "m1", "app": "chat", "recipients": ["bob"], field: value})
    try:
        message = wire.decode(payload)
    except InvalidMessage:
        return
    assert wire.decode(wire.encode(message)) == message
