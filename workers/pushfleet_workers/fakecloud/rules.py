"""Scripting: which requests meet which fate, decided by token and by count, never by chance."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from pushfleet_workers.fakecloud.vendor import FakeVendor
from pushfleet_workers.fakecloud.wire import Fault

__all__ = ["Action", "Rule", "RuleBook", "Verdict", "check_rule", "make_rule"]


class Action(enum.StrEnum):
    """What a rule does to a request that is in order."""

    ANSWER = "answer"
    """The usual answer; with ``delay_s`` a slow one."""

    REFUSE = "refuse"
    """The vendor's refusal called ``code``."""

    DEAD = "dead"
    """The token is dead: ``code`` or the vendor's usual one; in a batch only this token fails."""

    THROTTLE = "throttle"
    """The vendor's "too fast" (or ``code``) with ``status`` (429) and ``retry_after_s``."""

    RAW = "raw"
    """``status``, ``headers`` and ``body`` as they are."""

    SILENT = "silent"
    """No answer, ever; the connection stays."""

    RESET = "reset"
    """RST_STREAM with ``h2_error``; on HTTP/1.1 the connection closes."""

    GOAWAY = "goaway"
    """GOAWAY, then the connection closes with everything that is in flight on it."""

    DROP = "drop"
    """The connection breaks without a word."""

    HALF_CLOSE = "half_close"
    """Our side of the connection ends (TCP's FIN); what still comes on it is read, taken and never answered."""


FAULTS = {
    Action.SILENT: Fault.SILENT,
    Action.RESET: Fault.RESET,
    Action.GOAWAY: Fault.GOAWAY,
    Action.DROP: Fault.DROP,
    Action.HALF_CLOSE: Fault.HALF_CLOSE,
}

_TAKING = frozenset({Action.SILENT, Action.HALF_CLOSE})

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0, le=86_400)]


class Rule(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line of the script: of the rules that match a request, the oldest that is due acts.

    Rules after it do not count that request. In JSON ``body`` is base64.
    """

    vendor: str
    action: Action
    endpoint: Literal["send", "auth", "stage", "withdraw"] = "send"
    token: str = ""
    """Only this token; in a batch any of its tokens."""

    prefix: str = ""
    """Only tokens that begin so. Without token and prefix every request matches."""

    account: str = ""
    """Only requests of this credential, by its id: the way to requests that name no token."""

    contains: str = ""
    """Only requests in whose body this stands: the way to one class of messages."""

    after: Count = 0
    """How many matches pass before the rule acts."""

    times: Count = 0
    """How often it acts; 0: for ever."""

    every: Annotated[int, Meta(ge=1)] = 1
    """Acts on each n-th match after ``after``."""

    code: str = ""
    status: Annotated[int, Meta(ge=0, le=599)] = 0
    headers: dict[str, str] = {}
    body: bytes = b""
    delay_s: Seconds = 0.0
    """How long the request lies before the fate befalls it; it counts as received at once."""

    retry_after_s: Seconds | None = None
    since_ms: int | None = None
    """When the token died, Unix milliseconds; absent: when the rule was made."""

    accepts: bool | None = None
    """Whether the vendor took the push although the client never learns it; absent: ``silent``, ``half_close`` did."""

    h2_error: Annotated[int, Meta(ge=0, le=13)] | None = None
    """RFC 9113 error code; absent: INTERNAL_ERROR (2) for ``reset``, NO_ERROR (0) for ``goaway``.

    7 is REFUSED_STREAM, which promises that nothing was processed.
    """

    processed: bool | None = None
    """Whether the last-stream-id of a ``goaway`` includes the request; absent: as ``accepts``.

    A late one (``delay_s``) includes it in any case once a later request has been read.
    """

    @property
    def takes(self) -> bool:
        """Whether a push that meets this rule's fault was taken by the vendor."""
        return self.action in _TAKING if self.accepts is None else self.accepts


def make_rule(fields: dict[str, Any]) -> Rule:
    """The rule in plain *fields*; raises :class:`ValueError` that names the wrong one."""
    return msgspec.convert(fields, Rule, strict=True)


def check_rule(rule: Rule, vendor: type[FakeVendor]) -> None:
    """Raise :class:`ValueError` where *vendor* could not do what *rule* says."""
    if rule.code and rule.code not in vendor.refusals:
        raise ValueError(f"{vendor.name} has no refusal {rule.code!r}: {', '.join(sorted(vendor.refusals))}")
    if rule.action is Action.REFUSE and not rule.code:
        raise ValueError("the action refuse needs a code")
    if rule.action is Action.DEAD and rule.code and rule.code not in vendor.deaths:
        raise ValueError(f"{rule.code!r} kills no token at {vendor.name}: {', '.join(sorted(vendor.deaths))}")
    if rule.action is Action.RAW and not rule.status:
        raise ValueError("the action raw needs a status")
    if rule.action is Action.RAW and rule.status < 200:
        raise ValueError("the status of an answer is 200 or above")
    if rule.token and rule.prefix:
        raise ValueError("a rule has a token or a prefix, not both")


class Verdict(Struct, frozen=True):
    """What the script says of one request."""

    rule: Rule | None = None
    """The rule that acts on the whole request."""

    dead: dict[str, Rule] = {}
    """The dead tokens among its tokens."""


_NOTHING = Verdict()


class _Live:
    """A rule with its count."""

    __slots__ = ("contains", "matches", "number", "rule")

    def __init__(self, number: int, rule: Rule) -> None:
        self.number = number
        self.rule = rule
        self.contains = rule.contains.encode()
        self.matches = 0

    def meets(self, endpoint: str, account: str, body: bytes) -> bool:
        """Whether it is for whole requests, and for those of *account* to *endpoint* with that *body*."""
        rule = self.rule
        return rule.action is not Action.DEAD and rule.endpoint == endpoint and self._for(account, body)

    def kills(self, account: str, body: bytes) -> bool:
        """Whether it is for single tokens, and for those that *account* sends to with that *body*."""
        return self.rule.action is Action.DEAD and self._for(account, body)

    def _for(self, account: str, body: bytes) -> bool:
        return self.rule.account in ("", account) and self.contains in body

    def due(self) -> bool:
        """Count one match; whether the rule acts on it."""
        rule = self.rule
        self.matches += 1
        turn = self.matches - rule.after
        if turn <= 0 or turn % rule.every:
            return False
        return not rule.times or turn // rule.every <= rule.times


class RuleBook:
    """The script of one vendor. Rules for one token cost the same however many there are."""

    def __init__(self, numbers: itertools.count[int]) -> None:
        self._numbers = numbers
        self._live: dict[int, _Live] = {}
        self._by_token: dict[str, list[_Live]] = {}
        self._wide: list[_Live] = []

    def add(self, rule: Rule) -> int:
        """Append *rule*; gives its number."""
        live = _Live(next(self._numbers), rule)
        self._live[live.number] = live
        if rule.token:
            self._by_token.setdefault(rule.token, []).append(live)
        else:
            self._wide.append(live)
        return live.number

    def remove(self, number: int) -> bool:
        """Strike the rule out; whether there was one."""
        live = self._live.pop(number, None)
        if live is None:
            return False
        token = live.rule.token
        peers = self._by_token[token] if token else self._wide
        peers.remove(live)
        if token and not peers:
            del self._by_token[token]
        return True

    def revive(self, token: str) -> bool:
        """Strike out the ``dead`` rules of exactly this token; whether there were any."""
        deaths = [live for live in self._by_token.get(token, ()) if live.rule.action is Action.DEAD]
        for live in deaths:
            self.remove(live.number)
        return bool(deaths)

    def clear(self) -> None:
        """Strike out everything."""
        self._live.clear()
        self._by_token.clear()
        self._wide.clear()

    def listing(self) -> list[dict[str, Any]]:
        """Every rule as JSON-ready fields, with its number as ``id`` and its count as ``matches``."""
        return [
            {"id": live.number, "matches": live.matches, **msgspec.to_builtins(live.rule)}
            for live in self._live.values()
        ]

    def judge(self, endpoint: str, tokens: Sequence[str], account: str = "", body: bytes = b"") -> Verdict:
        """What befalls a request of *account* to *endpoint* for *tokens*; counts it for the rules that it meets."""
        if not self._live:
            return _NOTHING
        rule = next((live.rule for live in self._candidates(endpoint, tokens, account, body) if live.due()), None)
        return Verdict(rule, self._dead(tokens, account, body) if endpoint != "auth" else {})

    def _candidates(self, endpoint: str, tokens: Sequence[str], account: str, body: bytes) -> Iterable[_Live]:
        """The rules for whole requests that match, oldest first."""
        found = [
            live
            for live in self._wide
            if live.meets(endpoint, account, body)
            and (not live.rule.prefix or any(token.startswith(live.rule.prefix) for token in tokens))
        ]
        for token in dict.fromkeys(tokens) if self._by_token else ():
            found += [live for live in self._by_token.get(token, ()) if live.meets(endpoint, account, body)]
        return sorted(found, key=lambda live: live.number) if len(found) > 1 else found

    def _dead(self, tokens: Sequence[str], account: str, body: bytes) -> dict[str, Rule]:
        wide = [live for live in self._wide if live.kills(account, body)]
        if not wide and not self._by_token:
            return {}
        dead: dict[str, Rule] = {}
        for token in dict.fromkeys(tokens):
            own = [live for live in self._by_token.get(token, ()) if live.kills(account, body)]
            for live in (*own, *wide):
                if token.startswith(live.rule.prefix) and live.due():
                    dead[token] = live.rule
                    break
        return dead
