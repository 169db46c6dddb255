import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.workers.doubles import until
from tests.workers.ledger.support import PLENTY, an_entry

from pushfleet_workers import stock as stock_module
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.ingress import IngressStream, Routed
from pushfleet_workers.ledger import DeadLetters, GateNews, Ledger, Return, Settlement, pack
from pushfleet_workers.ledger.keys import AccountKeys
from pushfleet_workers.ledger.pause import pause
from pushfleet_workers.receipts import Event
from pushfleet_workers.receipts.book import Entry, ReceiptBook
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.settings import Settings
from pushfleet_workers.stock import METRICS, Stock
from pushfleet_workers.tokens.death_watch import DeathWatch

SETTINGS = Settings(
    redis={"prefix": "s"},
    apps={"demo": {}},
    accounts={"huawei": {"main": {"app": "demo", "client_id": "1", "client_secret": "x"}}},
)
KEYS = AccountKeys("s", "huawei", "main")
APPS = {("huawei", "main"): "demo"}


def on_redis(url: str, scenario: Callable[[Link], Awaitable[None]]) -> None:
    async def run() -> None:
        link = Link(url)
        try:
            await scenario(link)
        finally:
            await link.close()

    asyncio.run(run())


def exposed(stock: Stock) -> str:
    registry = CollectorRegistry()
    registry.register(stock)
    return generate_latest(registry).decode()


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Values by name and label values, in the order of the declaration."""
    return {
        (sample.name, *(sample.labels[label] for label in METRICS[sample.name][2])): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def some_work(link: Link) -> None:
    """Four deliveries: sent, dead, ready, dead and put back; one recipient muted; one entry waits; three receipts."""
    entries = [an_entry("a", deliveries=2), an_entry("b"), an_entry("c")]
    await link.run_many([Ledger.put_call(KEYS, 1, [(entry.id, [pack(entry)]) for entry in entries], 0)])
    ledger = Ledger(link, KEYS, "w1")
    first, second, third = (await ledger.claim(PLENTY)).entries
    settlement = Settlement(first.id, first.fence, 2, ended=2, unknown=1)
    settlement.ends = {"normal:sent:": 1, "normal:dead:bad_payload": 1}
    settlement.dead = [(pack(first), "bad_payload", "400", 1)]
    replayed = Settlement(third.id, third.fence, 1, ended=1, ends={"normal:dead:attempts": 1})
    replayed.dead = [(pack(third), "attempts", "500", 8)]
    await ledger.settle([settlement, Settlement(second.id, second.fence, 1, give_back=True), replayed])
    letters = DeadLetters(link, KEYS)
    (letter,) = [one async for page in letters.oldest_first() for one in page if one.reason == "attempts"]
    assert await letters.replay([Return(letter.place, 60_000, letter.entry)]) == []
    await ledger.tell_gate(GateNews(pause_ms=60_000, reason="429"))
    stream = IngressStream(link, link, "s", "normal", "r1")
    await stream.prepare()
    for _ in range(2):
        await link.call("XADD", stream.keys.stream, "*", "m", "{}")
    (raw, *_) = await stream.read(1, 10)
    await stream.acknowledge([Routed(raw, b"part", 3, {"recipients": 4, "suppressed:demo:muted": 1})])
    receipts = [Entry(Event.DELIVERED, 1, "huawei", "main", token=one) for one in ("a", "b")]
    receipts.append(Entry(Event.CLICKED, 1, message_id="m", user="ann", device="phone"))
    await ReceiptBook(link, "s", lambda: 1, kept=10).record("demo", receipts)


def test_every_metric_is_there_with_what_redis_holds(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await some_work(link)
        stock = Stock(SETTINGS, link, APPS)
        await stock.read()
        found = samples(exposed(stock))
        assert {name[0] for name in found} == set(METRICS)
        account = ("huawei", "main")
        expected = {
            ("pushfleet_accepted_entries_total", "normal"): 2,
            ("pushfleet_accepted_entries_total", "bulk"): 0,
            ("pushfleet_malformed_entries_total", "normal"): 0,
            ("pushfleet_ingress_backlog", "normal"): 1,
            ("pushfleet_ends_total", *account, "demo", "normal", "sent", ""): 1,
            ("pushfleet_ends_total", *account, "demo", "normal", "dead", "bad_payload"): 1,
            ("pushfleet_ends_total", *account, "demo", "normal", "dead", "attempts"): 1,
            ("pushfleet_ends_total", "", "", "demo", "normal", "suppressed", "muted"): 1,
            ("pushfleet_replayed_deliveries_total", *account, "normal", "attempts"): 1,
            ("pushfleet_backlog", *account, "ready"): 1,
            ("pushfleet_backlog", *account, "leased"): 0,
            ("pushfleet_backlog", *account, "delayed"): 1,
            ("pushfleet_dead_letters", *account): 1,
            ("pushfleet_unknown_attempts_total", *account): 1,
            ("pushfleet_receipts_total", *account, "demo", "delivered"): 2,
            ("pushfleet_receipts_total", "", "", "demo", "clicked"): 1,
            ("pushfleet_account_paused", *account): 1,
            ("pushfleet_account_operator_pause", *account): 0,
            ("pushfleet_death_guard", *account): 0,
            ("pushfleet_books_balanced",): 1,
        }
        assert {name: found[name] for name in expected} == expected
        assert 0 <= found["pushfleet_oldest_age_seconds", *account] < 60
        assert 0 <= found["pushfleet_ingress_oldest_age_seconds", "normal"] < 60

    on_redis(redis_url, scenario)


def test_a_book_that_does_not_balance_shows(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await some_work(link)
        await link.call("HINCRBY", KEYS.books, "put", 1)
        stock = Stock(SETTINGS, link, APPS)
        await stock.read()
        assert samples(exposed(stock))["pushfleet_books_balanced",] == 0

    on_redis(redis_url, scenario)


def test_a_guard_that_tripped_shows_until_it_is_reset(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await some_work(link)
        stock, watch = Stock(SETTINGS, link, APPS), DeathWatch(link, "s", SETTINGS.deaths)
        await watch.weigh("huawei", "main", undated=SETTINGS.deaths.guard_floor + 1)
        await stock.read()
        assert samples(exposed(stock))["pushfleet_death_guard", "huawei", "main"] == 1
        await watch.release("huawei", "main")
        await stock.read()
        assert samples(exposed(stock))["pushfleet_death_guard", "huawei", "main"] == 0

    on_redis(redis_url, scenario)


def test_an_operators_pause_shows_by_itself(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        stock = Stock(SETTINGS, link, APPS)
        await pause(link, KEYS, span_ms=0, reason="", elsewhere=False)
        await stock.read()
        found = samples(exposed(stock))
        assert found["pushfleet_account_operator_pause", "huawei", "main"] == 1
        assert found["pushfleet_account_paused", "huawei", "main"] == 0

    on_redis(redis_url, scenario)


def test_before_the_first_reading_there_is_nothing(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        assert exposed(Stock(SETTINGS, link, APPS)) == ""

    on_redis(redis_url, scenario)


@pytest.mark.parametrize("problem", [RedisUnusable("gone"), ReplyError("NOPERM")])
def test_without_redis_old_numbers_are_not_shown_and_reading_goes_on(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    monkeypatch.setattr(stock_module, "_EVERY_S", 0.01)

    async def scenario(link: Link) -> None:
        stock = Stock(SETTINGS, link, APPS)
        read, fail = stock.read, False

        async def flaky() -> None:
            if fail:
                raise problem
            await read()

        monkeypatch.setattr(stock, "read", flaky)
        reading = asyncio.create_task(stock.keep_reading())
        await until(lambda: exposed(stock) != "")
        fail = True
        await until(lambda: exposed(stock) == "")
        fail = False
        await until(lambda: exposed(stock) != "")
        reading.cancel()

    on_redis(redis_url, scenario)


def test_no_token_and_no_text_is_exposed(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        await some_work(link)
        stock = Stock(SETTINGS, link, APPS)
        await stock.read()
        shown = exposed(stock)
        assert "token-" not in shown
        assert "Ann" not in shown

    on_redis(redis_url, scenario)


def test_every_metric_has_a_help_and_a_unit_in_its_name() -> None:
    for name, (_, text, _) in METRICS.items():
        assert name.startswith("pushfleet_")
        assert text.endswith(".")


def test_totals_do_not_step_back_with_a_failover_and_begin_anew_with_an_empty_redis(redis_url: str) -> None:
    async def scenario(link: Link) -> None:
        stock = Stock(SETTINGS, link, APPS)
        total = ("pushfleet_unknown_attempts_total", "huawei", "main")
        gauge = ("pushfleet_backlog", "huawei", "main", "ready")

        async def shown(unknown: int, ready: int) -> tuple[float, float]:
            await link.call("HSET", KEYS.books, "unknown", unknown, "ready", ready)
            await stock.read()
            found = samples(exposed(stock))
            return found[total], found[gauge]

        assert await shown(100, 50) == (100, 50)
        assert await shown(90, 40) == (100, 40)
        assert await shown(99, 40) == (100, 40)
        assert await shown(101, 40) == (101, 40)
        assert await shown(3, 0) == (3, 0)
        assert await shown(4, 0) == (4, 0)

    on_redis(redis_url, scenario)
