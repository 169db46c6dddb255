"""What a letter becomes when it is replayed. Pure."""

from __future__ import annotations

from dataclasses import replace as with_fields

import hypothesis.strategies as st
import pytest
from hypothesis import given
from msgspec.structs import replace
from tests.workers.dead_letters.support import an_entry, expiring

from pushfleet import OfflineMessage
from pushfleet.message import Kind, Recall
from pushfleet.wire import decode, encode
from pushfleet_workers.dead_letters.letter import Letter, letter_of_entry, letter_of_parcel
from pushfleet_workers.dead_letters.renewal import LEFT, Left, Renewed, Terms, readmitted, renewed
from pushfleet_workers.ingress.refused import Readmission, RefusedEntry
from pushfleet_workers.ledger import DeadLetter, Entry, pack, unpack
from pushfleet_workers.push import Wait

NOW_MS = 1_750_000_000_000
HOUR_MS = 3_600_000


def dead(entry: Entry, reason: str = "bad_payload", place: str = "5-1") -> Letter:
    return letter_of_parcel("apns", "main", "demo", DeadLetter(place, pack(entry), reason, "400", 3))


def ending(in_ms: int, kind: Kind = "chat") -> Letter:
    return dead(expiring(an_entry(kind=kind), NOW_MS + in_ms))


def gone_back(letter: Letter, ttl_s: int = 0, *, recalls: bool = False) -> Entry:
    back = renewed(letter, Terms(NOW_MS, ttl_s), recalls=recalls)
    assert isinstance(back, Renewed), back
    entry = unpack(back.entry)
    assert back.left_ms == entry.parcel.push.expires_at_ms - NOW_MS
    return entry


def test_every_reason_to_stay_has_a_sentence() -> None:
    assert LEFT.keys() == set(Left)
    assert all(sentence and not sentence.endswith(".") for sentence in LEFT.values())


def test_attempts_are_forgotten_and_it_counts_as_tried() -> None:
    old = an_entry("m1", "bob", "eve")
    for one in old.parcel.deliveries:
        one.attempt, one.remedy, one.unknown, one.tries, one.tried = 7, "shrink", 2, 9, ["fcm:main:alert"]
    old.parcel.deliveries[1].tries = 0
    entry = gone_back(dead(expiring(old, NOW_MS + HOUR_MS)))
    first, second = entry.parcel.deliveries
    assert (first.attempt, first.remedy, first.tries) == (0, "", 9)
    assert second.tries == 1, "so that it is decided again before it is sent"
    # What tells of the past is not forgotten: it may have been delivered, and its other channels have failed.
    assert (first.unknown, first.tried, first.id, first.token) == (
        2, ["fcm:main:alert"], old.parcel.deliveries[0].id, old.parcel.deliveries[0].token,
    )  # fmt: skip


@pytest.mark.parametrize(("later", "recall", "then"), [("", False, "held"), ("storm", False, "storm"), ("", True, "")])
def test_it_counts_as_put_for_later_so_that_it_is_noted_as_shown(later: Wait, recall: bool, then: Wait) -> None:
    old = expiring(an_entry(), NOW_MS + HOUR_MS)
    old.parcel.push = replace(old.parcel.push, later=later, recall=recall)
    assert gone_back(dead(old)).parcel.push.later == then


def test_it_has_an_id_of_its_own_each_time_and_waits_from_now_on() -> None:
    old = expiring(an_entry(), NOW_MS + HOUR_MS)
    ids = {gone_back(dead(old, place=place)).id for place in ("5-1", "5-2")}
    assert len(ids | {old.id}) == 3
    assert gone_back(dead(old)).put_ms == NOW_MS
    assert gone_back(dead(old)).lane == old.lane


@pytest.mark.parametrize(
    ("reason", "lost", "then"),
    [("poison", 3, 2), ("bad_payload", 0, 0), ("attempts", 1, 1), ("bad_payload", 2, 1), ("undecodable", 2, 1)],
)
def test_poison_is_a_suspect_and_whatever_was_answered_is_none(reason: str, lost: int, then: int) -> None:
    old = expiring(an_entry(lost=lost), NOW_MS + HOUR_MS)
    assert gone_back(dead(old, reason)).lost == then


def test_without_a_new_life_it_keeps_what_it_has_left() -> None:
    assert gone_back(ending(HOUR_MS)).parcel.push.expires_at_ms == NOW_MS + HOUR_MS
    for recalls in (False, True):
        assert renewed(ending(0), Terms(NOW_MS), recalls=recalls) is Left.EXPIRED
        assert renewed(ending(-1, "call"), Terms(NOW_MS), recalls=recalls) is Left.EXPIRED


def test_a_new_life_counts_from_now_on_whether_it_has_expired_or_not() -> None:
    for in_ms in (-HOUR_MS, HOUR_MS, 100 * HOUR_MS):
        assert gone_back(ending(in_ms), ttl_s=600).parcel.push.expires_at_ms == NOW_MS + 600_000


@pytest.mark.parametrize("kind", ["call", "call_cancel"])
def test_nothing_rings_for_a_call_that_is_long_over(kind: Kind) -> None:
    assert renewed(ending(-1, kind), Terms(NOW_MS, 600), recalls=False) is Left.CALL
    assert gone_back(ending(5_000, kind), ttl_s=600).parcel.push.expires_at_ms == NOW_MS + 5_000


def test_where_messages_can_be_taken_back_nothing_outlives_the_memory_of_that() -> None:
    assert renewed(ending(-1), Terms(NOW_MS, 600), recalls=True) is Left.MAYBE_RECALLED
    assert gone_back(ending(5_000), ttl_s=600, recalls=True).parcel.push.expires_at_ms == NOW_MS + 5_000
    assert gone_back(ending(HOUR_MS), ttl_s=600, recalls=True).parcel.push.expires_at_ms == NOW_MS + 600_000


def test_what_cannot_be_read_stays() -> None:
    letter = letter_of_parcel("apns", "main", "demo", DeadLetter("5-1", b"x" * 50, "undecodable", "", 0))
    assert renewed(letter, Terms(NOW_MS, 600), recalls=False) is Left.UNREADABLE
    assert readmitted(letter, Terms(NOW_MS), {"demo"}, recalls=False) is Left.UNREADABLE


@given(
    st.integers(-HOUR_MS, HOUR_MS),
    st.sampled_from(["chat", "call", "call_cancel", "marketing"]),
    st.integers(0, 7_200),
    st.booleans(),
)
def test_what_goes_back_makes_sense_still_and_as_many_go_as_came(
    in_ms: int, kind: Kind, ttl_s: int, recalls: bool
) -> None:
    letter = ending(in_ms, kind)
    back = renewed(letter, Terms(NOW_MS, ttl_s), recalls=recalls)
    if isinstance(back, Left):
        assert in_ms <= 0
        return
    entry = unpack(back.entry)
    assert entry.parcel.push.expires_at_ms > NOW_MS
    assert len(entry.parcel.deliveries) == letter.deliveries
    if recalls or kind in ("call", "call_cancel"):
        assert entry.parcel.push.expires_at_ms <= NOW_MS + in_ms
    unchanged = replace(entry.parcel.push, expires_at_ms=letter.about.expires_at_ms, later="")
    assert letter.parcel is not None
    assert unchanged == letter.parcel.parcel.push


# ---- what routers refused


def entry_of(said: OfflineMessage | Recall, *, written_ms: int = NOW_MS - 60_000) -> Letter:
    name = "r" if isinstance(said, Recall) else "m"
    refused = RefusedEntry("7-0", written_ms, b"1", name, encode(said), "unknown_app", "no app")
    return letter_of_entry("normal", refused)


CHAT = OfflineMessage(id="m1", app="demo", recipients=("bob",), body="x")


def test_an_entry_goes_back_with_the_time_it_was_written_at() -> None:
    back = readmitted(entry_of(CHAT), Terms(NOW_MS), {"demo"}, recalls=False)
    assert isinstance(back, Readmission)
    assert (back.place, back.version, back.name) == ("7-0", b"1", "m")
    said = decode(back.payload)
    assert said == replace(CHAT, sent_at_ms=NOW_MS - 60_000, ttl_s=86_400)


def test_a_time_of_its_own_is_kept_and_a_new_life_counts_from_now_on() -> None:
    sent_at_ms = NOW_MS - 100 * HOUR_MS
    letter = entry_of(replace(CHAT, sent_at_ms=sent_at_ms))
    assert readmitted(letter, Terms(NOW_MS), {"demo"}, recalls=False) is Left.EXPIRED
    assert readmitted(letter, Terms(NOW_MS, 600), {"demo"}, recalls=True) is Left.MAYBE_RECALLED
    back = readmitted(letter, Terms(NOW_MS, 600), {"demo"}, recalls=False)
    assert isinstance(back, Readmission)
    said = decode(back.payload)
    assert said.sent_at_ms == sent_at_ms
    assert sent_at_ms + said.effective_ttl_s * 1000 == NOW_MS + 600_000


def test_a_recall_goes_back_as_it_is() -> None:
    said = Recall(id="m1", app="demo", recipients=("bob",))
    back = readmitted(entry_of(said), Terms(NOW_MS), {"demo"}, recalls=True)
    assert back == Readmission("7-0", NOW_MS - 60_000, b"1", "r", encode(said))


def test_what_would_be_refused_again_stays() -> None:
    terms = Terms(NOW_MS)
    letter = entry_of(CHAT)
    assert letter.refused is not None
    assert readmitted(letter, terms, {"other"}, recalls=False) is Left.STILL_REFUSED

    def with_(**fields: object) -> Letter:
        assert letter.refused is not None
        return letter_of_entry("normal", with_fields(letter.refused, **fields))  # type: ignore[arg-type]

    assert readmitted(with_(payload=b'{"id": "m1"}'), terms, {"demo"}, recalls=False) is Left.STILL_REFUSED
    assert readmitted(with_(version=b"2"), terms, {"demo"}, recalls=False) is Left.STILL_REFUSED
    assert readmitted(with_(name=""), terms, {"demo"}, recalls=False) is Left.STILL_REFUSED
    assert readmitted(with_(payload=b"x" * 65_536), terms, {"demo"}, recalls=False) is Left.CUT
