"""What becomes of deliveries that the vendor has answered for."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.workers.courier_play import BAD, DEAD_TOKEN, RETRY, UNKNOWN, dead_letters, named, on_bench, replaced
from tests.workers.doubles import QUICK, Bench, Cloud, a_bench, until
from tests.workers.ledger.support import put

from pushfleet.message import ApnsOptions, OfflinePush
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ledger import Entry, Ledger, pack, unpack
from pushfleet_workers.outcome import OK, Outcome, Remedy, Scope, Verdict
from pushfleet_workers.push import Delivery, Parcel, Push
from pushfleet_workers.recheck import Rechecked
from pushfleet_workers.vendor import Request

# ---- outcomes


def test_only_what_failed_is_tried_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        entry = named("m", deliveries=5)
        bench.cloud.answer("m-2", RETRY, RETRY, OK)
        await put(bench.link, entry)
        assert await bench.finish() == {"sent": 5}
        assert bench.cloud.requests[1:] == [["m-2"], ["m-2"]]

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_a_delivery_is_tried_as_often_as_the_account_allows_and_lies_in_the_dead_letters(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", RETRY)
        await put(bench.link, named("m", deliveries=2))
        assert await bench.finish() == {"sent": 1, "dead:attempts": 1}
        assert bench.cloud.tokens.count("m-0") == QUICK.attempts_max
        (letter,) = await dead_letters(bench)
        assert (letter[b"reason"], letter[b"code"], letter[b"attempts"]) == (b"attempts", b"Busy", b"4")
        assert [one.token for one in unpack(letter[b"entry"]).parcel.deliveries] == ["m-0"]

    on_bench(redis_url, scenario)


def test_a_dead_letter_names_its_own_code_and_not_its_neighbours(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", DEAD_TOKEN)
        bench.cloud.answer("m-1", BAD)
        bench.cloud.answer("m-2", Outcome(Verdict.BAD_PAYLOAD, code="TooRude"))
        await put(bench.link, named("m", deliveries=3))
        assert await bench.finish() == {"dead:bad_payload": 2, "dropped:token_dead": 1}
        assert {letter[b"code"] for letter in await dead_letters(bench)} == {b"BadPayload", b"TooRude"}

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_dead_tokens_inside_a_partial_success_are_reported_once_each(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-1", DEAD_TOKEN)
        bench.cloud.answer("m-3", Outcome(Verdict.MUTE_DEVICE))
        await put(bench.link, named("m", deliveries=5))
        assert await bench.finish() == {"sent": 3, "dropped:token_dead": 1, "dropped:device_muted": 1}
        assert [(app, token) for app, token, _ in bench.feedback] == [("demo", "m-1"), ("demo", "m-3")]
        assert bench.feedback[0][2].since_ms == 5

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_while_no_token_dies_nothing_is_told(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        async def unwanted(app: str, deliveries: object, outcomes: object) -> None:
            told.append(app)

        told: list[str] = []
        bench.courier._feedback = unwanted
        bench.cloud.answer("m-0", RETRY, OK)
        await put(bench.link, named("m", deliveries=50))
        assert await bench.finish() == {"sent": 50}
        assert told == []
        assert await bench.link.call("EXISTS", bench.keys.deaths) == 0

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_an_answer_is_told_as_a_whole(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        async def counting(app: str, deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
            told.append([outcome.verdict for outcome in outcomes])

        told: list[list[Verdict]] = []
        bench.courier._feedback = counting
        bench.cloud.answer("m-1", DEAD_TOKEN)
        await put(bench.link, named("m", deliveries=3))
        assert await bench.finish() == {"sent": 2, "dropped:token_dead": 1}
        assert told == [[Verdict.OK, Verdict.DROP_TOKEN, Verdict.OK]], "the share of deaths is that of the answer"

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_feedback_that_fails_does_not_cost_the_answer(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        async def broken(app: str, deliveries: object, outcomes: object) -> None:
            raise ValueError("m-0 is a token")

        bench.courier._feedback = broken
        bench.cloud.answer("m-0", DEAD_TOKEN)
        await put(bench.link, named("m"))
        assert await bench.finish() == {"dropped:token_dead": 1}

    on_bench(redis_url, scenario)
    assert "ValueError" in caplog.text
    assert "m-0" not in caplog.text


@pytest.mark.parametrize(("remedy", "sizes"), [(Remedy.SPLIT, [4, 2, 2]), (Remedy.SINGLE_SEND, [4, 1, 1, 1, 1]),
                                               (Remedy.SHRINK, [4, 4])])  # fmt: skip
def test_a_remedy_is_tried_once(redis_url: str, remedy: Remedy, sizes: list[int]) -> None:
    async def scenario(bench: Bench) -> None:
        wants_remedy = replace(BAD, remedy=remedy)
        bench.cloud.script = lambda token, auth: wants_remedy
        await put(bench.link, named("m", deliveries=4))
        assert await bench.finish() == {"dead:bad_payload": 4}
        assert [len(request) for request in bench.cloud.requests] == sizes

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=10))


def test_what_has_expired_is_never_sent(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, named("old", deliveries=3, ttl_s=-1), named("new"))
        assert await bench.finish() == {"dropped:expired": 3, "sent": 1}
        assert bench.cloud.tokens == ["new-0"]

    on_bench(redis_url, scenario)


def test_what_was_dropped_is_told_and_nothing_else(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("gone-0", DEAD_TOKEN)
        bench.cloud.answer("bad-0", BAD)
        await put(bench.link, named("old", deliveries=2, ttl_s=-1), named("gone"), named("bad"), named("new"))
        assert await bench.finish() == {"dropped:expired": 2, "dropped:token_dead": 1, "dead:bad_payload": 1, "sent": 1}
        await until(lambda: sorted(bench.forgotten) == ["bad-0", "gone-0", "old-0", "old-1"])

    on_bench(redis_url, scenario)


def test_what_tells_of_others_holds_as_long_as_they_do(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        carrier, alone = named("carrier", ttl_s=-1), named("alone", ttl_s=-1)
        for entry in (carrier, alone):
            push = msgspec.structs.replace(entry.parcel.push, later="storm")
            entry.parcel = Parcel(push, entry.parcel.deliveries)
        (one,), push = carrier.parcel.deliveries, carrier.parcel.push
        bench.rendered = {one.id: msgspec.structs.replace(push, body="3", expires_at_ms=push.expires_at_ms + 60_000)}
        await put(bench.link, carrier, alone)
        assert await bench.finish() == {"dropped:expired": 1, "sent": 1}
        assert bench.cloud.tokens == ["carrier-0"]

    on_bench(redis_url, scenario)


def test_what_waited_is_decided_again(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        old = named("old", deliveries=3, put_ms=time.time() * 1000 - 5_000)
        recalled = named("recalled", put_ms=time.time() * 1000 - 5_000)
        bench.refused = {old.parcel.deliveries[1].id: "recalled", recalled.parcel.deliveries[0].id: "muted"}
        await put(bench.link, old, recalled, named("fresh"))
        assert await bench.finish() == {"sent": 3, "suppressed:recalled": 1, "suppressed:muted": 1}
        assert bench.rechecked == [old.id, recalled.id]
        assert set(bench.cloud.tokens) == {"old-0", "old-2", "fresh-0"}

    on_bench(redis_url, scenario, recheck_s=2.0)


def test_what_was_put_for_later_is_decided_again_however_young(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        held = named("held")
        held.parcel = Parcel(msgspec.structs.replace(held.parcel.push, later="held"), held.parcel.deliveries)
        due_ms = int(time.time() * 1000) + 60
        await bench.link.run_many([Ledger.put_call(bench.keys, 1, [(held.id, [(due_ms, pack(held))])], 0)])
        await put(bench.link, named("fresh"))
        assert await bench.finish() == {"sent": 2}
        assert bench.rechecked == [held.id]
        assert bench.cloud.tokens == ["fresh-0", "held-0"]

    on_bench(redis_url, scenario)


@pytest.mark.parametrize("batch_size", [1, 10])
def test_deliveries_of_a_parcel_that_shall_say_different_things_part(redis_url: str, batch_size: int) -> None:
    async def scenario(bench: Bench) -> None:
        entry = named("m", deliveries=5, put_ms=1)
        one, two, three, four, _ = entry.parcel.deliveries
        news = msgspec.structs.replace(entry.parcel.push, body="3 new messages")
        other = msgspec.structs.replace(entry.parcel.push, body="7 new messages")
        bench.rendered = {one.id: news, two.id: other, three.id: news}
        bench.refused = {four.id: "muted"}
        await put(bench.link, entry)
        assert await bench.finish() == {"sent": 4, "suppressed:muted": 1}
        said = dict(zip(bench.cloud.tokens, bench.cloud.bodies, strict=True))
        assert said == {"m-0": news.body, "m-1": other.body, "m-2": news.body, "m-4": "hi"}

    on_bench(redis_url, scenario, recheck_s=2.0, cloud=Cloud(batch_size=batch_size))


def test_what_was_tried_and_what_takes_a_message_back_is_decided_again_however_young(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        failed, recall, fresh = named("failed"), named("recall"), named("fresh")
        recall.parcel = Parcel(msgspec.structs.replace(recall.parcel.push, recall=True), recall.parcel.deliveries)
        bench.cloud.answer("failed-0", Outcome(Verdict.RETRY), OK)
        await put(bench.link, failed, recall, fresh)
        # The cloud has no means of its own, and the bench's pushes no replace key.
        assert await bench.finish() == {"sent": 2, "dropped:not_recallable": 1}
        assert bench.rechecked[0] == recall.id
        assert len(bench.rechecked) == 2, "the second try of what failed"
        assert fresh.id not in bench.rechecked

    on_bench(redis_url, scenario)


@pytest.mark.parametrize("problem", [RedisUnusable("gone"), ValueError("damaged record of user u0")])
def test_without_the_state_the_first_decision_stands(
    redis_url: str, problem: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(bench: Bench) -> None:
        async def broken(entries: Sequence[Entry]) -> Rechecked:
            raise problem

        bench.courier._still_wanted._recheck = broken
        await put(bench.link, named("a", put_ms=1), named("b", put_ms=1))
        assert await bench.finish() == {"sent": 2}

    on_bench(redis_url, scenario, recheck_s=2.0)
    assert "u0" not in caplog.text


# ---- one bad thing stays alone


def test_a_vendor_module_that_raises_costs_only_its_own_delivery(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.build_fails = {"bad-0"}
        await put(bench.link, named("good", deliveries=3), named("bad"), named("fine"))
        assert await bench.finish() == {"sent": 4, "dead:bad_payload": 1}
        (letter,) = await dead_letters(bench)
        assert letter[b"code"] == b"vendor_module_failed"

    on_bench(redis_url, scenario)
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


def test_an_answer_with_too_few_outcomes_leaves_nothing_in_hand(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.read_fails = {"m-1"}
        await put(bench.link, named("m", deliveries=3), named("n"))
        assert await bench.finish() == {"sent": 1, "dead:attempts": 3}

    on_bench(redis_url, scenario, cloud=Cloud(batch_size=3))


def test_a_transport_that_breaks_its_promise_leaves_nothing_in_hand(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("m-0", ValueError("not a NoAnswer"), OK)
        await put(bench.link, named("m", deliveries=3))
        assert await bench.finish() == {"sent": 3}
        assert (await bench.book()).unknown == 1

    on_bench(redis_url, scenario)


# ---- classes


NO_RIGHT = Outcome(Verdict.MISCONFIGURED, Scope.CLASS, code="no_right")


def test_a_class_pause_holds_for_every_process_of_the_fleet(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("first-0", NO_RIGHT)
        await put(bench.link, named("first"))
        assert (await bench.courier.claim()).entries
        await bench.settled()
        assert "no_right: The right is missing: ask for it." in caplog.text
        async with a_bench(redis_url, owner="w2") as other:
            await put(bench.link, named("chat"), replaced(named("call"), kind="call"))
            assert (await other.courier.claim()).entries
            await other.settled()
            assert other.cloud.tokens == ["call-0"], "the other kind goes on"
            assert (await other.book()).delayed == 2

    on_bench(redis_url, scenario)


def test_a_class_that_the_message_asked_for_is_its_own_fault(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.answer("asks-0", NO_RIGHT)
        asking = replaced(named("asks"), options=OfflinePush(apns=ApnsOptions(push_type="voip")))
        await put(bench.link, asking, named("chat"))
        assert await bench.finish() == {"dead:bad_payload": 1, "sent": 1}

    on_bench(redis_url, scenario)


# ---- taking back


def test_a_recall_that_the_vendor_cannot_carry_out_is_dropped_as_such(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(
            bench.link,
            replaced(named("bare"), recall=True, revision=1, replace_key=""),
            replaced(named("keyed"), recall=True, revision=1, replace_key="c1"),
        )
        assert await bench.finish() == {"dropped:not_recallable": 1, "sent": 1}
        assert bench.cloud.tokens == ["keyed-0"], "it is replaced where it cannot be withdrawn"

    on_bench(redis_url, scenario)


def test_the_vendor_module_hears_how_often_a_delivery_left_before(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        tries: list[int] = []
        build = bench.cloud.build

        def noting(account: Any, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int) -> Request:
            tries.extend(one.tries for one in deliveries)
            return build(account, push, deliveries, auth, now_ms)

        bench.cloud.build = noting  # type: ignore[method-assign]
        bench.cloud.answer("m-0", Outcome(Verdict.RETRY, Scope.ACCOUNT, code="502"), UNKNOWN, OK)
        await put(bench.link, named("m"))
        assert await bench.finish() == {"sent": 1}
        assert tries == [0, 1, 2]
        lost = named("lost")
        lost.lost = 1
        await put(bench.link, lost)
        await bench.finish()
        assert tries[3:] == [1], "a process died with it in hand"

    on_bench(redis_url, scenario)
