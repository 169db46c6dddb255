"""Where a request meets its fate: the vendor's check, then the script, then the book."""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec
from h2.errors import ErrorCodes

from pushfleet_workers.fakecloud.book import Book, Page
from pushfleet_workers.fakecloud.journal import Journal
from pushfleet_workers.fakecloud.rules import FAULTS, Action, Rule, RuleBook
from pushfleet_workers.fakecloud.vendor import Death, FakeVendor
from pushfleet_workers.fakecloud.wire import Call, Fault, Reply, Request, Response

__all__ = ["Desk"]

Clock = Callable[[], float]

_H2_ERRORS = {Action.RESET: ErrorCodes.INTERNAL_ERROR, Action.GOAWAY: ErrorCodes.NO_ERROR}


class Desk:
    """Answers the requests to one vendor.

    A request that is not in order is refused before the script sees it, so rules count only requests in order, and the
    *journal* has only those.
    """

    def __init__(
        self,
        vendor: FakeVendor,
        rules: RuleBook,
        book: Book,
        wall: Clock,
        monotonic: Clock,
        journal: Journal | None = None,
    ) -> None:
        self._vendor = vendor
        self._rules = rules
        self._book = book
        self._wall = wall
        self._monotonic = monotonic
        self._journal = journal

    def __call__(self, request: Request) -> Reply:
        """What the connection is to do with *request*."""
        now_s = self._wall()
        page = self._book.pages[self._vendor.name]
        page.requests += 1
        call = self._vendor.read(request, now_s)
        if isinstance(call, Response):
            page.results[call.result] += 1
            return Reply(call)
        page.meet(call.tokens)
        verdict = self._rules.judge(call.endpoint, call.tokens, call.account, request.body)
        rule = verdict.rule
        if rule is None:
            return Reply(self._answer(call, verdict.dead, now_s, page))
        if rule.action is Action.ANSWER:
            return Reply(self._answer(call, verdict.dead, now_s, page), rule.delay_s)
        if rule.action in FAULTS:
            return self._fault(call, rule, now_s, page)
        response = self._scripted(call, rule, now_s)
        page.results[response.result] += 1
        self._enter(call, now_s, taken=call.tokens if rule.takes else (), dead=self._told_dead(call, rule))
        return Reply(response, rule.delay_s)

    def _answer(self, call: Call, dead: dict[str, Rule], now_s: float, page: Page) -> Response:
        deaths = {token: Death(rule.code, rule.since_ms or 0) for token, rule in dead.items()} if dead else {}
        response = self._vendor.answer(call, deaths, now_s)
        page.results[response.result] += 1
        if not dead or call.endpoint != "send":
            self._enter(call, now_s, taken=call.tokens)
            return response
        told = dead if call.names_dead or len(dead) == len(set(call.tokens)) else ()
        self._enter(call, now_s, taken=tuple(token for token in call.tokens if token not in dead), dead=told)
        return response

    def _scripted(self, call: Call, rule: Rule, now_s: float) -> Response:
        if rule.action is Action.RAW:
            headers = tuple((name.lower(), value) for name, value in rule.headers.items())
            return Response(rule.status, f"status {rule.status}", rule.body, (*call.echo, *headers))
        if rule.action is Action.REFUSE:
            return self._vendor.refuse(rule.code, call, now_s)
        return self._throttled(call, rule, now_s)

    def _told_dead(self, call: Call, rule: Rule) -> tuple[str, ...]:
        return call.tokens if rule.action is Action.REFUSE and rule.code in self._vendor.deaths else ()

    def _throttled(self, call: Call, rule: Rule, now_s: float) -> Response:
        refusal = self._vendor.refuse(rule.code or self._vendor.throttled, call, now_s)
        headers = refusal.headers
        if rule.retry_after_s is not None:
            headers = (*headers, ("retry-after", f"{rule.retry_after_s:g}"))
        return msgspec.structs.replace(refusal, status=rule.status or 429, headers=headers)

    def _fault(self, call: Call, rule: Rule, now_s: float, page: Page) -> Reply:
        page.results[rule.action.value] += 1
        self._enter(call, now_s, taken=call.tokens if rule.takes else ())
        processed = rule.takes if rule.processed is None else rule.processed
        reason = rule.code if rule.action is Action.GOAWAY else ""
        fault: Fault = FAULTS[rule.action]
        h2_error = rule.h2_error if rule.h2_error is not None else _H2_ERRORS.get(rule.action, 0)
        return Reply(None, rule.delay_s, fault, h2_error, processed, reason)

    def _enter(self, call: Call, now_s: float, *, taken: tuple[str, ...], dead: Collection[str] = ()) -> None:
        """Write down what became of the tokens of *call*; those in *dead* were called so in the answer."""
        self._book.pages[self._vendor.name].tell_dead(dead)
        if call.endpoint != "send" or call.dry_run:
            return
        for part in call.parts or (call,):
            some = tuple(token for token in part.tokens if token in taken) if call.parts else taken
            if some and not part.dry_run:
                self._book.accept(self._vendor.name, part, some, self._monotonic(), now_s)
        if self._journal is not None:
            self._journal.enter(self._vendor.name, call, now_s, taken, dead)
