"""One push straight to a vendor, past router and ledger, and its answer explained: for operators who try an account."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from pushfleet.message import OfflineMessage
from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.callers import Callers
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credential_store import Accounts
from pushfleet_workers.credential_store.store import CredentialStore, Name
from pushfleet_workers.credentials import UNREACHABLE_CODE, AuthRefused
from pushfleet_workers.distrust import certificate_sentence
from pushfleet_workers.errors import CredentialError, Distrusted, FleetError, NoAnswer, SettingsError
from pushfleet_workers.exchange import Exchange
from pushfleet_workers.explain import answered, consequence
from pushfleet_workers.outcome import Outcome, Scope, Verdict
from pushfleet_workers.push import Delivery, Push, delivery_id, fingerprint
from pushfleet_workers.redis_link import Link
from pushfleet_workers.retry import RetryPolicy
from pushfleet_workers.settings import Settings
from pushfleet_workers.transports import Transport
from pushfleet_workers.vendor import Request, Response, Vendor

__all__ = ["Sent", "send_one"]


class Sent(Struct, frozen=True):
    """What became of the push."""

    vendor: str
    credential: str
    token: str
    """Its fingerprint."""

    accepted: bool
    verdict: str
    scope: str
    code: str
    """The vendor's; empty where it gave none."""

    meaning: str
    """Of the code, by the vendor's table; empty where it is not there."""

    status: int
    """HTTP status of the last answer to the push; 0: the vendor gave no authorization, and nothing was sent."""

    fleet: str
    """What the fleet would do."""

    sentence: str


class _Overheard:
    """A transport that remembers how it was answered."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.status = 0
        self.distrusted: Distrusted | None = None

    async def send(self, request: Request) -> Response:
        try:
            response = await self._inner.send(request)
        except Distrusted as problem:
            self.distrusted = problem
            raise
        self.status = response.status
        return response

    def hold_back(self) -> None:
        self._inner.hold_back()

    async def renew(self) -> None:
        await self._inner.renew()

    async def close(self) -> None:
        await self._inner.close()


@dataclass(frozen=True, slots=True)
class _Sender:
    settings: Settings
    link: Link | None
    vendor: Vendor
    credential: str
    account: AccountSettings
    clock: FleetClock
    overlap_until_ms: int
    """Until when the fleet keeps the secret before the one that is sent with; 0: it has none."""

    async def send(self, push: Push, delivery: Delivery) -> Sent:
        _refuse_unusable(self.vendor, self.account, self.clock.now_ms() / 1000)
        callers = Callers(self.link, self.settings.redis.prefix, self.clock)
        caller = callers.enter(self.vendor, self.credential, self.account)
        try:
            auth = await caller.authorization.obtain()
            transport = _Overheard(caller.transport)
            exchange = Exchange(self.vendor, self.account, transport, self.clock, lambda seconds: None)
            ((outcome,),) = await exchange([(push, [delivery])], auth)
            if transport.distrusted is not None:
                raise transport.distrusted
            if outcome.verdict is Verdict.REFRESH_AUTH:
                await caller.authorization.reject(auth)
        except AuthRefused as refused:
            if refused.outcome.code == UNREACHABLE_CODE:
                raise FleetError(f"{self.vendor.name} could not be asked for an authorization: try again") from None
            distrust = certificate_sentence(refused.outcome.code)
            if distrust:
                raise FleetError(f"{self.vendor.name} was not asked for an authorization: {distrust}") from None
            return self._explained(refused.outcome, push, delivery, 0)
        except Distrusted as problem:
            sentence = certificate_sentence(problem.code)
            raise FleetError(f"{self.vendor.name} did not get the push: {sentence} ({problem})") from None
        except NoAnswer as problem:
            raise self._unanswered(problem) from None
        finally:
            await callers.leave(caller)
        if not transport.status:
            raise FleetError(f"the module of {self.vendor.name} made no request of the push ({outcome.code})")
        return self._explained(outcome, push, delivery, transport.status)

    def _unanswered(self, problem: NoAnswer) -> FleetError:
        known = "it is not known whether it took the push" if problem.maybe_delivered else "it did not get the push"
        drops = problem.maybe_delivered and self.account.on_unknown == "drop"
        would = "drop it" if drops else "send it again"
        return FleetError(f"{self.vendor.name} did not answer ({problem}): {known}, and the fleet would {would}")

    def _explained(self, outcome: Outcome, push: Push, delivery: Delivery, status: int) -> Sent:
        retry = self.settings.retry
        drops = self.account.on_unknown == "drop"
        policy = RetryPolicy(self.account.attempts_max, retry.first_s, retry.longest_s, drop_unknown=drops)
        name, token = self.vendor.name, fingerprint(delivery.token)
        row = self.vendor.codes.get(outcome.code)
        fleet = self._goes_back(outcome) or consequence(outcome, push, delivery, self.clock.now_ms(), policy)
        accepted = outcome.verdict is Verdict.OK
        said = answered(outcome, self.vendor.codes, status)
        said = f" ({said})" if said else ""
        did = "took" if accepted else "may have taken" if outcome.unknown else "refused"
        what = f"{did} the push to token {token}" if status else "gave no authorization"
        verdict = "" if accepted else f": {outcome.verdict}, scope {outcome.scope}"
        return Sent(
            vendor=name,
            credential=self.credential,
            token=token,
            accepted=accepted,
            verdict=outcome.verdict.value,
            scope=outcome.scope.value,
            code=outcome.code,
            meaning=row.meaning if row is not None else "",
            status=status,
            fleet=fleet,
            sentence=f"{name} {what}{said}{verdict}; the fleet would {fleet}.",
        )

    def _goes_back(self, outcome: Outcome) -> str:
        """What the fleet does where the vendor refuses what a rotation brought; empty where that is not so."""
        refused = outcome.verdict is Verdict.MISCONFIGURED and outcome.scope is Scope.ACCOUNT
        if not refused or not self.overlap_until_ms:
            return ""
        until = datetime.fromtimestamp(self.overlap_until_ms / 1000, UTC)
        return f"go back to the secret before the rotation, which is kept until {until:%Y-%m-%d %H:%M UTC}"


async def send_one(
    settings: Settings, vendor: str, credential: str, message: OfflineMessage, *, badge: int, token_kind: str
) -> Sent:
    """Send *message* to its one target by an account of the settings or the store.

    The authorization is the fleet's where there is a Redis, and else one of its own. Nothing else of the fleet hears of
    it. Raises :class:`FleetError` where the vendor was not asked or did not answer; a refusal is no error.
    """
    clock = FleetClock()
    async with AsyncExitStack() as stack:
        link = None
        if settings.redis.queue_url:
            link = Link(settings.redis.queue_url, name="pushfleet-cli", timeout_s=settings.redis.timeout_s)
            stack.push_async_callback(link.close)
            seconds, micros = await link.call("TIME")
            clock.heard(int(seconds) * 1000 + int(micros) / 1000)
        account = await stack.enter_async_context(_account(settings, link, vendor, credential))
        if account.transport == "pyreqwest":
            # Its threads abort a process that ends right after its request, which this one does.
            account = account.model_copy(update={"transport": "httpx"})
        overlap_until_ms = 0
        if link is not None and credential not in settings.accounts.get(vendor, {}):
            overlap_until_ms = await _overlap_until_ms(settings, link, Name(vendor, credential), clock)
        sender = _Sender(settings, link, registry.load(vendor), credential, account, clock, overlap_until_ms)
        push, delivery = _letter(message, account.app, clock.now_ms(), badge, token_kind)
        return await sender.send(push, delivery)


@asynccontextmanager
async def _account(
    settings: Settings, link: Link | None, vendor: str, credential: str
) -> AsyncIterator[AccountSettings]:
    known = settings.accounts.get(vendor, {})
    if credential in known or link is None:
        yield _named(known, vendor, credential)
        return
    accounts = Accounts(settings, link, secrets=True)
    try:
        await accounts.refresh()
        found = {name: account for of, name, account in accounts.each() if of == vendor}
        yield _named(found, vendor, credential)
    finally:
        accounts.close()


async def _overlap_until_ms(settings: Settings, link: Link, name: Name, clock: FleetClock) -> int:
    stored = await CredentialStore(link, settings.redis.prefix).get(name)
    # Once the vendor has refused the new secret, the one before is what is sent with.
    if stored is None or stored.record.refused or not stored.record.overlaps(clock.now_ms()):
        return 0
    return stored.record.overlap_until_ms


def _named(known: dict[str, Any], vendor: str, credential: str) -> AccountSettings:
    registry.load(vendor)
    if credential not in known:
        mend = f"there are {', '.join(known)}" if known else f"add [accounts.{vendor}.{credential}] to pushfleet.toml"
        raise SettingsError(f"there is no account {vendor}:{credential}: {mend}")
    account: AccountSettings = known[credential]
    return account


def _letter(message: OfflineMessage, app: str, now_ms: int, badge: int, token_kind: str) -> tuple[Push, Delivery]:
    (target,) = message.targets
    push = Push(
        app=app,
        message_id=message.id,
        kind=message.kind,
        lane=message.effective_lane,
        title=message.title or "",
        body=message.body or "",
        expires_at_ms=now_ms + message.effective_ttl_s * 1000,
        sent_at_ms=now_ms,
        enqueued_at_ms=now_ms,
        replace_key=message.effective_replace_key or "",
        ext=(message.offline_push.ext or "") if message.offline_push is not None else "",
    )
    identity = delivery_id(app, message.id, "", f"{target.vendor}:{target.credential}:{target.token}")
    return push, Delivery(identity, "", "", target.token, now_ms, badge=badge, token_kind=token_kind)


def _refuse_unusable(vendor: Vendor, account: Any, now_s: float) -> None:
    """Raise :class:`CredentialError` where no authorization can even be asked for."""
    minted = vendor.mint(account, now_s)
    if minted is None:
        vendor.auth_request(account, now_s)
    elif minted.failure is not None:
        said = answered(minted.failure, vendor.codes, 0)
        raise CredentialError(f"no authorization can be made ({said}): see pushfleet check")
