"""Taking messages back: the contract, its wire form, and both producers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st

from pushfleet import (
    AsyncProducer,
    Backpressure,
    InvalidMessage,
    OfflineMessage,
    Producer,
    QueueUnavailable,
    Receipt,
    transfer,
    wire,
)
from pushfleet import message as contract
from pushfleet.message import Recall

GOLDEN = Path(__file__).with_name("golden") / "recall"
EXAMPLES = {
    "whole": Recall(id="c2c:48374_2837546_1760000000", app="chat"),
    "named": Recall(id="group:eng:9041", app="chat", conversation="group:eng", recipients=("dave", "Алиса", "爱丽丝")),
}
URGENT = wire.ingress_key("pushfleet", "urgent")

Recaller = Callable[..., Receipt]


@pytest.fixture(params=["sync", "async"])
def recall(request: pytest.FixtureRequest, redis_url: str) -> Recaller:
    """Takes a message back with a producer of one kind; *settings* are the producer's."""

    def sync(*words: Any, settings: Any = None, **named: Any) -> Receipt:
        with Producer(redis_url, **(settings or {})) as producer:
            return producer.recall(*words, **named)

    def asynchronous(*words: Any, settings: Any = None, **named: Any) -> Receipt:
        async def run() -> Receipt:
            async with AsyncProducer(redis_url, **(settings or {})) as producer:
                return await producer.recall(*words, **named)

        return asyncio.run(run())

    return sync if request.param == "sync" else asynchronous


def entries(client: redis.Redis) -> list[dict[bytes, bytes]]:
    found: Any = client.xrange(URGENT)
    return [fields for _, fields in found]


# ---- the contract


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_written_and_read_byte_for_byte_as_ever(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_bytes().removesuffix(b"\n")
    assert wire.encode(EXAMPLES[name]) == golden
    assert wire.decode_recall(golden) == EXAMPLES[name]


def test_the_examples_use_every_field_and_are_all_tested() -> None:
    used = {name for one in EXAMPLES.values() for name in json.loads(wire.encode(one))}
    described: Any = contract.schema(Recall)["$defs"]
    assert used == set(described["Recall"]["properties"])
    assert {path.stem for path in GOLDEN.glob("*.json")} == {*EXAMPLES, "schema-v1"}


def test_nothing_disappears_from_the_schema_or_changes_its_type() -> None:
    before = json.loads((GOLDEN / "schema-v1.json").read_bytes())["$defs"]["Recall"]
    described: Any = contract.schema(Recall)["$defs"]
    now = described["Recall"]
    assert set(now["required"]) == set(before["required"]), "a new duty"
    for name, field in before["properties"].items():
        assert now["properties"][name]["type"] == field["type"]


def test_a_recall_from_the_future_is_read_without_what_is_new_in_it() -> None:
    for one in EXAMPLES.values():
        assert wire.decode_recall(json.dumps({**json.loads(wire.encode(one)), "hologram": {"deep": [1]}})) == one


def test_no_recipient_shows_where_a_recall_is_printed() -> None:
    assert repr(EXAMPLES["named"]) == "Recall(id='group:eng:9041', app='chat', recipients=3)"


# ---- the entry


def test_an_entry_has_a_message_or_a_recall() -> None:
    one = EXAMPLES["named"]
    assert wire.read_entry({b"v": b"1", b"r": wire.encode(one)}) == one
    assert wire.read_entry({b"r": wire.encode(one), b"trace": b"x"}) == one
    with pytest.raises(InvalidMessage, match="both m and r"):
        wire.read_entry({b"v": b"1", b"r": wire.encode(one), b"m": b"{}"})
    with pytest.raises(InvalidMessage, match="field v is '2', this fleet reads 1"):
        wire.read_entry({b"v": b"2", b"r": wire.encode(one)})


BROKEN: dict[str, tuple[bytes | str, str]] = {
    "nothing": (b"", "truncated"),
    "a list": (b"[]", "Expected `object`, got `array`"),
    "no id": (b'{"app":"chat"}', "missing required field `id`"),
    "an empty id": (b'{"id":"","app":"chat"}', "id is empty"),
    "a wrong app": (b'{"id":"m","app":"my app"}', "app must be 1 to 64"),
    "an empty recipient": (b'{"id":"m","app":"chat","recipients":[""]}', r"recipients\[\] is empty"),
    "an object": (b'{"id":"m","app":"chat","recipients":[{"id":"a"}]}', r"Expected `str`, got `object`"),
    "a long conversation": (json.dumps({"id": "m", "app": "chat", "conversation": "c" * 257}), "257 bytes"),
    "nested without end": (b'{"new":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
    "501 recipients": (
        json.dumps({"id": "m", "app": "chat", "recipients": [f"u{n}" for n in range(501)]}),
        "501 recipients in one entry, the limit is 500: send several",
    ),
    "larger than an entry": (b'{"id":"' + b"m" * 1_100_000 + b'"}', "one entry has 1100009 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_recall_is_refused_with_one_short_sentence(case: str) -> None:
    payload, sentence = BROKEN[case]
    with pytest.raises(InvalidMessage, match=sentence) as refusal:
        wire.decode_recall(payload)
    assert len(str(refusal.value)) < 400


ids = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
recalls = st.builds(
    Recall,
    id=ids,
    app=st.sampled_from(["a", "a.b"]),
    conversation=st.just("") | ids,
    recipients=st.lists(ids, max_size=4).map(tuple),
)


@given(recalls)
def test_what_is_encoded_decodes_to_the_same(one: Recall) -> None:
    assert wire.decode_recall(wire.encode(one)) == one


@given(st.binary(max_size=200))
def test_no_bytes_crash_the_decoder(payload: bytes) -> None:
    with pytest.raises(InvalidMessage):
        wire.decode_recall(payload)


@given(recalls, recalls)
@example(Recall(id="m", app="a", recipients=("x", "y")), Recall(id="m", app="a", recipients=("y", "x")))
@example(Recall(id="m\0001", app="a"), Recall(id="m", app="a", recipients=("1",)))
def test_two_recalls_share_an_id_only_when_they_are_one(one: Recall, two: Recall) -> None:
    same = (one.app, one.id, sorted(one.recipients)) == (two.app, two.id, sorted(two.recipients))
    assert (wire.recall_id(one) == wire.recall_id(two)) == same


def test_ids_of_recalls_never_change() -> None:
    assert wire.recall_id(EXAMPLES["whole"]).hex() == "2d88597bc3ec5c77f34b3703dd56097c"
    assert wire.recall_id(EXAMPLES["named"]).hex() == "96505422c15df893aefb0a06189c7d0d"


def test_many_recipients_take_several_entries() -> None:
    users = tuple(f"u{number}" for number in range(1_001))
    cut = list(wire.recalls(Recall(id="m", app="a", conversation="c", recipients=(*users, *users))))
    assert [len(one.recipients) for one in cut] == [500, 500, 1]
    assert tuple(user for one in cut for user in one.recipients) == users
    assert {(one.id, one.app, one.conversation) for one in cut} == {("m", "a", "c")}


# ---- the producers


def test_a_recall_is_in_the_urgent_stream(recall: Recaller, redis_client: redis.Redis) -> None:
    assert recall("chat", "m1") == Receipt("m1", "urgent", 1)
    assert recall("chat", "m1", conversation="c1", recipients=["bob", "eve", "bob"]).parts == 1
    assert entries(redis_client) == [
        {b"v": b"1", b"r": b'{"id":"m1","app":"chat"}'},
        {b"v": b"1", b"r": b'{"id":"m1","app":"chat","conversation":"c1","recipients":["bob","eve"]}'},
    ]


def test_as_many_recipients_as_there_are_may_be_named(recall: Recaller, redis_client: redis.Redis) -> None:
    users = [f"u{number}" for number in range(1_200)]
    assert recall("chat", "m1", recipients=(user for user in users)).parts == 3
    read = [wire.read_entry(fields) for fields in entries(redis_client)]
    assert [user for one in read if isinstance(one, Recall) for user in one.recipients] == users


@pytest.mark.parametrize(
    ("words", "named", "sentence"),
    [
        (("chat", ""), {}, "id is empty"),
        (("chat", "m" * 257), {}, "longer than 256 bytes"),
        (("my app", "m1"), {}, "app must be"),
        (("chat", 7), {}, "id must be of type str, not int"),
        (("chat", "m1"), {"recipients": "bob"}, "recipients must be of type tuple, not str"),
        (("chat", "m1"), {"recipients": [7]}, r"recipients\[0\] must be of type str, not int"),
        (("chat", "m1"), {"conversation": None}, "Expected `str`, got `null`"),
        (("chat", "m\ud800"), {}, "half of a surrogate pair"),
    ],
)
def test_what_breaks_the_contract_is_refused(
    recall: Recaller, redis_client: redis.Redis, words: tuple[Any, ...], named: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InvalidMessage, match=sentence):
        recall(*words, **named)
    assert entries(redis_client) == []


def test_a_full_stream_takes_no_recalls(recall: Recaller, redis_client: redis.Redis) -> None:
    assert recall("chat", "m1", settings={"ingress_max": 1}).parts == 1
    with pytest.raises(Backpressure, match="holds 1 entries and has no room for 1 more"):
        recall("chat", "m2", settings={"ingress_max": 1})
    with pytest.raises(InvalidMessage, match="takes 2 entries and can never fit"):
        recall("chat", "m3", recipients=[f"u{number}" for number in range(501)], settings={"ingress_max": 1})
    assert len(entries(redis_client)) == 1


def test_a_recall_needs_redis() -> None:
    with Producer("redis://127.0.0.1:1/0", socket_timeout_s=1) as producer, pytest.raises(QueueUnavailable):
        producer.recall("chat", "m1")


def test_recalls_do_not_wait_for_company(recall: Recaller, redis_client: redis.Redis) -> None:
    recall("chat", "m1", settings={"linger_ms": 10_000})
    assert len(entries(redis_client)) == 1


def test_messages_and_recalls_go_by_scripts_that_differ_in_the_field_alone() -> None:
    messages, recalls = transfer.Batch().script, transfer.Batch(recalls=True).script
    assert messages.text.count("'m', ARGV[i]") == 1
    assert recalls.text.replace("'r', ARGV[i]", "'m', ARGV[i]") == messages.text
    assert messages.sha != recalls.sha


def test_a_producer_sends_both(redis_url: str, redis_client: redis.Redis) -> None:
    with Producer(redis_url) as producer:
        producer.enqueue(OfflineMessage(id="m1", app="chat", recipients=("bob",), kind="call"))
        producer.recall("chat", "m1")
    assert [set(fields) for fields in entries(redis_client)] == [{b"v", b"m"}, {b"v", b"r"}]
