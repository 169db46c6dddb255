"""The calls of the API without a connection: requests, answers, and when a request is sent again."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushfleet import (
    ApiError,
    ApiRefused,
    ApiUnavailable,
    Channel,
    ClientReceipt,
    DoNotDisturb,
    Preferences,
    QuietHours,
    Registration,
    StateReport,
)
from pushfleet.calls import MANY, RETRY_AFTER_S_MAX, Answer, Api, Call, NoAnswer, Pause, Reply, Request
from pushfleet.devices import ReceiptsRecorded, Reported

T = TypeVar("T")

TOKEN = "f00dcafe" * 8
DEVICE_SHOWN = {
    "state": "unknown", "state_at_ms": 0, "lease_until_ms": 0, "unread": 0, "notifications": True, "locale": "",
    "time_zone": "", "platform": "", "maker": "", "os_version": "", "app_version": "", "channels": [],
}  # fmt: skip
AWAY = NoAnswer("no answer came from 127.0.0.1:1, connection refused")


def ok(body: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode())


def refusal(status: int, code: str, field: str = "", retry_after: str = "") -> Answer:
    told = {"code": code, "message": "it is wrong: mend it", "field": field}
    return Answer(status, json.dumps(told).encode(), retry_after)


def play(call: Call[T], *replies: Answer | NoAnswer) -> tuple[T, list[Request], list[float]]:
    """The result of *call*, the requests that it sent and the pauses that it made, all *replies* used."""
    requests: list[Request] = []
    pauses: list[float] = []
    left = list(replies)
    try:
        reply: Reply = None
        while True:
            step = call.send(reply)
            if isinstance(step, Pause):
                pauses.append(step.seconds)
                reply = None
            else:
                requests.append(step)
                reply = left.pop(0)
    except StopIteration as done:
        assert left == []
        return done.value, requests, pauses


def an_api(attempts: int = 3, chance: float = 0.5, app: str = "chat") -> Api:
    return Api(app, attempts, lambda: chance)


def a_report(user: str = "ann", **changes: Any) -> StateReport:
    return StateReport(**{"user": user, "device": "d1", "state": "background", **changes})


# ---- requests


def test_a_request_says_no_more_than_was_given() -> None:
    registration = Registration(channels=(Channel(vendor="apns", token=TOKEN),), locale="en")
    answer = ok({"applied": True, "device": DEVICE_SHOWN})
    registered, (request,), _ = play(an_api().register("ann", "d1", registration), answer)
    assert registered.applied
    assert (request.method, request.path) == ("PUT", "/v1/apps/chat/users/ann/devices/d1")
    assert json.loads(request.body or b"") == {"channels": [{"vendor": "apns", "token": TOKEN}], "locale": "en"}


def test_a_report_without_an_unread_number_says_none() -> None:
    _, (request,), _ = play(an_api().report(a_report()), ok({"applied": 1, "outdated": 0, "unknown": 0}))
    assert json.loads(request.body or b"") == {"state": "background", "unread": None, "at_ms": 0}


def test_a_logout_is_applied_outdated_or_of_no_device() -> None:
    done, (request,), _ = play(an_api().logout("ann", "d1", 7), ok({"applied": True}))
    assert done
    assert request.path == "/v1/apps/chat/users/ann/devices/d1/logout"
    assert json.loads(request.body or b"") == {"at_ms": 7}
    assert not play(an_api().logout("ann", "d1", 7), ok({"applied": False}))[0]
    assert not play(an_api().logout("ann", "d1", 7), refusal(404, "unknown_device"))[0]


def test_preferences_say_no_more_than_was_given() -> None:
    answer = ok({"push": True, "do_not_disturb": {"daily": [{"start": "22:00", "duration_s": 86_400}]}, "more": 1})
    night = Preferences(do_not_disturb=DoNotDisturb(daily=(QuietHours(start="22:00", duration_s=86_400),)))
    now, (request,), _ = play(an_api().set_preferences("ann", night), answer)
    assert now == night
    assert json.loads(request.body or b"") == {"do_not_disturb": {"daily": [{"start": "22:00", "duration_s": 86_400}]}}
    _, (request,), _ = play(an_api().change_preferences("ann", {"push": None}), answer)
    assert (request.method, json.loads(request.body or b"")) == ("PATCH", {"push": None})


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=64))
def test_any_id_is_one_segment_of_the_path(identity: str) -> None:
    request = next(an_api().user(identity, "", "chat", mention=False))
    assert isinstance(request, Request)
    *before, last = request.path.partition("?")[0].split("/")
    assert before == ["", "v1", "apps", "chat", "users"]
    assert unquote(last, errors="strict") == identity
    assert last not in (".", "..")
    assert request.path.isascii()
    assert request.path.isprintable()


@pytest.mark.parametrize("identity", ["", "x" * 257, "用" * 86, "\ud800"])
def test_a_wrong_id_is_refused_before_anything_is_sent(identity: str) -> None:
    calls: tuple[Callable[[], Any], ...] = (
        lambda: an_api().user(identity, "", "chat", mention=False),
        lambda: an_api().remove("ann", identity),
        lambda: an_api().set_receive_option("ann", identity, "none", 0),
        lambda: an_api(app=identity),
    )
    for call in calls:
        with pytest.raises(ApiRefused) as refused:
            next(call())
        assert (refused.value.status, refused.value.code) == (0, "invalid_id")


def test_half_a_surrogate_pair_in_a_body_is_refused_in_a_sentence() -> None:
    with pytest.raises(ApiRefused, match="reporting states: a text has half a surrogate pair"):
        play(an_api().report_many([a_report("\ud800")]))


def test_one_text_is_no_list_of_recipients() -> None:
    with pytest.raises(TypeError, match="give a list"):
        play(an_api().recall("m-1", "", "ann"))


def test_filters_that_are_not_given_are_not_asked() -> None:
    page = ok({"deaths": [], "cursor": "1-0", "more": False})
    _, (request,), _ = play(an_api().dead_tokens("", 100, {"vendor": "apns", "user": "a&b", "code": ""}), page)
    assert (request.method, request.path) == ("GET", "/v1/apps/chat/dead-tokens?limit=100&vendor=apns&user=a%26b")


# ---- many


def test_many_go_in_requests_of_a_thousand_and_are_summed() -> None:
    given = (a_report(f"u{number}") for number in range(2 * MANY + 1))
    answers = [ok({"applied": 998, "outdated": 1, "unknown": 1}) for _ in range(2)]
    answers.append(ok({"applied": 0, "outdated": 0, "unknown": 1, "something_new": 5}))
    reported, requests, _ = play(an_api().report_many(given), *answers)
    assert reported == Reported(applied=1_996, outdated=2, unknown=3)
    sent = [json.loads(request.body or b"")["reports"] for request in requests]
    assert [len(some) for some in sent] == [MANY, MANY, 1]
    assert [one["user"] for some in sent for one in some] == [f"u{number}" for number in range(2 * MANY + 1)]


def test_none_at_all_sends_nothing() -> None:
    assert play(an_api().report_many([])) == (Reported(), [], [])
    assert play(an_api().report_receipts([])) == (ReceiptsRecorded(), [], [])


def test_a_recall_of_nobody_by_name_is_one_request() -> None:
    entries, (request,), _ = play(an_api().recall("m/1", "c1", ()), ok({"entries": 1}, 202))
    assert entries == 1
    assert request.path == "/v1/apps/chat/messages/m%2F1/recall"
    assert json.loads(request.body or b"") == {"conversation": "c1", "recipients": []}
    many = [f"u{number}" for number in range(MANY + 1)]
    entries, requests, _ = play(an_api().recall("m1", "", many), ok({"entries": 2}, 202), ok({"entries": 1}, 202))
    assert entries == 3
    assert [len(json.loads(request.body or b"")["recipients"]) for request in requests] == [MANY, 1]


def test_receipts_name_the_app() -> None:
    receipt = ClientReceipt(mid="m1", user="ann", device="d1", event="clicked")
    recorded, (request,), _ = play(an_api().report_receipts([receipt]), ok({"recorded": 1, "repeated": 0}))
    assert recorded == ReceiptsRecorded(recorded=1)
    told = {"mid": "m1", "user": "ann", "device": "d1", "event": "clicked"}
    assert json.loads(request.body or b"") == {"app": "chat", "receipts": [told]}


@pytest.mark.parametrize(
    ("told", "field"),
    [
        ("reports[3].at_ms", f"reports[{MANY + 3}].at_ms"),
        ("reports[...].state", "reports[...].state"),
        ("reports", "reports"),
        ("", ""),
    ],
)
def test_the_field_of_a_refusal_counts_from_the_start_of_the_call(told: str, field: str) -> None:
    given = [a_report()] * (MANY + 5)
    with pytest.raises(ApiRefused) as refused:
        play(
            an_api().report_many(given),
            ok({"applied": MANY, "outdated": 0, "unknown": 0}),
            refusal(422, "time_in_future", told),
        )
    assert (refused.value.status, refused.value.code, refused.value.field) == (422, "time_in_future", field)


# ---- what is not there


def test_what_is_not_there_is_an_answer_not_an_error() -> None:
    assert play(an_api().remove("ann", "d1"), refusal(404, "unknown_device"))[0] is False
    assert play(an_api().remove("ann", "d1"), Answer(204, b""))[0] is True
    for known in (True, False):
        answer = Answer(202, json.dumps({"known": known, "since_ms": 1}).encode())
        assert play(an_api().forget_user("ann"), answer)[0] is known
    assert play(an_api().report(a_report()), refusal(404, "unknown_device"))[0] == Reported(unknown=1)


@pytest.mark.parametrize("answer", [refusal(404, "unknown_app"), Answer(404, b"<html>"), Answer(404, b"")])
def test_another_404_is_an_error(answer: Answer) -> None:
    for call in (an_api().remove("ann", "d1"), an_api().forget_user("ann"), an_api().report(a_report())):
        with pytest.raises(ApiError) as failed:
            play(call, answer)
        assert failed.value.status == 404
        assert not isinstance(failed.value, ApiUnavailable)


# ---- sending again


PASSING = [AWAY, refusal(503, "redis_unavailable"), refusal(429, "too_many_requests"), Answer(502, b"<html>")]


@pytest.mark.parametrize("passing", PASSING)
def test_what_passes_is_sent_again_after_a_pause_that_grows(passing: Answer | NoAnswer) -> None:
    call = an_api(attempts=3, chance=0.5).remove("ann", "d1")
    done, requests, pauses = play(call, passing, passing, Answer(204, b""))
    assert done is True
    assert requests == [requests[0]] * 3
    assert pauses == [0.1, 0.2]


def test_pauses_are_drawn_from_the_whole_range_and_bounded() -> None:
    call = an_api(attempts=9, chance=1.0).remove("ann", "d1")
    pauses = play(call, *[AWAY] * 8, Answer(204, b""))[2]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0]
    assert play(an_api(attempts=2, chance=0.0).remove("ann", "d1"), AWAY, Answer(204, b""))[2] == [0.0]


NOT_TIMES = ["", "0", "soon", "-5", "²", "Wed, 21 Oct 2026 07:28:00 GMT"]


@pytest.mark.parametrize(("header", "pause"), [("1", 1.1), *((header, 0.1) for header in NOT_TIMES)])
def test_a_server_that_names_a_time_is_given_it(header: str, pause: float) -> None:
    call = an_api(chance=0.5).remove("ann", "d1")
    assert play(call, refusal(503, "backpressure", retry_after=header), Answer(204, b""))[2] == [pause]


def test_a_server_that_wants_much_time_is_not_waited_for() -> None:
    wait = str(int(RETRY_AFTER_S_MAX) + 1)
    with pytest.raises(ApiUnavailable) as failed:
        play(an_api().remove("ann", "d1"), refusal(503, "backpressure", retry_after=wait))
    assert (failed.value.status, failed.value.code) == (503, "backpressure")


def test_when_the_attempts_are_spent_the_error_says_what_was_done_and_how_often() -> None:
    with pytest.raises(ApiUnavailable) as failed:
        play(an_api(attempts=2).remove("ann", "d1"), AWAY, AWAY)
    assert str(failed.value) == (
        "removing device 'd1' of user 'ann': no answer came from 127.0.0.1:1, connection refused (sent 2 times); "
        "repeating it is safe"
    )
    with pytest.raises(ApiUnavailable) as failed:
        play(an_api(attempts=1).remove("ann", "d1"), refusal(503, "redis_unavailable"))
    assert str(failed.value) == ("removing device 'd1' of user 'ann': it is wrong: mend it (503 redis_unavailable)")


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422])
def test_what_is_wrong_is_not_sent_again(status: int) -> None:
    with pytest.raises(ApiRefused) as refused:
        play(an_api().user("ann", "", "chat", mention=False), refusal(status, "some_code", "channels[0].token"))
    assert (refused.value.status, refused.value.code) == (status, "some_code")
    assert str(refused.value) == (f"reading user 'ann': it is wrong: mend it ({status} some_code at channels[0].token)")


# ---- answers


@pytest.mark.parametrize(
    "answer", [Answer(200, b"<html>"), Answer(200, b""), Answer(200, b"{}"), Answer(302, b""), ok({"devices": 1})]
)
def test_an_answer_of_somebody_else_is_told_from_ours(answer: Answer) -> None:
    with pytest.raises(ApiError, match="not an answer of a pushfleet API; check the address") as failed:
        play(an_api().user("ann", "", "chat", mention=False), answer)
    assert failed.value.status == answer.status


@given(st.binary(max_size=60) | st.sampled_from([b"[]", b"null", b"{}", b"1", b'{"code": 1}']), st.integers(200, 599))
def test_whatever_comes_back_is_a_result_or_an_error_of_ours(body: bytes, status: int) -> None:
    calls: tuple[Call[Any], ...] = (
        an_api(attempts=1).report_many([a_report()]),
        an_api(attempts=1).remove("ann", "d1"),
    )
    for call in calls:
        # Anything else would be a fault of ours.
        with contextlib.suppress(ApiError):
            play(call, Answer(status, body))


def test_a_newer_api_may_say_more() -> None:
    user = {
        "devices": {"d1": {**DEVICE_SHOWN, "push": {"goes": True, "channel": "", "reason": "", "message": ""}, "n": 1}},
        "receive_options": {"c1": {"receive": "only_loud", "until_ms": 0}},
        "something": [],
    }
    known = play(an_api().user("ann", "", "chat", mention=False), ok(user))[0]
    assert known.devices["d1"].push.goes
    assert known.receive_options["c1"].receive == "only_loud"


def test_a_token_is_in_no_repr() -> None:
    channel = Channel(vendor="apns", token=TOKEN)
    registration = Registration(channels=(channel,))
    assert TOKEN not in f"{channel!r} {registration!r} {[*channel.__rich_repr__()]} {[*registration.__rich_repr__()]}"
