"""docs/contract.md cannot rot: every example in it is enqueued or decoded, every number compared."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import redis

from pushfleet import message as contract
from pushfleet import wire
from pushfleet.errors import InvalidMessage
from pushfleet.message import LANES, OfflineMessage
from pushfleet.transfer import Policy, prepare
from pushfleet_workers.ledger.keys import MARK_BUCKET_MS
from pushfleet_workers.recall.memory import PARTS_MAX

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contract.md").read_text("utf-8")
EXAMPLES = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"```sh\n(redis-cli .*?)\n```", PAGE, re.DOTALL)
REFUSED = re.findall(r"^\| `(\{.*?\})` \| (`+)(.+?) ?\2 \|$", PAGE, re.MULTILINE)


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_page_has_its_examples() -> None:
    assert (len(EXAMPLES), len(COMMANDS), len(REFUSED)) == (6, 4, 8)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_message(example: str) -> None:
    message = wire.decode(example)
    assert wire.decode(wire.encode(message)) == message


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_enqueues_what_a_router_reads(command: str, redis_client: redis.Redis) -> None:
    _, *words = shlex.split(command)
    script = (ROOT / "producers" / "pushfleet" / "enqueue.lua").read_text("utf-8")
    client: Any = redis_client
    client.execute_command(*(script if word == "$(cat enqueue.lua)" else word for word in words))
    (key,) = client.keys()
    ((_, fields),) = client.xrange(key)
    entry = wire.read_entry(fields)
    lane = entry.effective_lane if isinstance(entry, OfflineMessage) else wire.RECALL_LANE
    assert key.decode() == wire.ingress_key("pushfleet", lane)


@pytest.mark.parametrize(("payload", "quote", "sentence"), REFUSED)
def test_a_refused_example_is_refused_with_these_words(payload: str, quote: str, sentence: str) -> None:
    with pytest.raises(InvalidMessage) as problem:
        wire.decode(payload)
    assert str(problem.value) == f"not an OfflineMessage: {sentence}"


def test_the_streams_are_the_ones_of_the_sdk() -> None:
    for lane in LANES:
        assert f"| `{lane}` | `{wire.ingress_key('pushfleet', lane)}` |" in section("Which stream")


@pytest.mark.parametrize(
    ("title", "numbers"),
    [
        (
            "Limits",
            [
                contract.ID_BYTES_MAX,
                contract.TEXT_BYTES_MAX,
                contract.EXT_BYTES_MAX,
                contract.TOKEN_BYTES_MAX,
                contract.PART_RECIPIENTS_MAX,
                wire.ENTRY_BYTES_MAX,
            ],
        ),
        ("The message", [contract.DEFAULT_TTL_S, contract.CALL_TTL_S]),
        ("Which stream", [contract.LARGE_GROUP_RECIPIENTS]),
        ("Taking a message back", [contract.PART_RECIPIENTS_MAX, PARTS_MAX * contract.PART_RECIPIENTS_MAX]),
    ],
)
def test_every_number_is_the_one_of_the_code(title: str, numbers: list[int]) -> None:
    for number in numbers:
        assert re.search(rf"(?<![\d,]){number:,}(?![\d,])", section(title)), number


def test_the_time_in_which_repeats_are_dropped_is_the_fleets() -> None:
    # A router looks for a part in the bucket of its entry and in the one before.
    assert MARK_BUCKET_MS == 10 * 60 * 1000
    assert "within ten minutes" in section("Repeating is safe")


def test_every_field_and_kind_is_on_the_page() -> None:
    described: Any = contract.schema()["$defs"]
    fields = described["OfflineMessage"]["properties"]
    for name in [*fields, *fields["kind"]["enum"]]:
        assert f"`{name}`" in PAGE, name


def test_every_field_of_a_recall_is_on_the_page() -> None:
    described: Any = contract.schema(contract.Recall)["$defs"]
    for name in described["Recall"]["properties"]:
        assert f"`{name}`" in section("Taking a message back"), name


def test_the_lanes_on_the_page_are_the_ones_of_the_code() -> None:
    for lane in LANES:
        (row,) = re.findall(rf"^\| `{lane}` \| `.*?` \| (.*?) \|$", PAGE, re.MULTILINE)
        small, _, large = row.partition(", and ")
        people = 1 if lane != "normal" else contract.LARGE_GROUP_RECIPIENTS - 1
        for kinds, count in ((small, people), (large, contract.LARGE_GROUP_RECIPIENTS)):
            for kind in re.findall(r"`(\w+)`", kinds):
                assert contract.default_lane(kind, count) == lane


def test_parts_cut_by_hand_are_the_parts_of_the_sdk() -> None:
    policy = Policy(
        prefix="p",
        linger_ms=0,
        ingress_max=10,
        memory_mark=1,
        wait_replicas=0,
        wait_timeout_ms=1,
        socket_timeout_s=1,
    )
    users = [f"user-{number}" for number in range(1_010)]
    whole = OfflineMessage(id="m", app="chat", kind="official", recipients=tuple(users), body="x")
    by_hand = [
        OfflineMessage(id="m", app="chat", kind="official", recipients=tuple(chunk), body="x", lane="bulk", part=number)
        for number, chunk in enumerate((users[:500], users[500:1_000], users[1_000:]))
    ]
    assert prepare(whole, policy).payloads == [wire.encode(part) for part in by_hand]
