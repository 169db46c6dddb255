"""Trying a credential for real: its authorization, and on request one push to a token that cannot exist."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from msgspec import Struct

from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.errors import CredentialError, FleetError, NoAnswer
from pushfleet_workers.outcome import Outcome, Scope, Verdict
from pushfleet_workers.push import Delivery, Push, delivery_id
from pushfleet_workers.transports import TransportOptions, open_transport
from pushfleet_workers.transports.base import Transport
from pushfleet_workers.vendor import AuthAnswer, Vendor

__all__ = ["PROBE_TOKEN", "Trial", "explain", "try_account"]

PROBE_TOKEN = "0" * 64
"""Has the form of the tokens that some vendors check, and is nobody's."""

_LIFE_MS = 60_000
_IN = frozenset({Verdict.OK, Verdict.DROP_TOKEN, Verdict.MUTE_DEVICE})
_LIMITED = frozenset({Verdict.RATE_LIMITED, Verdict.QUOTA_EXHAUSTED})


class Trial(Struct, frozen=True):
    """What came of trying a credential."""

    good: bool | None
    """Whether the vendor takes it; None: what it said does not tell."""

    sentence: str
    code: str = ""
    """The vendor's code; empty where it gave none."""

    expires_in_s: int = 0
    """The life of the authorization; 0: there is none."""


@dataclass(frozen=True, slots=True)
class _Trier:
    vendor: Vendor
    account: Any
    now_s: float

    @property
    def _who(self) -> str:
        return self.vendor.name

    async def authorize(self) -> tuple[AuthAnswer, bool]:
        """The authorization, and whether the vendor itself gave or refused it."""
        minted = self.vendor.mint(self.account, self.now_s)
        if minted is not None:
            return minted, False
        request = self.vendor.auth_request(self.account, self.now_s)
        transport = self._open(TransportOptions())
        try:
            return self.vendor.read_auth(await transport.send(request)), True
        finally:
            await transport.close()

    async def probe(self, auth: str) -> Outcome:
        """The vendor's answer to one push to nobody; raises :class:`NoAnswer`."""
        options = TransportOptions(http2=self.vendor.http2, identity=self.vendor.identity(self.account))
        transport = self._open(options)
        try:
            return await self._push(transport, auth)
        finally:
            await transport.close()

    def _open(self, options: TransportOptions) -> Transport:
        account = self.account
        common = {"timeout_s": account.timeout_s, "ca_bundle": account.ca_bundle, "proxy": account.proxy}
        return open_transport("httpx", replace(options, **common))

    async def _push(self, transport: Transport, auth: str) -> Outcome:
        now_ms = int(self.now_s * 1000)
        push = Push(
            app=self.account.app,
            message_id=f"probe-{now_ms}",
            kind="chat",
            lane="normal",
            title="pushfleet",
            body="probe",
            expires_at_ms=now_ms + _LIFE_MS,
            sent_at_ms=now_ms,
            enqueued_at_ms=now_ms,
        )
        to = [Delivery(delivery_id(push.app, push.message_id, "", "probe"), "", "", PROBE_TOKEN, now_ms)]
        stage = self.vendor.stage(self.account, push, to, auth, now_ms)
        if stage is None:
            request = self.vendor.build(self.account, push, to, auth, now_ms)
        else:
            staged = self.vendor.read_staged(await transport.send(stage))
            if staged.failure is not None:
                return staged.failure
            request = self.vendor.build_staged(self.account, push, to, auth, now_ms, staged.value)
        return self.vendor.read(to, await transport.send(request))[0]


async def try_account(vendor: str, account: AccountSettings, *, probe: bool) -> Trial:
    """Obtain an authorization for *account*; with *probe* also send one push to a token that cannot exist.

    Nothing of it reaches the fleet: neither its authorization nor its books.
    """
    trier = _Trier(registry.load(vendor), account, time.time())
    try:
        answer, asked = await trier.authorize()
        if answer.failure is not None:
            return _refused_authorization(vendor, answer.failure, asked)
        if not probe:
            return _authorized(vendor, answer, asked)
        outcome = await trier.probe(answer.value)
    except NoAnswer as problem:
        return Trial(None, f"{vendor} could not be reached: {problem}")
    except CredentialError as problem:
        return Trial(False, str(problem))
    except FleetError as problem:
        return Trial(None, str(problem))
    return explain(trier.vendor, outcome, int(answer.life_s))


def _authorized(vendor: str, answer: AuthAnswer, asked: bool) -> Trial:
    life_s = int(answer.life_s)
    if asked:
        return Trial(True, f"{vendor} takes the credential: it gave an access token", expires_in_s=life_s)
    sentence = f"the key serves to sign or to show; whether {vendor} takes it, only a probe tells: add --probe"
    return Trial(None, sentence, expires_in_s=life_s)


def _refused_authorization(vendor: str, failure: Outcome, asked: bool) -> Trial:
    if not asked:
        return Trial(False, f"no authorization can be made ({failure.code}): see pushfleet check", failure.code)
    if failure.verdict is Verdict.MISCONFIGURED:
        return Trial(False, f"{vendor} refuses the credential ({failure.code}): check id and secret", failure.code)
    return Trial(None, f"{vendor} gives no access token now ({failure.code}): try again later", failure.code)


def explain(vendor: Vendor, outcome: Outcome, life_s: int = 0) -> Trial:
    """What the answer to a probe says of the credential, in a sentence."""
    code, row = outcome.code, vendor.codes.get(outcome.code)
    said = f"{vendor.name} answered {code}" if code else f"{vendor.name} took the push"
    said += f' ("{row.meaning}")' if row is not None else ""
    good, conclusion = _conclusion(outcome)
    return Trial(good, f"{said}: {conclusion}", code, life_s)


def _conclusion(outcome: Outcome) -> tuple[bool | None, str]:
    verdict, scope = outcome.verdict, outcome.scope
    if verdict in _IN:
        return True, "the credential is good, only the token of the probe is nobody's"
    if verdict is Verdict.BAD_PAYLOAD and not outcome.code.startswith("HTTP "):
        return True, "the credential is good, the vendor only would not have the probe itself"
    if verdict is Verdict.REFRESH_AUTH or (verdict is Verdict.MISCONFIGURED and scope is Scope.ACCOUNT):
        return False, "the vendor does not take the credential"
    if verdict is Verdict.MISCONFIGURED:
        return True, "the credential is good, but lacks a right or template for chats"
    if verdict in _LIMITED:
        return None, "the credential seems good, but the vendor is asked too much of; try again later"
    return None, "that says nothing of the credential; try again later"
