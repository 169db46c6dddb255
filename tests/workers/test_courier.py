"""The way of a courier's deliveries as long as nothing goes wrong, and what that costs."""

import pytest
from tests.workers.courier_play import named, on_bench
from tests.workers.doubles import Bench, Cloud, until
from tests.workers.ledger.support import put

from pushfleet_workers.courier import Courier
from pushfleet_workers.hand import Held
from pushfleet_workers.push import Delivery
from pushfleet_workers.waiting import Waiting

# ---- the good way


@pytest.mark.parametrize("batch_size", [1, 7, 1_000])
def test_everything_is_sent_once_and_the_books_balance(redis_url: str, batch_size: int) -> None:
    async def scenario(bench: Bench) -> None:
        entries = [named(f"m{number}", deliveries=number % 9 + 1) for number in range(120)]
        await put(bench.link, *entries)
        tokens = sorted(one.token for entry in entries for one in entry.parcel.deliveries)
        assert await bench.finish() == {"sent": len(tokens)}
        assert sorted(bench.cloud.tokens) == tokens
        assert max(map(len, bench.cloud.requests)) <= batch_size
        assert bench.cloud.auth_calls == 1
        assert await bench.link.call("EXISTS", bench.keys.oks) == 0

    on_bench(redis_url, scenario, cloud=Cloud(batch_size))


def test_no_more_requests_are_under_way_than_the_window_allows(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        await put(bench.link, *[named(f"m{number}", deliveries=5) for number in range(30)])
        await bench.finish()
        assert bench.cloud.most_under_way == 7

    on_bench(redis_url, scenario, in_flight_max=7)


def test_bulk_never_takes_the_whole_window_and_urgent_work_overtakes_it(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"b{number}", lane="bulk") for number in range(200)])
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 7)
        await put(bench.link, named("u", lane="urgent"), named("n"))
        await bench.courier.claim()
        await until(lambda: bench.cloud.under_way == 9)
        assert bench.cloud.tokens[7:] == ["u-0", "n-0"]
        await bench.courier.claim()
        assert bench.cloud.under_way == 9, "what is left of the window is not for bulk"
        bench.cloud.held.set()
        assert await bench.finish() == {"sent": 202}

    on_bench(redis_url, scenario, in_flight_max=10)


def test_bulk_alone_is_claimed_no_faster_than_it_leaves(redis_url: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.cloud.held.clear()
        await put(bench.link, *[named(f"b{number}", lane="bulk") for number in range(300)])
        for _ in range(5):
            await bench.courier.claim()
        assert (await bench.book()).leased <= 7 + 55, "the bulk window and the high water mark"

    on_bench(redis_url, scenario, in_flight_max=10)


# ---- what it costs


def test_no_more_senders_start_than_there_is_work(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that have just ended and those that have not begun yet must not call for the same work again."""
    started = queued = 0
    begin, add = Courier._send_until_dry, Waiting.add

    async def counted(courier: Courier) -> None:
        nonlocal started
        started += 1
        await begin(courier)

    def counting(waiting: Waiting, held: Held, deliveries: list[Delivery]) -> None:
        nonlocal queued
        queued += len(deliveries)
        add(waiting, held, deliveries)

    monkeypatch.setattr(Courier, "_send_until_dry", counted)
    monkeypatch.setattr(Waiting, "add", counting)

    async def scenario(bench: Bench) -> None:
        await put(bench.link, *(named(f"m{number}") for number in range(400)))
        assert await bench.finish() == {"sent": 400}
        # More than 400 where the machine is so slow that some is put off and claimed again.
        assert 1 <= started <= queued

    on_bench(redis_url, scenario)
