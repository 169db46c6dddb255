"""What is on the wire stays readable: byte-exact examples, and a schema in which nothing goes away."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from pushfleet import wire
from pushfleet.errors import InvalidMessage
from pushfleet.message import (
    AndroidOptions,
    ApnsOptions,
    Conversation,
    Element,
    FcmOptions,
    HarmonyOptions,
    HonorOptions,
    HuaweiOptions,
    MeizuOptions,
    OfflineMessage,
    OfflinePush,
    OppoOptions,
    Recipient,
    Sender,
    Target,
    VivoOptions,
    XiaomiOptions,
    schema,
)

GOLDEN = Path(__file__).with_name("golden")
SCHEMA = Path(__file__).parents[2] / "docs" / "offline-message.schema.json"

EXAMPLES = {
    "single_chat": OfflineMessage(
        id="c2c:48374_2837546_1760000000",
        app="chat",
        sender=Sender(id="alice", name="Alice"),
        conversation=Conversation(id="c2c:alice:bob"),
        recipients=(Recipient(id="bob", unread=7),),
        elements=(Element(type="text", text="午饭吃什么? 🍜"), Element(type="image")),
        offline_push=OfflinePush(ext='{"entity":{"chatType":1,"action":1,"sender":"alice"}}'),
        sent_at_ms=1_760_000_000_123,
    ),
    "group_with_mention": OfflineMessage(
        id="group:eng:9041",
        app="chat",
        kind="mention",
        sender=Sender(id="carol", name="Carol (on call)", avatar="https://cdn.example.com/a/carol.png"),
        conversation=Conversation(id="group:eng", kind="group", name="Engineering"),
        recipients=(Recipient(id="alice", unread=3, mention=True), Recipient(id="bob", push="never"), "dave"),
        elements=(Element(type="text", text="@Alice the build is red"),),
        sent_at_ms=1_760_000_001_000,
    ),
    "call": OfflineMessage(
        id="call:7f3a",
        app="chat",
        kind="call",
        sender=Sender(id="alice", name="Alice"),
        conversation=Conversation(id="c2c:alice:bob"),
        recipients=(Recipient(id="bob", push="force"),),
        body="Incoming video call",
        offline_push=OfflinePush(ext='{"room":"7f3a"}', apns=ApnsOptions(push_type="voip")),
        ttl_s=45,
        replace_key="call:7f3a",
    ),
    "broadcast_part": OfflineMessage(
        id="news:2025-10",
        app="chat",
        kind="official",
        sender=Sender(id="official:news", name="News"),
        conversation=Conversation(id="channel:news", kind="channel", name="News"),
        recipients=tuple(f"user-{number:04}" for number in range(1_000, 1_010)),
        title="Version 8 is here",
        body="Message reactions, and calls with up to 32 people.",
        offline_push=OfflinePush(disabled=True),
        lane="bulk",
        part=2,
    ),
    "direct_targets": OfflineMessage(
        id="test-push:1",
        app="chat",
        kind="system",
        targets=(
            Target(vendor="apns", credential="prod", token="a1" * 32),
            Target(vendor="huawei", credential="main", token="IQAAAACy0example-token_for-Huawei"),
        ),
        title="Test push",
        body="It works.",
    ),
    "localized_push": OfflineMessage(
        id="c2c:localized",
        app="chat.example",
        sender=Sender(id="alice", name="Alice"),
        recipients=("bob",),
        body="sent you a gift",
        offline_push=OfflinePush(
            apns=ApnsOptions(
                interruption_level="critical",
                title_loc_key="GIFT_TITLE",
                title_loc_args=("Alice",),
                subtitle_loc_key="GIFT_SUBTITLE",
                subtitle_loc_args=("Alice", "🎁"),
                loc_key="GIFT_BODY",
                loc_args=("a rose",),
                thread_id="gifts",
                relevance_score=0.5,
                critical_volume=0.25,
            ),
        ),
    ),
    "full_offline_push": OfflineMessage(
        id="c2c:full",
        app="chat.example",
        sender=Sender(id="alice", name="Alice"),
        conversation=Conversation(id="c2c:alice:bob"),
        recipients=("bob",),
        elements=(Element(type="custom", desc="[Red packet]"),),
        offline_push=OfflinePush(
            title="Alice",
            desc="sent you a red packet",
            ext='{"entity":{"k1":"v1"}}',
            apns=ApnsOptions(
                title="Alice 🧧",
                subtitle="Red packet",
                sound="coins.aiff",
                badge_mode="ignore",
                image="https://cdn.example.com/p/1.jpg",
                mutable_content=True,
                category="RED_PACKET",
                interruption_level="time-sensitive",
                push_type="alert",
            ),
            android=AndroidOptions(sound="coins", style="big_text"),
            huawei=HuaweiOptions(
                channel_id="im",
                category="IM",
                importance="NORMAL",
                image="https://cdn.example.com/p/1.jpg",
                ext_as_intent_param=True,
            ),
            honor=HonorOptions(importance="NORMAL", image="https://cdn.example.com/p/1.jpg"),
            xiaomi=XiaomiOptions(channel_id="104086", template_id="P1", template_params={"name": "Alice"}),
            oppo=OppoOptions(
                channel_id="im_msg",
                category="IM",
                notify_level=2,
                template_id="T1",
                title_params={"name": "Alice"},
                content_params={"what": "a red packet"},
            ),
            vivo=VivoOptions(category="IM", classification=1, notify_type=4),
            meizu=MeizuOptions(notice_type=1),
            harmony=HarmonyOptions(category="IM", image="https://cdn.example.com/p/1.jpg", ignore_badge=True),
            fcm=FcmOptions(
                channel_id="im", image="https://cdn.example.com/p/1.jpg", priority="high", form="notification"
            ),
        ),
        sent_at_ms=1_760_000_002_000,
        ttl_s=3_600,
        lane="urgent",
        replace_key="packet:1",
        online_only=True,
    ),
}


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes().removesuffix(b"\n")


def fields_of(definition: dict[str, Any]) -> dict[str, Any]:
    return {name: shape_of(field) for name, field in definition.get("properties", {}).items()}


def shape_of(field: dict[str, Any]) -> Any:
    """The type of a field without its words, its limits, and the values that may be added to an enum."""
    if "anyOf" in field:
        return sorted((shape_of(one) for one in field["anyOf"]), key=repr)
    if "enum" in field:
        return {"enum": sorted({type(value).__name__ for value in field["enum"]})}
    shape: dict[str, Any] = {name: field[name] for name in ("type", "$ref") if name in field}
    for inner in ("items", "additionalProperties"):
        if inner in field:
            shape[inner] = shape_of(field[inner])
    return shape


def enums_of(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.get("enum", ()), *(one for inner in value.values() for one in enums_of(inner))]
    return [one for inner in value for one in enums_of(inner)] if isinstance(value, list) else []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_written_byte_for_byte_as_ever(name: str) -> None:
    assert wire.encode(EXAMPLES[name]) == golden(name)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_read_as_ever(name: str) -> None:
    assert wire.decode(golden(name)) == EXAMPLES[name]


def test_every_example_on_disk_is_tested() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == {*EXAMPLES, "schema-v1"}


def test_the_examples_together_use_every_field_and_every_option() -> None:
    used: dict[str, set[str]] = {}

    def visit(value: object) -> None:
        if isinstance(value, msgspec.Struct):
            used.setdefault(type(value).__name__, set()).update(json.loads(msgspec.json.encode(value)))
            for field in value.__struct_fields__:
                visit(getattr(value, field))
        elif isinstance(value, tuple):
            for one in value:
                visit(one)

    for example in EXAMPLES.values():
        visit(example)
    described: Any = schema()["$defs"]
    assert used == {name: set(definition["properties"]) for name, definition in described.items()}


def test_an_entry_from_before_most_fields_existed_is_read() -> None:
    message = wire.decode('{"id":"m1","app":"chat","recipients":["bob"]}')
    assert message == OfflineMessage(id="m1", app="chat", recipients=("bob",))


def test_an_entry_from_the_future_is_read_without_what_is_new_in_it() -> None:
    def grow(value: Any) -> Any:
        if isinstance(value, dict):
            # What fills a template is a map, not an object of the contract: every key means itself.
            known = {name: inner if name.endswith("_params") else grow(inner) for name, inner in value.items()}
            return {"from_the_future": {"deep": [1, None]}, **known, "another": "x"}
        return [grow(one) for one in value] if isinstance(value, list) else value

    for name, example in EXAMPLES.items():
        assert wire.decode(json.dumps(grow(json.loads(golden(name))))) == example


def test_order_and_white_space_of_other_json_libraries_do_not_matter() -> None:
    for name, example in EXAMPLES.items():
        reordered = json.dumps(dict(reversed(json.loads(golden(name)).items())), indent=4)
        assert wire.decode(reordered) == example


def test_nothing_disappears_from_the_schema_or_changes_its_type() -> None:
    before = json.loads((GOLDEN / "schema-v1.json").read_bytes())["$defs"]
    now: Any = schema()["$defs"]
    for name, definition in before.items():
        assert fields_of(definition).items() <= fields_of(now[name]).items(), name
        assert set(now[name].get("required", ())) <= set(definition.get("required", ())), f"{name}: a new duty"
        assert set(map(str, enums_of(definition))) <= set(map(str, enums_of(now[name]))), f"{name}: a value is gone"


def test_a_new_field_has_a_default() -> None:
    before = json.loads((GOLDEN / "schema-v1.json").read_bytes())["$defs"]
    now: Any = schema()["$defs"]
    for name, definition in now.items():
        new = set(definition["properties"]) - set(before.get(name, definition)["properties"])
        assert all("default" in definition["properties"][field] for field in new)


def test_the_snapshot_would_notice_a_change() -> None:
    before: Any = schema()["$defs"]
    now: Any = schema()["$defs"]
    now["OfflineMessage"]["properties"]["ttl_s"] = {"type": "string"}
    assert not fields_of(before["OfflineMessage"]).items() <= fields_of(now["OfflineMessage"]).items()


def test_the_published_schema_is_fresh() -> None:
    assert SCHEMA.read_text("utf-8") == json.dumps(schema(), indent=2, sort_keys=False, ensure_ascii=False) + "\n"


def test_the_schema_is_valid_and_accepts_the_examples() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    validator = jsonschema.Draft202012Validator(schema())
    for name in EXAMPLES:
        validator.validate(json.loads(golden(name)))


@pytest.mark.parametrize(
    "payload",
    [
        {"app": "chat", "recipients": ["bob"]},
        {"id": "", "app": "chat", "recipients": ["bob"]},
        {"id": "m", "app": "a b", "recipients": ["bob"]},
        {"id": "m", "app": "chat"},
        {"id": "m", "app": "chat", "recipients": []},
        {"id": "m", "app": "chat", "recipients": "bob"},
        {"id": "m", "app": "chat", "recipients": [""]},
        {"id": "m", "app": "chat", "recipients": ["bob"], "kind": "telegram"},
        {"id": "m", "app": "chat", "recipients": ["bob"], "ttl_s": -1},
        {"id": "m", "app": "chat", "recipients": ["bob"], "offline_push": {"ext": "x" * 2_049}},
        {"id": "m", "app": "chat", "targets": [{"vendor": "apns", "credential": "prod", "token": ""}]},
    ],
    ids=str,
)
def test_the_schema_and_the_decoder_refuse_the_same(payload: dict[str, Any]) -> None:
    assert not jsonschema.Draft202012Validator(schema()).is_valid(payload)
    with pytest.raises(InvalidMessage):
        wire.decode(json.dumps(payload))


def test_the_schema_describes_every_type_and_every_field() -> None:
    described: Any = schema()["$defs"]
    for name, definition in described.items():
        assert definition["description"], name
        for field, shape in definition["properties"].items():
            assert shape.get("description"), f"{name}.{field}"
