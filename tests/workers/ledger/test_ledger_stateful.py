"""Whatever happens in whatever order: every delivery is in exactly one place, and the books say in which."""

import asyncio
import struct
import time
from collections import Counter
from collections.abc import Awaitable
from typing import Any, TypeVar

import hypothesis.strategies as st
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.workers.ledger.support import KEYS, PLENTY, a_ledger, an_entry

from pushfleet.message import LANES
from pushfleet_workers.audit import read_books
from pushfleet_workers.ledger import (
    DeadLetter,
    DeadLetters,
    Entry,
    GateNews,
    Ledger,
    Return,
    Settlement,
    pack,
    unpack,
)
from pushfleet_workers.ledger.entry import parcel_id
from pushfleet_workers.ledger.ledger import PutEntry, Want
from pushfleet_workers.ledger.pause import pause, resume
from pushfleet_workers.push import Delivery, Parcel
from pushfleet_workers.redis_link import Link

T = TypeVar("T")

OWNERS = ("w1", "w2", "w3")
FAR_MS = 3_600_000

parts = st.tuples(st.integers(0, 25), st.integers(1, 5), st.sampled_from(LANES), st.sampled_from([60.0, -1.0]))
wants = st.builds(
    Want,
    parcels=st.integers(1, 5),
    deliveries=st.integers(1, 12),
    bulk_deliveries=st.integers(0, 6),
    suspect=st.booleans(),
    elsewhere=st.sampled_from([False, False, False, True]),
)
fates = st.sampled_from(["sent", "dropped", "dead", "soon", "later", "keep", "keep"])
owners = st.sampled_from(OWNERS)


class LedgerMachine(RuleBasedStateMachine):
    """The real ledger beside a plain model: a name of a place for each delivery."""

    def __init__(self, url: str) -> None:
        super().__init__()
        with redis.Redis.from_url(url) as client:
            client.flushall()
        self.runner = asyncio.Runner()
        self.link = Link(url)
        self.ledgers = {owner: a_ledger(self.link, owner) for owner in OWNERS}
        self.places: dict[bytes, str] = {}
        self.known_parts: dict[bytes, int] = {}
        self.held: dict[str, dict[bytes, Entry]] = {owner: {} for owner in OWNERS}
        self.stale: list[tuple[str, Entry]] = []
        self.losses: Counter[bytes] = Counter()
        self.unknown = 0
        self.ends: Counter[str] = Counter()
        self.letters: dict[bytes, str] = {}
        """Dead letters, by their first delivery: how they ended."""

        self.replayed: Counter[str] = Counter()
        self.paused = False
        self.operator = ""
        """Whether an operator pauses the account: "holds", or "elsewhere" where its work may go another way."""

        self.fence = 0
        self.bucket = 1

    def wait(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self.runner.run(run())

    def teardown(self) -> None:
        self.wait(self.link.close())
        self.runner.close()

    # ---- what may happen

    @initialize(chosen=st.lists(parts, min_size=3, max_size=12))
    def begin(self, chosen: list[tuple[int, int, Any, float]]) -> None:
        self.put(chosen, 0)

    @rule()
    def later_entries(self) -> None:
        """Entries of the next bucket of markers come; repeats of earlier ones among them."""
        self.bucket = 2

    @rule(
        chosen=st.lists(parts, min_size=1, max_size=4),
        room=st.sampled_from([0, 0, 6]),
        later=st.lists(st.booleans(), min_size=12, max_size=12),
    )
    def put(self, chosen: list[tuple[int, int, Any, float]], room: int, later: list[bool] | None = None) -> None:
        """Parts come; some of them for later."""
        calls: list[tuple[bytes, list[PutEntry]]] = []
        expected: list[int] = []
        holding = sum(place != "ended" for place in self.places.values())
        share = holding + room if room else 0
        due_ms = int(time.time() * 1000) + FAR_MS
        for (number, size, lane, ttl_s), waits in zip(chosen, later or [False] * len(chosen), strict=False):
            entry = an_entry(f"m{number}", deliveries=size, lane=lane, ttl_s=ttl_s)
            calls.append((entry.id, [(due_ms, pack(entry)) if waits else pack(entry)]))
            expected.append(self.known_parts.setdefault(entry.id, size))
            if entry.parcel.deliveries[0].id in self.places:
                continue
            full = lane == "bulk" and 0 < share < holding + size
            if full:
                self.ends["bulk:dropped:backlog"] += size
            else:
                holding += size
            for delivery in entry.parcel.deliveries:
                self.places[delivery.id] = "ended" if full else "waiting"
        (answer,) = self.wait(self.link.run_many([Ledger.put_call(KEYS, self.bucket, calls, share)]))
        assert answer[2] == expected, "a repeat is told what the first write decided"

    @rule(owner=owners, want=wants)
    def claim(self, owner: str, want: Want) -> None:
        claim = self.wait(self.ledgers[owner].claim(want))
        assert claim.paused is bool(self.operator)
        if want.elsewhere:
            shut = self.operator == "elsewhere" or (self.paused and not self.operator)
            assert shut or claim.entries == []
        elif self.paused or self.operator:
            assert claim.entries == []
        if not claim.entries:
            return
        (fence,) = {entry.fence for entry in claim.entries}
        assert fence > self.fence
        self.fence = fence
        assert len(claim.entries) <= want.parcels
        bulk = [len(entry.parcel.deliveries) for entry in claim.entries if entry.lane == "bulk" and entry.lost < 2]
        assert sum(bulk) <= max(want.bulk_deliveries, bulk[0] if bulk else 0)
        assert want.bulk_deliveries or not bulk
        if any(entry.lost == 2 for entry in claim.entries):
            assert want.suspect
            assert len(claim.entries) == 1, "a suspect travels alone"
        for entry in claim.entries:
            assert entry.lost == self.losses[entry.id]
            self.held[owner][entry.id] = entry
            for delivery in entry.parcel.deliveries:
                assert self.places[delivery.id] == "waiting"
                self.places[delivery.id] = owner

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data(), repeat=st.booleans())
    def settle(self, data: st.DataObject, repeat: bool) -> None:
        owner = data.draw(st.sampled_from([owner for owner, held in self.held.items() if held]))
        chosen = data.draw(st.lists(st.sampled_from(list(self.held[owner].values())), unique_by=id, min_size=1))
        settlements: list[Settlement] = []
        for entry in chosen:
            if data.draw(st.integers(0, 5)) == 0:
                settlements.append(self.give_back(owner, entry))
                continue
            while entry.id in self.held[owner]:
                decided = data.draw(st.lists(fates, min_size=len(entry.parcel.deliveries), max_size=10))
                settlements.append(self.decide(owner, entry, decided))
                if entry.id not in self.held[owner] or data.draw(st.booleans()):
                    break
                entry = self.held[owner][entry.id]
        assert self.wait(self.ledgers[owner].settle(settlements)) == []
        if repeat:
            again = self.wait(self.ledgers[owner].settle(settlements))
            assert sorted(again, key=repr) == sorted(settlements, key=repr), "twice changes nothing"

    def give_back(self, owner: str, entry: Entry) -> Settlement:
        del self.held[owner][entry.id]
        for delivery in entry.parcel.deliveries:
            self.places[delivery.id] = "waiting"
        return Settlement(entry.id, entry.fence, len(entry.parcel.deliveries), give_back=True)

    def decide(self, owner: str, entry: Entry, decided: list[str]) -> Settlement:
        """Some of a parcel's deliveries meet their fates; those to keep stay in hand."""
        deliveries = entry.parcel.deliveries
        groups: dict[str, list[Delivery]] = {}
        for delivery, fate in zip(deliveries, decided, strict=False):
            groups.setdefault(fate, []).append(delivery)
        if len(groups.get("keep", ())) == len(deliveries):
            groups = {"sent": groups["keep"][:1], "keep": groups["keep"][1:]}
        settlement = Settlement(entry.id, entry.fence, len(deliveries), unknown=len(groups.get("soon", ())))
        self.unknown += settlement.unknown
        del self.held[owner][entry.id]
        for fate, some in groups.items():
            if not some:
                continue
            if fate == "keep":
                rest = Entry(
                    entry.id, Parcel(entry.parcel.push, some), entry.lane, entry.put_ms, entry.lost, entry.fence
                )
                settlement.rest = pack(rest)
                self.held[owner][entry.id] = rest
                continue
            piece = Entry(
                parcel_id(entry.id, some[0].id, entry.fence),
                Parcel(entry.parcel.push, some),
                entry.lane,
                entry.put_ms,
                entry.lost,
            )
            if fate in ("soon", "later"):
                settlement.later.append((0 if fate == "soon" else FAR_MS, pack(piece)))
                self.losses[piece.id] = entry.lost
                place = "waiting"
            else:
                end = f"{entry.lane}:{fate}:{'' if fate == 'sent' else 'why'}"
                settlement.ended += len(some)
                settlement.ends[end] = settlement.ends.get(end, 0) + len(some)
                self.ends[end] += len(some)
                place = "ended"
            if fate == "dead":
                settlement.dead.append((pack(piece), "why", "code", 1))
                self.letters[some[0].id] = end
            for delivery in some:
                self.places[delivery.id] = place
        return settlement

    @precondition(lambda self: self.stale)
    @rule(data=st.data())
    def settle_late(self, data: st.DataObject) -> None:
        owner, entry = data.draw(st.sampled_from(self.stale))
        size = len(entry.parcel.deliveries)
        late = Settlement(
            entry.id,
            entry.fence,
            size,
            ended=size,
            ends={f"{entry.lane}:sent:": size},
            accepted=tuple(one.id for one in entry.parcel.deliveries),
        )
        assert self.wait(self.ledgers[owner].settle([late])) == [late]
        oks = self.wait(self.link.call("HKEYS", KEYS.oks))
        assert set(late.accepted) <= set(oks)

    @rule(owner=owners)
    def die(self, owner: str) -> None:
        """The owner stops beating; another gives its work back."""
        if not self.wait(self.link.call("ZADD", KEYS.owners, "XX", "CH", 1, owner)):
            return
        back = self.wait(self.ledgers["w1" if owner != "w1" else "w2"].reap())
        expected = 0
        for entry in self.held[owner].values():
            size = len(entry.parcel.deliveries)
            self.stale.append((owner, entry))
            self.losses[entry.id] += 1
            self.unknown += size
            poison = self.losses[entry.id] > 2
            if poison:
                self.ends[f"{entry.lane}:dead:poison"] += size
                self.letters[entry.parcel.deliveries[0].id] = f"{entry.lane}:dead:poison"
            else:
                expected += size
            for delivery in entry.parcel.deliveries:
                self.places[delivery.id] = "ended" if poison else "waiting"
        self.held[owner] = {}
        assert back == expected

    @precondition(lambda self: self.letters)
    @rule(data=st.data(), soon=st.booleans(), twice=st.booleans())
    def replay(self, data: st.DataObject, soon: bool, twice: bool) -> None:
        """Dead letters go back, perhaps by two operators at once."""
        chosen = data.draw(st.lists(st.sampled_from(self.read_letters()), unique_by=lambda one: one.place, min_size=1))
        returns = []
        for letter in chosen:
            old = unpack(letter.entry)
            entry = Entry(parcel_id(old.id, letter.place.encode()), old.parcel, old.lane, old.put_ms, min(old.lost, 2))
            self.losses[entry.id] = entry.lost
            returns.append(Return(letter.place, 0 if soon else FAR_MS, pack(entry)))
            size, end = len(old.parcel.deliveries), self.letters.pop(old.parcel.deliveries[0].id)
            assert end == f"{old.lane}:dead:{letter.reason}"
            self.ends[end] -= size
            self.replayed[end.replace(":dead:", ":")] += size
            for delivery in old.parcel.deliveries:
                assert self.places[delivery.id] == "ended"
                self.places[delivery.id] = "waiting"

        async def both() -> list[Return]:
            letters = DeadLetters(self.link, KEYS)
            gone = await asyncio.gather(*(letters.replay(returns) for _ in range(1 + twice)))
            return [one for some in gone for one in some]

        assert self.wait(both()) == (returns if twice else [])
        assert self.wait(DeadLetters(self.link, KEYS).replay(returns)) == returns, "once more changes nothing"

    @precondition(lambda self: self.letters)
    @rule(data=st.data())
    def drop_letters(self, data: st.DataObject) -> None:
        """Dead letters are dropped: they stay counted as dead."""
        chosen = data.draw(st.lists(st.sampled_from(self.read_letters()), unique_by=lambda one: one.place, min_size=1))
        places = [one.place for one in chosen]
        assert self.wait(DeadLetters(self.link, KEYS).drop(places)) == len(places)
        assert self.wait(DeadLetters(self.link, KEYS).drop(places)) == 0
        for letter in chosen:
            del self.letters[unpack(letter.entry).parcel.deliveries[0].id]

    def read_letters(self) -> list[DeadLetter]:
        async def read() -> list[DeadLetter]:
            return [one async for page in DeadLetters(self.link, KEYS).oldest_first() for one in page]

        found = self.wait(read())
        assert {unpack(one.entry).parcel.deliveries[0].id for one in found} == self.letters.keys()
        return found

    @rule(owner=owners)
    def beat(self, owner: str) -> None:
        self.wait(self.ledgers[owner].beat(0))

    @rule()
    def time_passes(self) -> None:
        """All that is delayed becomes due."""
        for entry_id in self.wait(self.link.call("ZRANGE", KEYS.delayed, 0, -1)):
            self.wait(self.link.call("ZADD", KEYS.delayed, "XX", 1, entry_id))

    @rule(owner=owners, who=st.sampled_from(["vendor", "holds", "elsewhere"]))
    def pause(self, owner: str, who: str) -> None:
        """The vendor asks for a pause, or an operator does: nobody gets anything, but what goes another way."""
        if who == "vendor":
            self.wait(self.ledgers[owner].tell_gate(GateNews(pause_ms=FAR_MS, reason="429")))
            self.paused = True
        else:
            self.wait(pause(self.link, KEYS, span_ms=0, reason="", elsewhere=who == "elsewhere"))
            self.operator = who
        self.claim(owner, PLENTY)

    @precondition(lambda self: self.paused)
    @rule()
    def vendors_pause_runs_out(self) -> None:
        self.wait(self.link.call("HSET", KEYS.gate, "pause_until", 1))
        self.paused = False

    @precondition(lambda self: self.operator or self.paused)
    @rule(owner=owners, force=st.sampled_from([True, True, False]))
    def resume(self, owner: str, force: bool) -> None:
        """Without force the vendor's word stands."""
        assert self.wait(resume(self.link, KEYS, force=force)) is bool(self.operator)
        self.operator = ""
        self.paused = self.paused and not force
        self.claim(owner, PLENTY)

    @rule(owner=owners)
    def good_answer(self, owner: str) -> None:
        """It ends no pause."""
        self.wait(self.ledgers[owner].tell_gate(GateNews(good=1)))

    @rule(times=st.integers(1, 3))
    def crash(self, times: int) -> None:
        """Processes die one after the other with all they could get."""
        for owner in OWNERS[:times]:
            self.claim(owner, PLENTY)
            self.die(owner)

    @rule(owner=owners)
    def recover(self, owner: str) -> None:
        held = self.held[owner]
        found = self.wait(self.ledgers[owner].recover(set()))
        assert {(one.id, one.fence, len(one.parcel.deliveries)) for one in found} == {
            (one.id, one.fence, len(one.parcel.deliveries)) for one in held.values()
        }
        assert self.wait(self.ledgers[owner].recover(set(held))) == []

    # ---- what must hold

    @invariant()
    def every_delivery_is_in_one_place_and_it_is_the_right_one(self) -> None:
        found: list[tuple[bytes, str]] = []

        async def look() -> None:
            for key in (*KEYS.ready, KEYS.suspect):
                for packed in await self.link.call("LRANGE", key, 0, -1):
                    entry = unpack(packed)
                    assert key == (KEYS.suspect if entry.lost == 2 else KEYS.ready[LANES.index(entry.lane)])
                    found.extend((one.id, "waiting") for one in entry.parcel.deliveries)
            delayed = await self.link.call("HGETALL", KEYS.delayed_entries)
            assert sorted(delayed[::2]) == sorted(await self.link.call("ZRANGE", KEYS.delayed, 0, -1))
            for entry_id, packed in zip(delayed[::2], delayed[1::2], strict=True):
                entry = unpack(packed)
                assert entry.id == entry_id
                found.extend((one.id, "waiting") for one in entry.parcel.deliveries)
            for owner in OWNERS:
                leased = await self.link.call("HGETALL", KEYS.leased(owner))
                for entry_id, value in zip(leased[::2], leased[1::2], strict=True):
                    entry = unpack(value[8:], int(struct.unpack_from(">d", value)[0]))
                    assert (entry.id, entry.fence) == (entry_id, self.held[owner][entry_id].fence)
                    found.extend((one.id, owner) for one in entry.parcel.deliveries)

        self.wait(look())
        twice = [one for one, times in Counter(one for one, _ in found).items() if times > 1]
        assert not twice
        assert dict(found) == {one: place for one, place in self.places.items() if place != "ended"}

    @invariant()
    def the_books_agree_with_what_lies_there_and_with_the_model(self) -> None:
        books = self.wait(read_books(self.link, "t", [("apns", "main")]))
        book = books.accounts["apns:main"]
        assert book.balanced, book
        assert book.recounted is not None
        places = Counter("held" if place in OWNERS else place for place in self.places.values())
        assert (book.put, book.ended) == (len(self.places), places["ended"])
        assert (book.ready + book.delayed, book.leased) == (places["waiting"], places["held"])
        assert Counter(book.ends) == self.ends
        assert Counter(book.replayed) == self.replayed
        assert (book.unknown, book.dead_letters) == (self.unknown, len(self.letters))
        assert (book.open, book.operator_pause) == (self.paused, bool(self.operator))


def test_no_delivery_is_lost_or_in_two_places_whatever_happens(redis_url: str) -> None:
    run_state_machine_as_test(
        lambda: LedgerMachine(redis_url),
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            # Shrinking against a real server takes minutes; the steps that failed are printed as they are.
            phases=(Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
