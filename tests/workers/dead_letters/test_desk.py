"""Looking at dead letters, putting them back and dropping them, against a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec
import pytest
from tests.workers.dead_letters.support import TEXT, TOKEN, Stage, an_entry, on_stage

from pushfleet import OfflineMessage
from pushfleet.wire import decode, entry
from pushfleet_workers.audit import Books, read_books
from pushfleet_workers.dead_letters import LetterFilter, LetterName
from pushfleet_workers.ledger import DeadLetters, Return
from pushfleet_workers.push import fingerprint

ALL = LetterFilter()


def named(*names: str) -> list[LetterName]:
    found = [LetterName.read(name) for name in names]
    assert None not in found
    return [name for name in found if name is not None]


async def balanced(stage: Stage) -> Books:
    books = await read_books(stage.link, "t", [])
    # Here no router decided on what lies in the ledgers: each book for itself.
    assert all(book.balanced for book in (*books.lanes.values(), *books.accounts.values())), books
    return books


async def listed(stage: Stage, wanted: LetterFilter = ALL) -> list[str]:
    return [one.letter for one in (await stage.desk.page(wanted, 1_000)).letters]


# ---- looking


def test_the_newest_come_first_whatever_they_are_of_and_pages_go_on_where_one_ended(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        names = []
        for number in range(4):
            names.append(await stage.dies(an_entry(f"a{number}")))
            names.append(await stage.dies(an_entry(f"b{number}"), "honor:main"))
            names.append(await stage.refuses({b"m": b"{}"}))
        # Nothing else tells two of the same millisecond apart than whose they are.
        expected = sorted(named(*names), key=lambda one: one.order, reverse=True)
        assert await listed(stage) == [str(one) for one in expected]
        for size in (1, 5, 12):
            found: list[str] = []
            before, more = None, True
            while more:
                page = await stage.desk.page(ALL, size, before)
                assert len(page.letters) <= size
                found += [one.letter for one in page.letters]
                before, more = LetterName.read(page.cursor), page.more
            assert found == [str(one) for one in expected]

    on_stage(redis_url, scenario)


def test_letters_of_one_moment_are_on_one_page_each(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for account in ("huawei:lite", "huawei:main", "honor:main"):
            for number in range(3):
                await stage.link.call("XADD", stage.keys(account).dead, f"7-{number}", "entry", "x", "reason", "y")
        found: list[str] = []
        before = None
        for _ in range(9):
            page = await stage.desk.page(ALL, 1, before)
            found += [one.letter for one in page.letters]
            before = LetterName.read(page.cursor)
        assert not (await stage.desk.page(ALL, 1, before)).letters
        assert len(set(found)) == 9

    on_stage(redis_url, scenario)


def test_a_filter_leaves_the_others_out(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        first = await stage.dies(an_entry("a", "ann", "bob"))
        second = await stage.dies(an_entry("b", "bob", lane="urgent", kind="mention"), reason="attempts", code="500")
        third = await stage.dies(an_entry("a", "ann", app="lite"), "huawei:lite")
        fourth = await stage.refuses(entry(OfflineMessage(id="a", app="gone", recipients=("bob",), body="x")))
        for wanted, found in (
            (LetterFilter(vendor="huawei"), {first, second, third}),
            (LetterFilter(vendor="huawei", credential="main"), {first, second}),
            (LetterFilter(vendor="ingress"), {fourth}),
            (LetterFilter(app="lite"), {third}),
            (LetterFilter(reason="attempts"), {second}),
            (LetterFilter(code="80100003"), {first, third}),
            (LetterFilter(lane="urgent"), {second}),
            (LetterFilter(message_id="a"), {first, third, fourth}),
            (LetterFilter(user="bob"), {first, second, fourth}),
            (LetterFilter(user="bob", reason="attempts"), {second}),
            (LetterFilter(user="nobody"), set()),
            (LetterFilter(since_ms=named(second)[0].at_ms, until_ms=named(second)[0].at_ms), {second}),
        ):
            # Those of the same moment are meant as well.
            more = {one for one in (first, second, third, fourth) if named(one)[0].at_ms == named(second)[0].at_ms}
            expected = found | more if wanted.since_ms else found
            assert set(await listed(stage, wanted)) == expected, wanted

    on_stage(redis_url, scenario)


def test_a_look_through_a_long_stream_ends_and_says_where(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        monkeypatch.setattr("pushfleet_workers.dead_letters.desk._SCANNED_MAX", 150)
        await stage.link.pipeline(
            [("XADD", stage.keys().dead, f"{1_000 + n}-0", "entry", "x", "reason", "y") for n in range(200)]
        )
        page = await stage.desk.page(LetterFilter(reason="poison"), 10)
        assert (page.letters, page.more, page.cursor) == ([], True, "huawei:main:1050-0")
        page = await stage.desk.page(LetterFilter(reason="poison"), 10, LetterName.read(page.cursor))
        assert (page.letters, page.more, page.cursor) == ([], False, "huawei:main:1000-0")

    on_stage(redis_url, scenario)


def test_a_letter_in_full_has_all_that_helps_and_neither_token_nor_text(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        name = await stage.dies(an_entry("m1", "bob", conversation_id="c1", ext='{"secret": 1}'))
        (read,) = named(name)
        shown = await stage.desk.detail(read)
        assert shown is not None
        assert (shown.vendor, shown.credential, shown.app, shown.message_id) == ("huawei", "main", "demo", "m1")
        assert shown.meaning == "the vendor refuses the payload"
        assert shown.code_meaning
        assert shown.replay == "A replay would decide on it anew and send it."
        assert shown.payload_bytes == len("Ann" + TEXT + '{"secret": 1}')
        (one,) = shown.parcel
        assert (one.user, one.device, one.token_fingerprint) == ("bob", "d1", fingerprint(f"{TOKEN}-bob"))
        told = msgspec.json.encode(shown).decode()
        for secret in (TOKEN, TEXT, "secret", "Ann"):
            assert secret not in told

    on_stage(redis_url, scenario)


def test_a_refused_entry_in_full_says_what_is_wrong_with_it(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        said = entry(OfflineMessage(id="m1", app="gone", recipients=("bob",), body=TEXT))
        name = await stage.refuses(said, "unknown_app", problem="the settings have no app 'gone'", lane="bulk")
        shown = await stage.desk.detail(*named(name))
        assert shown is not None
        assert (shown.vendor, shown.credential, shown.reason) == ("ingress", "bulk", "unknown_app")
        assert (shown.problem, shown.deliveries, shown.parcel) == ("the settings have no app 'gone'", 0, [])
        assert shown.meaning == "the message names an app that the settings do not have"
        assert shown.replay == "A replay would leave it where it is: routers would refuse it again."
        assert TEXT not in msgspec.json.encode(shown).decode()

    on_stage(redis_url, scenario)


def test_what_is_not_there_cannot_be_shown(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for name in ("huawei:main:1-1", "huawei:nobody:1-1", "ingress:normal:1-1", "ingress:slow:1-1"):
            assert await stage.desk.detail(*named(name)) is None

    on_stage(redis_url, scenario)


def test_letters_of_a_vendor_that_is_not_installed_any_more_are_shown(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        name = await stage.dies(an_entry(), "acme:main")
        shown = await stage.desk.detail(*named(name))
        assert shown is not None
        assert shown.code_meaning == ""
        assert shown.replay == "A replay would leave it where it is: its account is gone: nobody would send it."

    on_stage(redis_url, scenario)


# ---- putting back


def test_replayed_letters_are_work_again_and_a_repeat_finds_none(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.dies(an_entry("m1", "ann", "bob"))
        await stage.dies(an_entry("m2"), "honor:main", code="80200003")
        dry = await stage.desk.replay(ALL, dry_run=True)
        assert (dry.replayed, dry.deliveries, dry.left, dry.more) == (2, 3, {}, False)
        assert len(await listed(stage)) == 2, "nothing was done"
        done = await stage.desk.replay(ALL)
        assert (done.replayed, done.deliveries, done.left) == (2, 3, {})
        assert (await stage.desk.replay(ALL)).replayed == 0
        assert [one.parcel.push.message_id for one in await stage.waiting()] == ["m1"]
        assert [one.parcel.push.message_id for one in await stage.waiting("honor:main")] == ["m2"]
        assert (await balanced(stage)).ends()["dead"] == 0

    on_stage(redis_url, scenario)


def test_two_operators_at_once_replay_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        names = [await stage.dies(an_entry(f"m{number}")) for number in range(30)]
        one, two, dropped = await asyncio.gather(
            stage.desk.replay(ALL, per_second=100_000),
            stage.desk.replay(named(*names), per_second=100_000),
            stage.desk.drop(LetterFilter(message_id="m7")),
        )
        assert one.replayed + two.replayed + dropped.dropped == 30
        assert two.replayed + two.left.get("gone", 0) == 30
        books = await balanced(stage)
        assert books.ends()["dead"] == dropped.dropped
        assert books.accounts["huawei:main"].delayed == one.replayed + two.replayed

    on_stage(redis_url, scenario)


def test_what_has_expired_stays_until_it_gets_a_new_life(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.dies(an_entry("old", ttl_s=-1))
        await stage.dies(an_entry("call", kind="call", ttl_s=-1, lane="urgent"))
        await stage.dies(an_entry("recallable", app="lite", ttl_s=-1), "huawei:lite")
        await stage.dies(an_entry("young"))
        await stage.dies(an_entry("gone"), "huawei:gone")
        await stage.link.call("XADD", stage.keys().dead, "*", "entry", b"x" * 40, "reason", "undecodable")
        done = await stage.desk.replay(ALL)
        assert (done.replayed, done.left) == (1, {"expired": 3, "no_account": 1, "unreadable": 1})
        done = await stage.desk.replay(ALL, ttl_s=600)
        assert done.replayed == 1
        assert done.left == {"call": 1, "maybe_recalled": 1, "no_account": 1, "unreadable": 1}
        entries = {one.parcel.push.message_id: one.parcel.push for one in await stage.waiting()}
        assert entries.keys() == {"young", "old"}
        assert 0 < entries["old"].expires_at_ms - time.time() * 1000 <= 600_000
        await balanced(stage)

    on_stage(redis_url, scenario)


def test_letters_become_due_at_a_pace_and_those_with_little_time_left_sooner(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(4):
            await stage.dies(an_entry(f"a{number}", "u1", "u2"))
        for number in range(50):
            await stage.dies(an_entry(f"b{number}"), "honor:main")
        await stage.dies(an_entry("short", ttl_s=8), "honor:main")
        await stage.desk.replay(ALL)

        async def due(account: str) -> list[int]:
            """Milliseconds after the first; those of one page are put back in one step."""
            flat = await stage.link.call("ZRANGE", stage.keys(account).delayed, 0, -1, "WITHSCORES")
            return [int(at) - int(flat[1]) for at in flat[1::2]]

        # A hundred a second where there is no limit, half of the limit where there is one.
        assert await due("huawei:main") == [0, 20, 40, 60]
        at_pace = {number * 100 for number in range(50)}
        found = await due("honor:main")
        assert set(found) >= at_pace
        assert max(found) == 4_900, "its turn would come after five seconds, and its end three later"

    on_stage(redis_url, scenario)


def test_a_pace_may_be_given(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(3):
            await stage.dies(an_entry(f"m{number}"))
        await stage.desk.replay(ALL, per_second=0.1)
        assert await stage.link.call("ZCOUNT", stage.keys().delayed, time.time() * 1000 + 9_000, "+inf") == 2

    on_stage(redis_url, scenario)


def test_the_limit_leaves_the_newest_out_and_what_died_since_is_not_meant(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(5):
            await stage.dies(an_entry(f"m{number}"))
        done = await stage.desk.replay(ALL, limit=2)
        assert (done.replayed, done.more) == (2, True)
        assert {one.parcel.push.message_id for one in await stage.waiting()} <= {"m0", "m1"}
        await asyncio.sleep(0.002)
        await stage.dies(an_entry("again"), "honor:main")
        done = await stage.desk.replay(LetterFilter(until_ms=done.until_ms), limit=3)
        assert (done.replayed, done.more) == (3, False)
        assert len(await listed(stage)) == 1

    on_stage(redis_url, scenario)


def test_named_letters_alone_go_back_and_each_once(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        first, second, third = [await stage.dies(an_entry(f"m{number}")) for number in range(3)]
        looked: list[int] = []
        done = await stage.desk.replay(
            named(third, first, first, "huawei:main:1-1", "fcm:gone:1-1"), progress=looked.append
        )
        assert (done.replayed, done.left) == (2, {"gone": 2})
        assert sum(looked) == 2
        assert await listed(stage) == [second]

    on_stage(redis_url, scenario)


def test_many_and_large_letters_go_back_in_several_scripts(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(7):
            await stage.dies(an_entry(f"m{number}", ext="x" * (900 if number == 4 else 0)))
        scripts: list[int] = []
        replay = DeadLetters.replay

        async def counting(self: DeadLetters, returns: Sequence[Return]) -> list[Return]:
            scripts.append(len(returns))
            return await replay(self, returns)

        monkeypatch.setattr(DeadLetters, "replay", counting)
        monkeypatch.setattr("pushfleet_workers.dead_letters.desk._AT_ONCE", 3)
        monkeypatch.setattr("pushfleet_workers.dead_letters.desk._BYTES_AT_ONCE", 900)
        assert (await stage.desk.replay(ALL)).replayed == 7
        assert scripts == [3, 2, 2]

    on_stage(redis_url, scenario)


def test_poison_goes_back_as_a_suspect(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        name = await stage.dies(an_entry("m1", lost=3), reason="poison", code="process_died")
        shown = await stage.desk.detail(*named(name))
        assert shown is not None
        assert "nothing else in the hand of the worker" in shown.replay
        await stage.desk.replay(LetterFilter(reason="poison"))
        (entry_,) = await stage.waiting()
        assert entry_.lost == 2

    on_stage(redis_url, scenario)


def test_a_refused_entry_is_for_the_routers_again_once_it_can_be_right(redis_url: str) -> None:
    said = OfflineMessage(id="m1", app="new", recipients=("bob",), body=TEXT)

    async def too_early(stage: Stage) -> None:
        await stage.refuses(entry(said), "unknown_app", written_ms=int(time.time() * 1000) - 5_000)
        await stage.refuses({b"m": b'{"id": "m2"}'}, "malformed")
        assert (await stage.desk.replay(ALL)).left == {"still_refused": 2}

    async def in_time(stage: Stage) -> None:
        first, second = await asyncio.gather(stage.desk.replay(ALL), stage.desk.replay(ALL))
        assert first.replayed + second.replayed == 1
        (fields,) = await stage.ingress()
        found = decode(fields[b"m"])
        assert (found.id, found.recipients, found.body) == ("m1", ("bob",), TEXT)
        assert 4_000 <= time.time() * 1000 - found.sent_at_ms < 60_000
        book = (await balanced(stage)).lanes["normal"]
        assert (book.added, book.present, book.malformed) == (3, 1, 2)

    on_stage(redis_url, too_early)
    on_stage(redis_url, lambda stage: in_time(stage), apps={"demo": {}, "lite": {}, "new": {}})


# ---- dropping


def test_dropped_letters_are_gone_and_stay_in_the_books(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        first = await stage.dies(an_entry("m1", "ann", "bob"))
        second = await stage.dies(an_entry("m2"))
        third = await stage.refuses({b"m": b"{}"})
        dry = await stage.desk.drop(ALL, dry_run=True)
        assert (dry.dropped, dry.more) == (3, False)
        done = await stage.desk.drop(LetterFilter(user="ann"))
        assert (done.dropped, done.gone, done.more) == (1, 0, False)
        done = await stage.desk.drop(named(first, third))
        assert (done.dropped, done.gone) == (1, 1)
        assert await listed(stage) == [second]
        done = await stage.desk.drop(ALL, limit=5)
        assert (done.dropped, done.more) == (1, False)
        assert (await balanced(stage)).ends()["dead"] == 3

    on_stage(redis_url, scenario)


def test_the_oldest_are_dropped_first(redis_url: str) -> None:
    async def scenario(stage: Stage) -> None:
        names = [await stage.dies(an_entry(f"m{number}")) for number in range(5)]
        done = await stage.desk.drop(ALL, limit=3)
        assert (done.dropped, done.more) == (3, True)
        assert await listed(stage) == names[:2:-1]
        assert await stage.desk.count(ALL) == 2
        assert await stage.desk.count(named(*names)) == 5

    on_stage(redis_url, scenario)
