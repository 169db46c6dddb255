"""What is sent, and what the answers mean: the producers' core, without Redis."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest
import redis

from pushfleet import transfer as core
from pushfleet.errors import Backpressure, EnqueueError, InvalidMessage, QueueUnavailable
from pushfleet.message import OfflineMessage
from pushfleet.transfer import Batch, BatchReceipt, Command, MemoryGauge, Policy, Run, prepare, transfer

POLICY = Policy(
    prefix="pf",
    linger_ms=0,
    ingress_max=10_000,
    memory_mark=1.0,
    wait_replicas=0,
    wait_timeout_ms=100,
    socket_timeout_s=5,
)

Answer = Callable[[list[Command]], list[Any]]


def a_message(number: int = 0, *, kind: Any = "chat", people: int = 1) -> OfflineMessage:
    users = tuple(f"u{one}" for one in range(people))
    return OfflineMessage(id=f"m{number}", app="chat", kind=kind, recipients=users, body="Lunch?")


def a_batch(messages: Iterable[OfflineMessage], policy: Policy = POLICY) -> Batch:
    batch = Batch()
    for message in messages:
        batch.add(prepare(message, policy))
    return batch


def run(
    batch: Batch, answers: Iterable[Answer | Exception], policy: Policy = POLICY, gauge: MemoryGauge | None = None
) -> list[list[Command]]:
    """Drive a transfer with prepared answers, the last of them for ever; returns what was sent."""
    steps = transfer(batch, policy, gauge or MemoryGauge(policy.memory_mark))
    script = list(answers)
    sent: list[list[Command]] = []
    try:
        commands = next(steps)
        while True:
            sent.append(commands)
            answer = script[min(len(sent), len(script)) - 1]
            commands = steps.throw(answer) if isinstance(answer, Exception) else steps.send(answer(commands))
    except StopIteration:
        return sent


def taken(commands: list[Command]) -> list[Any]:
    """A Redis that has room: the new length of the stream for each run of the script."""
    return [len(command) - 7 if command[0] == "EVALSHA" else 0 for command in commands]


def always(value: Any) -> Answer:
    return lambda commands: [value] * len(commands)


def lane_of(command: Command) -> object:
    return command[3]


def payloads_of(command: Command) -> int:
    return len(command) - 7


def test_urgent_messages_go_first_and_few_round_trips_carry_many() -> None:
    batch = a_batch([a_message(1), a_message(2, kind="marketing"), a_message(3, kind="call")])
    (commands,) = run(batch, [taken])
    assert [lane_of(one) for one in commands] == ["pf:{ingress:urgent}", "pf:{ingress:normal}", "pf:{ingress:bulk}"]
    assert [one.id for one in batch.accepted()] == ["m1", "m2", "m3"]
    assert batch.error(()) is None


def test_a_script_writes_at_most_four_hundred_entries_of_a_lane_at_a_time() -> None:
    calls = (a_message(number, kind="call") for number in range(2_000, 2_500))
    sent = run(a_batch([*map(a_message, range(801)), *calls]), [taken])
    assert [[payloads_of(one) for one in commands] for commands in sent] == [[400, 400], [100, 400], [1]]


def test_large_entries_make_short_scripts() -> None:
    body = "x" * 16_000
    sent = run(a_batch(msgspec.structs.replace(a_message(n), body=body) for n in range(100)), [taken])
    assert [[payloads_of(one) for one in commands] for commands in sent] == [[32], [32], [32], [4]]


def test_a_message_of_many_parts_asks_for_room_for_all_of_them_first() -> None:
    sent = run(a_batch([a_message(1), a_message(2, kind="marketing", people=500 * 450)]), [taken])
    asked = [(lane_of(one), payloads_of(one), one[5]) for commands in sent for one in commands]
    bulk = "pf:{ingress:bulk}"
    assert asked[0] == ("pf:{ingress:normal}", 1, 1)
    assert sum(payloads for _, payloads, _ in asked[1:]) == 450
    assert [room for _, _, room in asked[1:]] == [
        450 - sum(payloads for _, payloads, _ in asked[1:place]) for place in range(1, len(asked))
    ]
    assert {lane for lane, _, _ in asked[1:]} == {bulk}


def test_a_lost_connection_is_tried_once_more_with_the_same_commands() -> None:
    batch = a_batch([a_message()])
    first, second = run(batch, [redis.ConnectionError("reset"), taken])
    assert first == second
    assert batch.receipt(0).parts == 1


@pytest.mark.parametrize("loss", [redis.ConnectionError("reset"), redis.TimeoutError("late"), OSError("no route")])
def test_a_connection_lost_twice_is_an_error_that_says_the_message_may_be_in(loss: Exception) -> None:
    batch = a_batch([a_message()])
    assert len(run(batch, [loss, loss])) == 2
    with pytest.raises(QueueUnavailable, match=r"could not be reached or broke off: .*repeating it is safe") as problem:
        batch.receipt(0)
    assert problem.value.__cause__ is loss


def test_what_was_answered_before_a_loss_counts_as_accepted() -> None:
    batch = a_batch(map(a_message, range(1_000)))
    run(batch, [taken, redis.ConnectionError("reset")])
    assert [one.id for one in batch.accepted()] == [f"m{number}" for number in range(400)]
    assert isinstance(batch.error(()), QueueUnavailable)


def test_a_server_that_does_not_know_the_script_is_given_it() -> None:
    batch = a_batch([a_message(1), a_message(2, kind="call")])
    first, second = run(batch, [always(redis.exceptions.NoScriptError("NOSCRIPT")), taken])
    assert second[0][0] == "SCRIPT LOAD"
    assert second[1:] == first
    assert len(batch.accepted()) == 2


def test_a_server_that_forgets_the_script_at_once_is_an_error() -> None:
    batch = a_batch([a_message()])
    assert len(run(batch, [always(redis.exceptions.NoScriptError("No matching script"))])) == 2
    with pytest.raises(QueueUnavailable, match="No matching script"):
        batch.receipt(0)


def test_a_full_lane_does_not_keep_another_lane_out() -> None:
    batch = a_batch([a_message(1), a_message(2, kind="marketing"), a_message(3)])
    run(batch, [lambda commands: [2, -10_000]])
    assert [one.id for one in batch.accepted()] == ["m1", "m3"]
    with pytest.raises(Backpressure, match=r"pf:\{ingress:bulk\} holds 10000 entries and has no room for 1 more"):
        batch.receipt(1)
    error = batch.error(("m1", "m3"))
    assert isinstance(error, Backpressure)
    assert error.accepted == ("m1", "m3")
    assert "2 messages of this call were accepted" in str(error)


def test_nothing_more_is_sent_to_a_lane_that_is_full() -> None:
    batch = a_batch([*map(a_message, range(3_000)), *(a_message(n, kind="marketing") for n in range(3_000, 3_500))])
    sent = run(batch, [lambda commands: [-10_000, 400], taken])
    assert [[lane_of(one) for one in commands] for commands in sent] == [
        ["pf:{ingress:normal}", "pf:{ingress:bulk}"],
        ["pf:{ingress:bulk}"],
    ]
    assert len(batch.accepted()) == 500


@pytest.mark.parametrize(
    ("reply", "kind", "sentence"),
    [
        (redis.OutOfMemoryError("command not allowed"), Backpressure, "Redis is out of memory"),
        (
            redis.exceptions.NoPermissionError("no rights"),
            QueueUnavailable,
            r"the Redis user needs \+evalsha .*no rights",
        ),
        (redis.ResponseError("WRONGTYPE"), QueueUnavailable, "Redis refused: WRONGTYPE"),
    ],
)
def test_a_refusal_of_redis_has_its_reason(reply: Exception, kind: type[EnqueueError], sentence: str) -> None:
    batch = a_batch([a_message(1), a_message(2, kind="call")])
    run(batch, [always(reply)])
    for place in (0, 1):
        with pytest.raises(kind, match=sentence):
            batch.receipt(place)


def test_each_caller_gets_an_exception_of_its_own() -> None:
    batch = a_batch([a_message(1), a_message(2)])
    run(batch, [always(-5)])
    errors = []
    for place in (0, 1):
        with pytest.raises(Backpressure) as problem:
            batch.receipt(place)
        errors.append(problem.value)
    assert errors[0] is not errors[1]


def test_a_batch_that_was_never_sent_says_that_it_was_interrupted() -> None:
    with pytest.raises(QueueUnavailable, match="interrupted"):
        a_batch([a_message()]).receipt(0)


def test_replicas_that_do_not_confirm_are_an_error_that_says_the_message_may_be_in() -> None:
    policy = msgspec.structs.replace(POLICY, wait_replicas=2)
    batch = a_batch([a_message()])
    (commands,) = run(batch, [lambda commands: [1, 1]], policy)
    assert commands[-1] == ("WAIT", 2, 100)
    with pytest.raises(QueueUnavailable, match=r"1 of 2 replicas confirmed within 100 ms; .* may be in the queue"):
        batch.receipt(0)


def test_replicas_that_confirm_make_a_receipt() -> None:
    batch = a_batch([a_message()])
    run(batch, [lambda commands: [1, 2]], msgspec.structs.replace(POLICY, wait_replicas=2))
    assert batch.receipt(0).id == "m0"


def test_a_wait_that_redis_refuses_is_an_error() -> None:
    batch = a_batch([a_message()])
    run(
        batch,
        [lambda commands: [1, redis.ResponseError("WAIT cannot be used")]],
        msgspec.structs.replace(POLICY, wait_replicas=1),
    )
    with pytest.raises(QueueUnavailable, match="WAIT cannot be used"):
        batch.receipt(0)


def memory(used: int, most: int) -> Answer:
    def answer(commands: list[Command]) -> list[Any]:
        if commands == [("INFO", "memory")]:
            return [{"used_memory": used, "maxmemory": most}]
        return taken(commands)

    return answer


@pytest.mark.parametrize(("used", "most", "refused"), [(70, 100, True), (69, 100, False), (69, 0, False)])
def test_memory_over_the_mark_refuses_everything(used: int, most: int, refused: bool) -> None:
    batch = a_batch([a_message()])
    sent = run(batch, [memory(used, most)], gauge=MemoryGauge(0.7))
    assert len(sent) == (1 if refused else 2)
    if refused:
        with pytest.raises(Backpressure, match="Redis uses 70% of its maxmemory, the mark is 70%"):
            batch.receipt(0)


def test_memory_is_looked_at_once_a_second_and_the_answer_holds_meanwhile() -> None:
    now = 100.0
    gauge = MemoryGauge(0.7, clock=lambda: now)
    looks = []
    for now, used in ((100.0, 90), (100.9, 10), (101.0, 10), (101.5, 90), (102.0, 90)):  # noqa: B007
        batch = a_batch([a_message()])
        sent = run(batch, [memory(used, 100)], gauge=gauge)
        looks.append((("INFO", "memory") in [commands[0] for commands in sent], batch.error(()) is None))
    assert looks == [(True, False), (False, False), (True, True), (False, True), (True, False)]


def test_a_failed_look_at_memory_is_repeated_by_the_next_call() -> None:
    gauge = MemoryGauge(0.7, clock=lambda: 100.0)
    for _ in range(2):
        batch = a_batch([a_message()])
        sent = run(batch, [always(redis.exceptions.NoPermissionError("info"))], gauge=gauge)
        assert sent == [[("INFO", "memory")]]
        with pytest.raises(QueueUnavailable, match=r"\+info"):
            batch.receipt(0)


def collect(messages: Iterable[OfflineMessage]) -> tuple[Run, list[Batch]]:
    many = Run(POLICY, MemoryGauge(1.0), None)
    batches = []
    for batch in many.batches(messages):
        if batch is not None:
            run(batch, [taken])
            many.finish(batch)
            batches.append(batch)
    return many, batches


def test_a_long_iterable_goes_in_chunks_and_is_not_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "WHOLE_MESSAGES", 10)
    drawn: list[int] = []

    def source() -> Iterable[OfflineMessage]:
        for number in range(25):
            drawn.append(number)
            yield a_message(number)

    many = Run(POLICY, MemoryGauge(1.0), None)
    read_when_sent = []
    for batch in many.batches(source()):
        assert batch is not None
        read_when_sent.append(len(drawn))
        run(batch, [taken])
        many.finish(batch)
    assert read_when_sent == [10, 20, 25]
    assert many.receipt == BatchReceipt(messages=25, parts=25, recipients=25)


def test_a_chunk_ends_early_when_its_messages_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "WHOLE_BYTES", 1_000)
    _, batches = collect(msgspec.structs.replace(a_message(n), body="x" * 400) for n in range(7))
    assert [len(batch) for batch in batches] == [3, 3, 1]


def test_a_bad_message_in_a_later_chunk_says_what_the_earlier_ones_achieved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "WHOLE_MESSAGES", 10)
    bad = msgspec.structs.replace(a_message(17), ttl_s=-1)
    with pytest.raises(InvalidMessage) as problem:
        collect(bad if number == 17 else a_message(number) for number in range(25))
    assert problem.value.index == 17
    assert problem.value.accepted == tuple(f"m{number}" for number in range(10))
    assert str(problem.value) == (
        "messages[17]: not an OfflineMessage: Expected `int` >= 0 - at `$.ttl_s` "
        "(10 messages of this call were accepted: see .accepted)"
    )


def test_encoding_pauses_for_the_event_loop() -> None:
    many = Run(POLICY, MemoryGauge(1.0), None)
    steps = [batch is None for batch in many.batches(map(a_message, range(1_000)))]
    assert steps == [True] * 5 + [False]
    large = list(many.batches([a_message(people=500 * 100)]))
    assert [batch is None for batch in large] == [True] * 5 + [False]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("prefix", ""),
        ("prefix", "a{b}"),
        ("linger_ms", -1),
        ("linger_ms", 10_001),
        ("ingress_max", 0),
        ("memory_mark", 0),
        ("memory_mark", 1.1),
        ("wait_replicas", -1),
        ("socket_timeout_s", 0),
    ],
)
def test_a_setting_out_of_range_is_named(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{setting} must"):
        msgspec.structs.replace(POLICY, **{setting: value})


@pytest.mark.parametrize("wait_timeout_ms", [0, 5_000])
def test_waiting_for_replicas_must_end_before_the_socket_gives_up(wait_timeout_ms: int) -> None:
    with pytest.raises(ValueError, match="wait_timeout_ms must be above 0 and below socket_timeout_s"):
        msgspec.structs.replace(POLICY, wait_replicas=1, wait_timeout_ms=wait_timeout_ms)
