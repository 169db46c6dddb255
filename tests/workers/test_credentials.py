import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.workers.doubles import Cloud, until
from tests.workers.ledger.support import KEYS

from pushfleet_workers import credentials
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credentials import Authorization, AuthRefused
from pushfleet_workers.errors import CredentialError, Distrusted, NoAnswer
from pushfleet_workers.outcome import Outcome, Scope, Verdict
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_server import EmbeddedRedis
from pushfleet_workers.vendor import AuthAnswer, Request, Response

REFUSAL = Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, code="invalid_client")
LIFE_S = 100.0
ROOT = Path(__file__).parents[2]


class OAuthVendor(Cloud):
    """Authorizations are fetched."""

    def mint(self, account: Any, now_s: float) -> AuthAnswer | None:
        return None

    def auth_request(self, account: Any, now_s: float) -> Request:
        return Request("https://auth.test", {}, b"secret")

    def read_auth(self, response: Response) -> AuthAnswer:
        if response.status != 200:
            return AuthAnswer(failure=REFUSAL)
        return AuthAnswer(response.body.decode(), LIFE_S)


class Clock(FleetClock):
    """Moves when told."""

    def __init__(self) -> None:
        super().__init__()
        self.ms = 1_000_000

    def now_ms(self) -> int:
        return self.ms


@dataclass
class Office:
    """Two processes of a fleet that need the same authorization, and who hands it out."""

    link: Link
    clock: Clock
    vendor: Cloud
    fetched: int = 0
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    problem: Exception | None = None
    status: int = 200
    members: list[Authorization] = field(default_factory=list)

    async def fetch(self, request: Request) -> Response:
        self.fetched += 1
        number = self.fetched
        await self.may_answer.wait()
        if self.problem is not None:
            raise self.problem
        return Response(self.status, {}, b"value-%d" % number)


@asynccontextmanager
async def an_office(url: str, vendor: Cloud | None = None, members: int = 2) -> AsyncIterator[Office]:
    links = [Link(url) for _ in range(members)]
    office = Office(links[0], Clock(), vendor or OAuthVendor())
    office.may_answer.set()
    office.members = [
        Authorization(office.vendor, AccountSettings(app="demo"), link, KEYS.root, office.clock, office.fetch)
        for link in links
    ]
    try:
        yield office
    finally:
        for link in links:
            await link.close()


def in_office(url: str, scenario: Callable[[Office], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        async with an_office(url, **options) as office:
            await scenario(office)

    asyncio.run(run())


def test_one_fetch_serves_all_callers_of_all_processes(redis_url: str) -> None:
    async def scenario(office: Office) -> None:
        office.may_answer.clear()
        one, other = office.members
        callers = [asyncio.create_task(member.obtain()) for member in (one, other) for _ in range(20)]
        await until(lambda: office.fetched == 1)
        office.may_answer.set()
        assert set(await asyncio.gather(*callers)) == {"value-1"}
        assert office.fetched == 1
        assert one.current() == other.current() == "value-1"
        assert await office.link.call("EXISTS", f"{KEYS.root}:auth:lock") == 0

    in_office(redis_url, scenario)


def test_a_process_that_starts_later_finds_it(redis_url: str) -> None:
    async def scenario(office: Office) -> None:
        one, other = office.members
        assert other.current() == ""
        await one.obtain()
        assert await other.obtain() == "value-1"
        assert office.fetched == 1

    in_office(redis_url, scenario)


def test_it_is_renewed_before_it_expires_and_not_before(redis_url: str) -> None:
    async def scenario(office: Office) -> None:
        one, other = office.members
        await one.obtain()
        office.clock.ms += int(LIFE_S * 1_000 * 0.79)
        assert one.current() == "value-1"
        office.clock.ms += int(LIFE_S * 1_000 * 0.02)
        assert one.current() == ""
        assert await one.obtain() == "value-2"
        assert await other.obtain() == "value-2"
        assert office.fetched == 2
        assert 0 < await office.link.call("PTTL", f"{KEYS.root}:auth") <= LIFE_S * 1_000

    in_office(redis_url, scenario)


def test_the_old_one_is_used_on_while_a_new_one_cannot_be_had(redis_url: str) -> None:
    async def scenario(office: Office) -> None:
        one, other = office.members
        await one.obtain()
        office.clock.ms += int(LIFE_S * 1_000 * 0.81)
        office.problem = NoAnswer("no connection", maybe_delivered=False)
        assert await one.obtain() == "value-1"
        assert one.current() == "value-1", "and not asked again for each push"
        assert await other.obtain() == "value-1"
        office.clock.ms += int(LIFE_S * 1_000 * 0.19)
        with pytest.raises(AuthRefused):
            await one.obtain()

    in_office(redis_url, scenario)


def test_the_old_one_is_used_on_while_another_process_renews(redis_url: str) -> None:
    async def scenario(office: Office) -> None:
        one, other = office.members
        await one.obtain()
        await other.obtain()
        office.clock.ms += int(LIFE_S * 1_000 * 0.81)
        office.may_answer.clear()
        renewing = asyncio.create_task(one.obtain())
        await until(lambda: office.fetched == 2)
        assert await asyncio.wait_for(other.obtain(), 1) == "value-1"
        office.may_answer.set()
        assert await renewing == "value-2"

    in_office(redis_url, scenario)


def test_what_one_process_rejects_the_others_no_longer_find(redis_url: str) -> None:
    async def scenario(office: Office) -> None:
        one, other = office.members
        await one.obtain()
        await one.reject("value-1")
        assert one.current() == ""
        assert await other.obtain() == "value-2"
        assert await one.obtain() == "value-2"

    in_office(redis_url, scenario)


def test_what_is_too_young_to_have_a_successor_outlives_its_rejection(redis_url: str) -> None:
    """By whatever process it is rejected; past its rest, or once its credential has changed, a new one is made."""

    async def scenario(office: Office) -> None:
        one, other = office.members
        office.vendor.auth_answers = [AuthAnswer(f"value-{number}", LIFE_S, LIFE_S / 2) for number in (1, 2, 3)]
        await one.obtain()
        await other.obtain()
        for member in (one, other):
            await member.reject("value-1")
            assert member.current() == "value-1"
        office.clock.ms += int(LIFE_S * 1_000 / 2)
        await one.reject("value-1")
        assert await one.obtain() == "value-2"
        await office.link.call("DEL", f"{KEYS.root}:auth")
        await other.reject("value-1")
        assert await other.obtain() == "value-3"

    in_office(redis_url, scenario, vendor=Cloud())


def test_a_late_rejection_does_not_touch_the_new_one(redis_url: str) -> None:
    async def scenario(office: Office) -> None:
        one, other = office.members
        await one.obtain()
        await other.obtain()
        await one.reject("value-1")
        await one.obtain()
        await other.reject("value-1")
        assert one.current() == "value-2"
        assert await other.obtain() == "value-2"
        assert office.fetched == 2

    in_office(redis_url, scenario)


@pytest.mark.parametrize(
    ("problem", "status", "expected"),
    [
        (None, 401, REFUSAL),
        (NoAnswer("late", maybe_delivered=True), 200, Outcome(Verdict.RETRY, Scope.ACCOUNT, code="auth_unreachable")),
        (
            Distrusted("its certificate is not taken", "certificate_expired"),
            200,
            Outcome(Verdict.RETRY, Scope.ACCOUNT, code="auth_certificate_expired"),
        ),
        (ValueError("a secret"), 200, Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, code="ValueError")),
    ],
)
def test_a_refusal_says_what_it_means_and_counts_for_all_that_waited(
    redis_url: str, problem: Exception | None, status: int, expected: Outcome
) -> None:
    async def scenario(office: Office) -> None:
        office.problem, office.status = problem, status
        office.may_answer.clear()
        one = office.members[0]
        callers = [asyncio.create_task(one.obtain()) for _ in range(20)]
        await until(lambda: office.fetched == 1)
        office.may_answer.set()
        refusals = await asyncio.gather(*callers, return_exceptions=True)
        assert [refusal.outcome for refusal in refusals if isinstance(refusal, AuthRefused)] == [expected] * 20
        assert office.fetched == 1
        assert await office.link.call("EXISTS", f"{KEYS.root}:auth:lock") == 0
        office.problem, office.status = None, 200
        assert await one.obtain() == "value-2", "the next that asks starts afresh"

    in_office(redis_url, scenario)


def test_an_answer_that_nobody_can_read_had_no_push_in_it(redis_url: str) -> None:
    async def scenario(office: Office) -> None:
        answer = AuthAnswer(failure=Outcome(Verdict.RETRY, Scope.ACCOUNT, code="HTTP 200", unknown=True))
        office.vendor.auth_answers = [answer, answer]
        for _ in range(2):
            with pytest.raises(AuthRefused) as refusal:
                await office.members[0].obtain()
            assert refusal.value.outcome == Outcome(Verdict.RETRY, Scope.ACCOUNT, code="HTTP 200")

    in_office(redis_url, scenario, vendor=Cloud())


@pytest.mark.parametrize("problem", [CredentialError("key_file is missing"), KeyError("private_key"), OSError("disk")])
def test_a_credential_that_cannot_be_used_is_the_accounts_fault(redis_url: str, problem: Exception) -> None:
    async def scenario(office: Office) -> None:
        office.vendor.auth_answers = [problem]
        with pytest.raises(AuthRefused) as refusal:
            await office.members[0].obtain()
        outcome = refusal.value.outcome
        assert (outcome.verdict, outcome.scope) == (Verdict.MISCONFIGURED, Scope.ACCOUNT)
        assert outcome.code == type(problem).__name__

    in_office(redis_url, scenario, vendor=Cloud())


def test_one_without_a_life_is_used_once_and_not_asked_for_in_circles(redis_url: str) -> None:
    async def scenario(office: Office) -> None:
        office.vendor.auth_answers = [AuthAnswer("brief", 0.0), AuthAnswer("", 0.0)]
        assert await asyncio.wait_for(office.members[0].obtain(), 1) == "brief"
        assert await asyncio.wait_for(office.members[0].obtain(), 1) == ""
        assert office.vendor.auth_calls == 2

    in_office(redis_url, scenario, vendor=Cloud())


DYING = """
import asyncio, sys
from tests.workers.test_credentials import an_office

async def run():
    async with an_office(sys.argv[1]) as office:
        office.may_answer.clear()
        await office.members[0].obtain()

asyncio.run(run())
"""


def test_what_a_killed_process_was_about_to_renew_another_renews_seconds_later(
    redis_url: str, redis_client: redis.Redis
) -> None:
    dying = subprocess.Popen([sys.executable, "-c", DYING, redis_url], cwd=ROOT)
    try:
        while not redis_client.exists(f"{KEYS.root}:auth:lock"):
            assert dying.poll() is None
            time.sleep(0.01)
    finally:
        dying.kill()
        dying.wait()

    async def scenario(office: Office) -> None:
        assert await asyncio.wait_for(office.members[0].obtain(), 5) == "value-1"

    in_office(redis_url, scenario)


def test_a_renewal_that_takes_long_is_left_to_the_one_who_began_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "_LOCK_S", 1.5)
    monkeypatch.setattr(credentials, "_POLL_S", 0.01)

    async def scenario(office: Office) -> None:
        office.may_answer.clear()
        asking = [asyncio.create_task(member.obtain()) for member in office.members]
        await until(lambda: office.fetched == 1)
        # For longer than the lock lives unless it is renewed.
        await asyncio.sleep(2)
        office.may_answer.set()
        assert await asyncio.gather(*asking) == ["value-1"] * 2
        assert office.fetched == 1
        assert await office.link.call("EXISTS", f"{KEYS.root}:auth:lock") == 0

    in_office(redis_url, scenario)


def test_who_was_too_slow_does_not_take_anothers_lock_away(redis_url: str) -> None:
    async def scenario(office: Office) -> None:
        office.may_answer.clear()
        slow = asyncio.create_task(office.members[0].obtain())
        await until(lambda: office.fetched == 1)
        await office.link.call("SET", f"{KEYS.root}:auth:lock", "anothers")
        office.may_answer.set()
        await slow
        assert await office.link.call("GET", f"{KEYS.root}:auth:lock") == b"anothers"

    in_office(redis_url, scenario)


def test_a_full_redis_does_not_keep_it_from_being_made(tmp_path: Any) -> None:
    async def scenario(office: Office) -> None:
        await office.link.call("CONFIG", "SET", "maxmemory", 1)
        assert await office.members[0].obtain() == "value-1"

    with EmbeddedRedis(tmp_path) as server:
        in_office(server.url, scenario)


def test_the_value_is_in_no_repr_and_no_log(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario(office: Office) -> None:
        one = office.members[0]
        await one.obtain()
        office.clock.ms += int(LIFE_S * 1_000 * 0.81)
        office.problem = ValueError("value-2 in a text")
        await one.obtain()
        await one.reject("value-1")
        with pytest.raises(AuthRefused) as refusal:
            await one.obtain()
        shown = f"{one!r} {refusal.value!r} {refusal.value} {AuthAnswer('value-1', 1)!r}"
        shown += repr(Response(200, {"x": "value-1"}, b"value-1")) + repr(
            Request("value-1", {"x": "value-1"}, b"value-1")
        )
        assert "value-" not in shown

    in_office(redis_url, scenario)
    assert "was not renewed (ValueError)" in caplog.text
    assert "value-" not in caplog.text


def test_operators_find_why_there_is_none_until_there_is_one(redis_url: str) -> None:
    async def scenario(office: Office) -> None:
        one, other = office.members
        key = f"{KEYS.root}:auth"
        office.status = 401
        with pytest.raises(AuthRefused):
            await one.obtain()
        assert await office.link.call("HGET", key, "refused") == b"invalid_client"
        assert 0 < await office.link.call("PTTL", key) <= 86_400_000
        office.problem = NoAnswer("no connection", maybe_delivered=False)
        with pytest.raises(AuthRefused):
            await other.obtain()
        assert await office.link.call("HGET", key, "refused") == b"invalid_client", "nobody refused it now"
        office.problem, office.status = None, 200
        await other.obtain()
        assert sorted((await office.link.call("HGETALL", key))[::2]) == [
            b"expires_at_ms", b"renew_at_ms", b"rests_until_ms", b"value",
        ]  # fmt: skip
        assert 0 < await office.link.call("PTTL", key) <= LIFE_S * 1_000

    in_office(redis_url, scenario)


def test_without_a_fleet_a_process_has_one_of_its_own() -> None:
    async def scenario() -> None:
        fetched = []

        async def fetch(request: Request) -> Response:
            fetched.append(request)
            return Response(200 if len(fetched) < 3 else 401, {}, b"value-%d" % len(fetched))

        clock = Clock()
        alone = Authorization(OAuthVendor(), AccountSettings(app="demo"), None, KEYS.root, clock, fetch)
        assert [await alone.obtain(), await alone.obtain()] == ["value-1", "value-1"]
        await alone.reject("value-1")
        assert await alone.obtain() == "value-2"
        clock.ms += int(LIFE_S * 1_000)
        with pytest.raises(AuthRefused):
            await alone.obtain()

    asyncio.run(scenario())
