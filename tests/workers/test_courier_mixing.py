"""Vendors that take pushes of many messages in a request."""

from tests.workers.courier_play import BAD, UNKNOWN, dead_letters, named, on_bench, replaced, token_of
from tests.workers.doubles import Bench, Cloud, until
from tests.workers.ledger.support import put

from pushfleet.message import ApnsOptions, OfflinePush
from pushfleet_workers.ledger import unpack
from pushfleet_workers.outcome import OK


def test_a_burst_of_single_chats_costs_a_mixing_vendor_few_requests(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        entries = [named(f"m{number}") for number in range(90)]
        await put(bench.link, *entries)
        assert await bench.finish() == {"sent": 90}
        assert sorted(bench.cloud.tokens) == sorted(token_of(entry) for entry in entries)
        assert sum(bench.cloud.mixed) + bench.cloud.requests.count(1) >= 80
        assert len(bench.cloud.requests) <= 10
        assert max(map(len, bench.cloud.requests)) <= 30

    cloud = Cloud(30)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud)


def test_only_what_is_of_one_nature_shares_a_request(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        calls = [replaced(named(f"c{number}"), kind="call") for number in range(4)]
        others = [
            replaced(named(f"o{number}"), options=OfflinePush(apns=ApnsOptions(category="X"))) for number in range(4)
        ]
        await put(bench.link, *calls, *others, *[named(f"m{number}") for number in range(4)])
        assert await bench.finish() == {"sent": 12}
        for tokens in bench.cloud.requests:
            assert len({token[0] for token in tokens}) == 1

    cloud = Cloud(30)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud)


def test_a_letter_that_spoils_a_mixed_request_is_found_by_itself(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bad = "m7-0"
        bench.cloud.script = lambda token, auth: (
            BAD if bad in bench.cloud.requests[-1] and (len(bench.cloud.requests[-1]) > 1 or token == bad) else OK
        )
        await put(bench.link, *[named(f"m{number}") for number in range(20)])
        assert await bench.finish() == {"sent": 19, "dead:bad_payload": 1}
        (letter,) = await dead_letters(bench)
        assert token_of(unpack(letter[b"entry"])) == bad

    cloud = Cloud(30)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud, in_flight_max=1)


def test_a_mixed_request_without_an_answer_is_unknown_for_all_of_it(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        for number in range(5):
            bench.cloud.answer(f"m{number}-0", UNKNOWN, OK)
        await put(bench.link, *[named(f"m{number}") for number in range(5)])
        assert await bench.finish() == {"sent": 5}
        assert (await bench.book()).unknown >= 5

    cloud = Cloud(30)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud)


def test_a_mixing_vendor_uses_its_window_for_full_parcels(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"m{number}", deliveries=100) for number in range(40)])
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 40)
        bench.cloud.held.set()

    cloud = Cloud(100)
    cloud.mixing = True
    on_bench(redis_url, scenario, cloud=cloud)
