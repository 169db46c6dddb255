import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.workers.ledger.support import KEYS, PLENTY, a_ledger, an_entry, books, put

from pushfleet_workers.ledger import GateNews, Ledger, Settlement, pack
from pushfleet_workers.ledger.keys import MARK_BUCKET_MS
from pushfleet_workers.ledger.ledger import PutEntry, Rate, Want, trim_marks
from pushfleet_workers.redis_link import Link


def on_redis(url: str, scenario: Callable[[Link], Awaitable[None]]) -> None:
    async def run() -> None:
        link = Link(url)
        try:
            await scenario(link)
        finally:
            await link.close()

    asyncio.run(run())


def sent(entry_id: bytes, fence: int, size: int = 1) -> Settlement:
    return Settlement(entry_id, fence, size, ended=size, ends={"normal:sent:": size}, accepted=(b"x" * 16,))


def test_a_part_is_decided_once(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        first = an_entry("m1", deliveries=3)
        again = an_entry("m1", deliveries=2)
        assert await put(link, first) == [3]
        assert await put(link, again) == [3]
        assert await put(link, again, bucket=2) == [3], "the bucket before is asked as well"
        assert (await books(link))["put"] == 3
        assert len((await a_ledger(link).claim(PLENTY)).entries) == 1

    on_redis(redis_url, scenario)


def test_what_is_put_for_later_waits_until_it_is_due_and_goes_first_then(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        now, soon, late = an_entry("now"), an_entry("soon", deliveries=2), an_entry("late")
        due_ms = int(time.time() * 1000)
        entries: list[PutEntry] = [(due_ms - 1, pack(soon)), pack(now), (due_ms + 60_000, pack(late))]
        call = Ledger.put_call(KEYS, 1, [(b"part", entries), (b"other", [pack(an_entry("next"))])], 0)
        assert [answer[2] for answer in await link.run_many([call, call])] == [[4, 1], [4, 1]]
        book = await books(link)
        assert (book["put"], book["ready"], book["delayed"]) == (5, 2, 3)
        claim = await a_ledger(link).claim(PLENTY)
        assert [entry.parcel.push.message_id for entry in claim.entries] == ["soon", "now", "next"]
        again = await a_ledger(link).claim(PLENTY)
        assert (again.entries, again.left) == ([], 0)
        assert 0 < again.wait_ms <= 60_000
        assert (await books(link))["delayed"] == 1

    on_redis(redis_url, scenario)


def test_parts_with_more_or_fewer_entries_for_now_and_for_later_are_told_apart(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        due_ms = int(time.time() * 1000) + 60_000

        def part(number: int) -> tuple[bytes, list[PutEntry]]:
            entries: list[PutEntry] = [pack(an_entry(f"{number}/{one}", deliveries=2)) for one in range(number % 4)]
            later = [(due_ms, pack(an_entry(f"{number}/later/{one}"))) for one in range(number % 3)]
            # In any order.
            return b"part-%d" % number, [*later[:1], *entries, *later[1:]]

        parts = [part(number) for number in range(24)]
        (answer,) = await link.run_many([Ledger.put_call(KEYS, 1, parts, 0)])
        assert answer[2] == [2 * (number % 4) + number % 3 for number in range(24)]
        now = await books(link)
        assert (now["ready"], now["delayed"]) == (2 * 36, 24)
        claim = await a_ledger(link).claim(PLENTY)
        names = [entry.parcel.push.message_id for entry in claim.entries]
        assert names == [f"{number}/{one}" for number in range(24) for one in range(number % 4)]
        # The same with a new one between: only that is new.
        (again,) = await link.run_many([Ledger.put_call(KEYS, 1, [*parts[:9], part(25), *parts[9:]], 0)])
        assert (again[1], again[2][9]) == (24, 2 * 1 + 1)
        assert again[2][:9] + again[2][10:] == answer[2]

    on_redis(redis_url, scenario)


def test_what_waits_counts_in_the_share_of_the_ledger(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        entries: list[PutEntry] = [(2**50, pack(an_entry(f"b{n}", lane="bulk"))) for n in range(3)]
        await link.run_many([Ledger.put_call(KEYS, 1, [(b"part", entries)], 2)])
        book = await books(link)
        assert (book["put"], book["delayed"], book["end:bulk:dropped:backlog"]) == (3, 2, 1)

    on_redis(redis_url, scenario)


def test_whoever_puts_again_hears_what_there_was_no_room_for(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        held, *lost = [an_entry(f"b{n}", lane="bulk") for n in range(4)]
        more = an_entry("more", lane="bulk")

        def put_call(bucket: int, most: int) -> Any:
            for_later: list[PutEntry] = [(2**50, pack(one)) for one in (held, *lost)]
            parts = [(b"part", for_later), (b"more", [(2**50, pack(more))]), (b"now", [pack(an_entry("n"))])]
            return Ledger.put_call(KEYS, bucket, parts, most)

        expected = [one.id for one in (*lost, more)]
        first, second = await link.run_many([put_call(1, 1), put_call(2, 0)])
        assert (first[1:], second[1:]) == ([0, [4, 1, 1], expected], [3, [4, 1, 1], expected])
        (unasked,) = await link.run_many([Ledger.put_call(KEYS, 1, [(b"now", [])], 0)])
        assert unasked[3] == []
        book = await books(link)
        assert (book["put"], book["end:bulk:dropped:backlog"]) == (6, 4)

    on_redis(redis_url, scenario)


def test_markers_are_trimmed_by_age(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1"), bucket=1)
        await put(link, an_entry("m2"), bucket=5)
        assert await trim_marks(link, KEYS, 4 * MARK_BUCKET_MS) == 1
        assert await link.call("EXISTS", KEYS.marks(1), KEYS.marks(5)) == 1

    on_redis(redis_url, scenario)


def test_claims_serve_urgent_before_normal_before_bulk(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("b", lane="bulk"), an_entry("n", lane="normal"), an_entry("u", lane="urgent"))
        claim = await a_ledger(link).claim(PLENTY)
        assert [entry.lane for entry in claim.entries] == ["urgent", "normal", "bulk"]

    on_redis(redis_url, scenario)


def test_bulk_keeps_a_minimum_share_under_a_flood_of_urgent_work(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, *[an_entry(f"u{n}", lane="urgent") for n in range(50)])
        await put(link, *[an_entry(f"b{n}", lane="bulk") for n in range(5)])
        ledger = a_ledger(link)
        lanes = [entry.lane for _ in range(20) for entry in (await ledger.claim(Want(1, 1, 1))).entries]
        assert lanes.count("bulk") == 2

    on_redis(redis_url, scenario)


async def claimed_by_lane(link: Link, rate: Rate, *, until: str, parcels: int) -> dict[str, int]:
    """Claim one after another as soon as there is more; deliveries by lane once *until* got so many *parcels*."""
    ledger, found, left = a_ledger(link, rate=rate), Counter[str](), parcels
    while left > 0:
        claim = await ledger.claim(PLENTY)
        found.update({entry.lane: 0 for entry in claim.entries})
        for entry in claim.entries:
            found[entry.lane] += len(entry.parcel.deliveries)
            left -= entry.lane == until
        assert claim.left, "it came last"
        await asyncio.sleep(claim.wait_ms / 1000)
    return dict(found)


def test_bulk_parcels_larger_than_what_others_leave_keep_a_minimum_share(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, *[an_entry(f"b{n}", deliveries=20, lane="bulk") for n in range(9)])
        await put(link, *[an_entry(f"n{n}") for n in range(3_000)])
        found = await claimed_by_lane(link, Rate(1_000.0, 100), until="bulk", parcels=3)
        assert found["bulk"] == 60
        assert 300 < found["normal"] < 900, "about a tenth is for bulk"

    on_redis(redis_url, scenario)


def test_parcels_that_fill_the_bucket_are_not_kept_waiting_by_what_bulk_saves(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        rate = Rate(1_000.0, 100)
        assert rate.capacity == 50
        await put(link, *[an_entry(f"b{n}", deliveries=50, lane="bulk") for n in range(40)])
        await put(link, *[an_entry(f"u{n}", deliveries=50, lane="urgent") for n in range(40)])
        found = await claimed_by_lane(link, rate, until="urgent", parcels=20)
        assert 50 <= found["bulk"] <= 250

    on_redis(redis_url, scenario)


def test_what_is_settled_leaves_and_is_counted(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1"), an_entry("m2"))
        ledger = a_ledger(link)
        one, two = (await ledger.claim(PLENTY)).entries
        assert await ledger.settle([sent(one.id, one.fence)]) == []
        now = await books(link)
        assert (now["put"], now["ready"], now["leased"], now["ended"]) == (2, 0, 1, 1)
        assert now["end:normal:sent:"] == 1
        assert await ledger.settle([sent(two.id, two.fence)]) == []
        assert await link.call("EXISTS", KEYS.leased("w1")) == 0

    on_redis(redis_url, scenario)


def test_settling_twice_changes_nothing(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1"))
        ledger = a_ledger(link)
        (entry,) = (await ledger.claim(PLENTY)).entries
        settlement = sent(entry.id, entry.fence)
        assert await ledger.settle([settlement]) == []
        assert await ledger.settle([settlement]) == [settlement]
        assert (await books(link))["ended"] == 1

    on_redis(redis_url, scenario)


def test_of_many_results_those_whose_lease_is_gone_or_another_are_named(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        ledger = a_ledger(link)
        held = []
        for number in range(40):
            await put(link, an_entry(f"m{number}", deliveries=1 + number % 3))
            (entry,) = (await ledger.claim(PLENTY)).entries
            held.append(entry)
        results = [sent(one.id, one.fence, len(one.parcel.deliveries)) for one in held]
        # Of another claim, of another size, of nobody.
        results[7].fence += 1
        results[20] = sent(held[20].id, held[20].fence, 4)
        results[39].id = b"?" * 16
        wrong = [results[7], results[20], results[39]]
        assert await ledger.settle(results) == wrong
        now = await books(link)
        settled = sum(one.size for one in results if one not in wrong)
        assert (now["ended"], now["end:normal:sent:"], now["leased"]) == (settled, settled, now["put"] - settled)
        assert await link.call("HLEN", KEYS.leased("w1")) == 3

    on_redis(redis_url, scenario)


def test_a_partial_settlement_counts_once_even_when_repeated_with_the_last(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        entry = an_entry("m1", deliveries=3)
        await put(link, entry)
        ledger = a_ledger(link)
        (held,) = (await ledger.claim(PLENTY)).entries
        rest = an_entry("m1", deliveries=1)
        partial = Settlement(held.id, held.fence, 3, ended=2, ends={"normal:sent:": 2}, rest=pack(rest))
        assert await ledger.settle([partial]) == []
        assert await ledger.settle([partial, sent(held.id, held.fence)]) == [partial]
        now = await books(link)
        assert (now["leased"], now["ended"], now["end:normal:sent:"]) == (0, 3, 3)

    on_redis(redis_url, scenario)


def test_a_part_and_the_rest_may_be_settled_in_one_call(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1", deliveries=3))
        ledger = a_ledger(link)
        (held,) = (await ledger.claim(PLENTY)).entries
        partial = Settlement(held.id, held.fence, 3, ended=2, rest=pack(an_entry("m1", deliveries=1)))
        assert await ledger.settle([partial, sent(held.id, held.fence)]) == []
        assert (await books(link))["leased"] == 0
        assert await link.call("EXISTS", KEYS.leased("w1")) == 0

    on_redis(redis_url, scenario)


def test_a_postponed_delivery_comes_back_when_it_is_due_and_not_before(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1"))
        ledger = a_ledger(link)
        (entry,) = (await ledger.claim(PLENTY)).entries
        again = an_entry("m1-again")
        await ledger.settle([Settlement(entry.id, entry.fence, 1, later=[(150, pack(again))])])
        early = await ledger.claim(PLENTY)
        assert early.entries == []
        assert 0 < early.wait_ms <= 150
        assert (await books(link))["delayed"] == 1
        await asyncio.sleep((early.wait_ms + 5) / 1000)
        (due,) = (await ledger.claim(PLENTY)).entries
        assert due.id == again.id
        assert (await books(link))["delayed"] == 0

    on_redis(redis_url, scenario)


def test_what_is_given_back_keeps_its_place(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1"), an_entry("m2"))
        ledger = a_ledger(link)
        (first,) = (await ledger.claim(Want(1, 1, 1))).entries
        await ledger.settle([Settlement(first.id, first.fence, 1, give_back=True)])
        claim = await ledger.claim(PLENTY)
        assert [entry.id for entry in claim.entries] == [an_entry("m1").id, an_entry("m2").id]

    on_redis(redis_url, scenario)


def test_a_dead_process_gives_back_and_its_late_results_do_not_count_twice(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1"))
        dead, alive = a_ledger(link, "dead"), a_ledger(link, "alive")
        (entry,) = (await dead.claim(PLENTY)).entries
        assert await alive.reap() == 0, "it beat a moment ago"
        await link.call("ZADD", KEYS.owners, 1, "dead")
        assert await alive.reap() == 1
        assert (await books(link))["unknown"] == 1
        delivery = entry.parcel.deliveries[0].id
        late = Settlement(entry.id, entry.fence, 1, ended=1, ends={"normal:sent:": 1}, accepted=(delivery,))
        assert await dead.settle([late]) == [late]
        claim = await alive.claim(PLENTY)
        assert claim.entries[0].lost == 1
        assert claim.late_oks == {delivery}, "the late acceptance is known to whoever claims next"

    on_redis(redis_url, scenario)


def test_an_entry_that_kills_its_process_is_singled_out_and_then_dead(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("poison"), an_entry("innocent"))
        for round_ in range(2):
            ledger = a_ledger(link, f"w{round_}")
            assert len((await ledger.claim(PLENTY)).entries) == 2
            await link.call("ZADD", KEYS.owners, 1, f"w{round_}")
            await ledger.reap()
        alone = a_ledger(link, "w2")
        claim = await alone.claim(PLENTY)
        assert (len(claim.entries), claim.suspects) == (1, 1), "suspects travel singly"
        await link.call("ZADD", KEYS.owners, 1, "w2")
        assert await alone.reap() == 0
        now = await books(link)
        assert now["end:normal:dead:poison"] == 1
        assert await link.call("XLEN", KEYS.dead) == 1
        assert len((await a_ledger(link, "w3").claim(PLENTY)).entries) == 1

    on_redis(redis_url, scenario)


def test_a_claim_whose_answer_was_lost_is_recovered(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1"), an_entry("m2"))
        ledger = a_ledger(link)
        claimed = (await ledger.claim(PLENTY)).entries
        (missing,) = await ledger.recover({claimed[0].id})
        assert (missing.id, missing.fence) == (claimed[1].id, claimed[1].fence)

    on_redis(redis_url, scenario)


def test_a_full_account_drops_new_bulk_work_and_nothing_else(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("n1", deliveries=5), share_max=5)
        await put(link, an_entry("b1", deliveries=2, lane="bulk"), an_entry("n2", deliveries=2), share_max=5)
        now = await books(link)
        assert (now["put"], now["ready"], now["ended"], now["end:bulk:dropped:backlog"]) == (9, 7, 2, 2)

    on_redis(redis_url, scenario)


def test_a_pause_holds_all_work_until_it_ends(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("m1"))
        ledger = a_ledger(link)
        await ledger.tell_gate(GateNews(pause_ms=120, reason="TooMany"))
        claim = await ledger.claim(PLENTY)
        assert (claim.entries, claim.left) == ([], 1)
        assert 0 < claim.wait_ms <= 120
        await asyncio.sleep((claim.wait_ms + 5) / 1000)
        assert len((await ledger.claim(PLENTY)).entries) == 1

    on_redis(redis_url, scenario)


def test_the_breaker_opens_probes_with_one_parcel_and_closes(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, *[an_entry(f"m{n}") for n in range(5)])
        ledger = a_ledger(link)
        ledger.breaker = type(ledger.breaker)(failures=3, open_min_ms=80, open_max_ms=1_000)
        assert (await ledger.tell_gate(GateNews(bad=2)))[0] == "closed"
        state, wait_ms = await ledger.tell_gate(GateNews(bad=1, reason="unreachable"))
        assert (state, wait_ms) == ("open", 80)
        assert (await ledger.claim(PLENTY)).entries == []
        await asyncio.sleep(0.09)
        probe = await ledger.claim(PLENTY)
        assert len(probe.entries) == 1
        assert probe.gate_listens
        assert (await ledger.claim(PLENTY)).entries == [], "one probe at a time"
        assert (await ledger.tell_gate(GateNews(good=1)))[0] == "closed"
        assert len((await ledger.claim(PLENTY)).entries) == 4

    on_redis(redis_url, scenario)


def test_a_breaker_that_opens_again_stays_open_longer(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        ledger = a_ledger(link)
        ledger.breaker = type(ledger.breaker)(failures=1, open_min_ms=20, open_max_ms=60)
        waits = []
        for _ in range(4):
            waits.append((await ledger.tell_gate(GateNews(bad=1)))[1])
            await asyncio.sleep((waits[-1] + 5) / 1000)
        assert waits == [20, 40, 60, 60]

    on_redis(redis_url, scenario)


@pytest.mark.parametrize(("rate_per_s", "burst"), [(200.0, 100), (50.0, 10), (1000.0, 1000), (5.0, 1)])
def test_a_burst_is_bounded_and_a_rate_is_kept(redis_url: str, rate_per_s: float, burst: int) -> None:
    async def scenario(link: Link) -> None:
        rate = Rate(rate_per_s, burst)
        await put(link, *[an_entry(f"m{n}") for n in range(int(rate_per_s + burst) * 2 + 10)])
        ledgers = [a_ledger(link, f"w{n}", rate) for n in range(3)]
        loop = asyncio.get_running_loop()
        started = loop.time()
        grants: list[tuple[float, int]] = []

        async def work(ledger: object) -> None:
            while loop.time() - started < 1.3:
                claim = await ledger.claim(PLENTY)  # type: ignore[attr-defined]
                grants.append((loop.time(), len(claim.entries)))
                await asyncio.sleep(max(0.001, min(0.02, claim.wait_ms / 1000)))

        await asyncio.gather(*(work(ledger) for ledger in ledgers))
        window_s = 1.0 + rate.permit_life_s
        peak = max(sum(n for at, n in grants if start <= at < start + window_s) for start, _ in grants)
        # Permits granted within their life before the second may still be spent in it.
        assert peak <= rate_per_s + burst + 1
        assert sum(n for _, n in grants) >= rate_per_s * 0.8

    on_redis(redis_url, scenario)


def test_expired_work_costs_no_permits(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, *[an_entry(f"old{n}", ttl_s=-1) for n in range(50)], an_entry("fresh"))
        claim = await a_ledger(link, rate=Rate(1.0, 1)).claim(PLENTY)
        assert len(claim.entries) == 51

    on_redis(redis_url, scenario)


def test_a_parcel_larger_than_the_bucket_passes_when_it_is_full_and_is_paid_back(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("big", deliveries=500), an_entry("next"))
        ledger = a_ledger(link, rate=Rate(100.0, 50))
        assert len((await ledger.claim(PLENTY)).entries) == 1
        claim = await ledger.claim(PLENTY)
        assert claim.entries == []
        assert claim.wait_ms > 3_000

    on_redis(redis_url, scenario)


def test_a_429_halves_the_rate_and_good_answers_restore_it(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        ledger = a_ledger(link, rate=Rate(100.0, 50))
        await ledger.tell_gate(GateNews(rate_limited=True, pause_ms=1))
        assert await link.call("HGET", KEYS.gate, "factor") == b"0.5"
        await link.call("HSET", KEYS.gate, "factor_at", 0, "factor", "0.98")
        await ledger.tell_gate(GateNews(good=5))
        assert await link.call("HGET", KEYS.gate, "factor") is None

    on_redis(redis_url, scenario)


def test_a_damaged_entry_becomes_a_dead_letter_and_its_neighbours_go_on(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await put(link, an_entry("good"), an_entry("bad"))
        raw = await link.call("LINDEX", KEYS.ready[1], 1)
        await link.call("LSET", KEYS.ready[1], 1, raw[:40] + b"\xc1\xc1\xc1")
        claim = await a_ledger(link).claim(PLENTY)
        assert [entry.id for entry in claim.entries] == [an_entry("good").id]
        now = await books(link)
        assert (now["leased"], now["ended"], now["end:normal:dead:undecodable"]) == (1, 1, 1)
        assert await link.call("XLEN", KEYS.dead) == 1

    on_redis(redis_url, scenario)
