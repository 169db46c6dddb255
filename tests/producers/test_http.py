"""Both clients of the API: against a real process, and against servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import msgspec
import pytest
import redis
from tests.workers.api.process import KEY, SETTINGS, Process, started

from pushfleet import (
    ApiRefused,
    ApiUnavailable,
    AsyncTokenState,
    Channel,
    ClientReceipt,
    Confirmation,
    DoNotDisturb,
    Preferences,
    PushfleetError,
    QuietHours,
    Registration,
    Sounds,
    StateReport,
    TokenState,
    calls,
    wire,
)
from pushfleet.devices import Confirmed, DeathsDecided, DeathsRestored, ReceiptsRecorded, Reported
from pushfleet_workers.outcome import Outcome, Verdict
from pushfleet_workers.push import Delivery, fingerprint
from pushfleet_workers.redis_link import Link
from pushfleet_workers.redis_server import EmbeddedRedis, free_port
from pushfleet_workers.settings import DeathsSettings
from pushfleet_workers.token_feedback import TokenFeedback

TOKEN = "f00dcafe" * 8
ALL_ON = SETTINGS.replace(
    "[apps.demo]\n",
    '[apps.demo]\nrecall_window_s = 120\nreads = true\ndevice_logins = "one"\nforeground_ack = "park"\n',
)

Door = Callable[..., Any]


class AsyncDoor:
    """The asynchronous client, called without await."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncTokenState(*given, **settings)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        return lambda *given, **named: self._runner.run(method(*given, **named))

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


@pytest.fixture(params=[TokenState, AsyncDoor], ids=["sync", "async"])
def door(request: pytest.FixtureRequest) -> Iterator[Door]:
    """Makes clients of either kind, closed afterwards."""
    with contextlib.ExitStack() as stack:

        def make(*given: Any, **settings: Any) -> Any:
            client = request.param(*given, **settings)
            stack.callback(client.close)
            return client

        yield make


@pytest.fixture(scope="module")
def running(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with started(tmp_path_factory.mktemp("api"), redis_server.url, ALL_ON) as api:
        yield api


@pytest.fixture
def tokens(door: Door, running: Process, redis_url: str) -> Any:
    """A client of a real API over an empty Redis."""
    assert redis_url
    return door(f"http://127.0.0.1:{running.port}", app="demo", key=KEY)


def a_registration(token: str = TOKEN, **more: Any) -> Registration:
    return Registration(channels=(Channel(vendor="huawei", token=token),), **more)


# ---- against the real API


def test_a_device_lives_through_every_call(tokens: Any) -> None:
    start_ms = int(time.time() * 1000) - 1_000
    registered = tokens.register("ann", "d1", a_registration(locale="zh-CN", state="foreground", at_ms=start_ms))
    assert registered.applied
    assert registered.device.locale == "zh-CN"
    assert [channel.token_fingerprint for channel in registered.device.channels] == [fingerprint(TOKEN)]

    left = StateReport(user="ann", device="d1", state="background", unread=3, at_ms=start_ms + 10)
    assert tokens.report(left) == Reported(applied=1)
    late = [
        StateReport(user="ann", device="d1", state="killed", at_ms=start_ms + 5),
        StateReport(user="bob", device="d1", state="killed"),
    ]
    assert tokens.report_many(iter(late)) == Reported(outdated=1, unknown=1)
    assert tokens.report(late[1]) == Reported(unknown=1)
    device = tokens.user("ann").devices["d1"]
    assert (device.state, device.unread, device.push.goes) == ("background", 3, True)
    assert device.push.channel == "huawei:main:alert"

    tokens.set_receive_option("ann", "a/b", "none")
    known = tokens.user("ann", conversation="a/b", kind="mention", mention=True)
    assert (known.receive_options["a/b"].receive, known.devices["d1"].push.reason) == ("none", "muted")
    tokens.set_receive_option("ann", "a/b", "all")
    assert tokens.user("ann").receive_options == {}

    assert tokens.logout("ann", "d1")
    assert not tokens.logout("ann", "d1", at_ms=start_ms + 11)
    assert tokens.user("ann").devices["d1"].push.reason == "logged_out"
    assert not tokens.logout("ann", "d2")
    assert tokens.remove("ann", "d1")
    assert not tokens.remove("ann", "d1")

    tokens.register("ann", "d2", a_registration())
    assert tokens.forget_user("ann")
    assert tokens.user("ann").erasing_since_ms >= start_ms
    assert not tokens.forget_user("ann")
    assert tokens.user("ann").devices == {}
    deadline = time.monotonic() + 60
    while tokens.user("ann").erasing_since_ms:
        assert time.monotonic() < deadline, "the api brings it to its end"
        time.sleep(0.05)


def test_a_login_logs_the_others_out(tokens: Any) -> None:
    start_ms = int(time.time() * 1000) - 1_000
    for number, device in enumerate(("d1", "d2", "d3")):
        tokens.register("ann", device, a_registration(f"{TOKEN}{number}", at_ms=start_ms))
    assert sorted(tokens.log_in("ann", "d3", platform="ios", at_ms=start_ms + 9)) == ["d1", "d2"]
    assert tokens.log_in("ann", "d3", at_ms=start_ms + 9) == ()
    assert [name for name, device in tokens.user("ann").devices.items() if device.push.goes] == ["d3"]


def test_what_was_read_counts_once(tokens: Any) -> None:
    now_ms = int(time.time() * 1000)
    tokens.register("ann", "d1", a_registration(state="background", unread=7, at_ms=now_ms - 1_000))
    assert tokens.mark_read("ann", "a/b", now_ms, unread=2)
    assert tokens.user("ann").devices["d1"].unread == 2
    assert not tokens.mark_read("ann", "a/b", now_ms - 1)


def test_what_devices_have_is_confirmed(tokens: Any) -> None:
    now_ms = int(time.time() * 1000)
    tokens.register("ann", "d1", a_registration(state="foreground", at_ms=now_ms))
    verdict = tokens.user("ann").devices["d1"].push
    assert (verdict.goes, verdict.reason, verdict.parked) == (False, "foreground", True)
    given = [
        Confirmation(user="ann", device="d1", up_to_ms=now_ms, conversation="a/b"),
        Confirmation(user="ann", device="d1", up_to_ms=now_ms - 1, conversation="a/b"),
        Confirmation(user="bob", device="d1", up_to_ms=now_ms),
    ]
    assert tokens.confirm_delivery(iter(given)) == Confirmed(applied=1, outdated=1, unknown=1)
    with pytest.raises(ApiRefused) as refused:
        tokens.confirm_delivery([*given, Confirmation(user="ann", device="d1", up_to_ms=now_ms + 900_000)])
    assert (refused.value.code, refused.value.field) == ("time_in_future", "confirmations[3].up_to_ms")


def test_preferences_are_replaced_and_changed(tokens: Any) -> None:
    assert tokens.preferences("ann") == Preferences()
    wanted = Preferences(
        do_not_disturb=DoNotDisturb(
            daily=(QuietHours(start="22:00", end="07:00"),), time_zone="Europe/London", mentions_pass=True
        ),
        hide_text=True,
        sound=Sounds(single="ding.wav", group=""),
    )
    assert tokens.set_preferences("ann", wanted) == wanted == tokens.preferences("ann")
    changed = tokens.change_preferences("ann", {"push": False, "sound": {"single": None}})
    assert changed == msgspec.structs.replace(wanted, push=False, sound=Sounds(group=""))
    assert tokens.set_preferences("ann", changed) == changed
    with pytest.raises(ApiRefused) as refused:
        tokens.change_preferences("ann", {"do_not_disturb": {"time_zone": "Europe/Atlantis"}})
    assert (refused.value.code, refused.value.field) == ("unknown_time_zone", "do_not_disturb.time_zone")
    assert tokens.set_preferences("ann", Preferences()) == Preferences()


@pytest.mark.parametrize("identity", ["a/b", "..", ".", "%2F", "?a=b#c", "用户", "a b", "\0", "\\", "x" * 256])
def test_any_id_reaches_the_api_as_it_is(tokens: Any, identity: str) -> None:
    tokens.register(identity, "..", a_registration())
    known = tokens.user(identity)
    assert list(known.devices) == [".."]
    assert tokens.report_many([StateReport(user=identity, device="..", state="killed")]) == Reported(applied=1)
    assert tokens.remove(identity, "..")


def test_a_message_is_taken_back(tokens: Any, redis_client: redis.Redis) -> None:
    assert tokens.recall("m-1", conversation="c1", recipients=["ann", "bob"]) == 1
    assert tokens.recall("m-1") == 1
    entries: Any = redis_client.xrange(wire.ingress_key("pushfleet", wire.RECALL_LANE))
    recalls = [wire.decode_recall(fields[b"r"]) for _, fields in entries]
    assert [(recall.conversation, recall.recipients) for recall in recalls] == [("c1", ("ann", "bob")), ("", ())]


def test_receipts_of_apps_are_recorded_once(tokens: Any) -> None:
    receipts = [
        ClientReceipt(mid=f"m{number}", user="ann", device="d1", event="delivered") for number in range(calls.MANY + 2)
    ]
    assert tokens.report_receipts(receipts) == ReceiptsRecorded(recorded=calls.MANY + 2)
    assert tokens.report_receipts(receipts[:1]) == ReceiptsRecorded(repeated=1)


def test_dead_tokens_are_read_page_by_page(tokens: Any, redis_url: str) -> None:
    for user in ("ann", "bob"):
        tokens.register(user, "d1", a_registration(f"{TOKEN}-{user}"))
    asyncio.run(_die(redis_url, "ann", "bob"))
    page = tokens.dead_tokens(limit=1)
    assert [(death.user, death.fate, death.code) for death in page.deaths] == [("ann", "dropped", "80300007")]
    assert page.more
    rest = tokens.dead_tokens(after=page.cursor, fate="dropped", vendor="huawei")
    assert [death.user for death in rest.deaths] == ["bob"]
    assert not tokens.dead_tokens(vendor="apns").deaths
    with pytest.raises(ApiRefused) as refused:
        tokens.dead_tokens(fate="eaten")
    assert (refused.value.code, refused.value.field) == ("invalid_fate", "fate")


def test_dead_tokens_are_brought_back(tokens: Any, redis_url: str) -> None:
    for user in ("ann", "bob"):
        tokens.register(user, "d1", a_registration(f"{TOKEN}-{user}"))
    asyncio.run(_die(redis_url, "ann", "bob"))
    assert tokens.user("ann").devices["d1"].push.reason == "no_channel"
    wanted = {
        "vendor": "huawei",
        "credential": "main",
        "code": "80300007",
        "until_ms": int(time.time() * 1000) + 60_000,
    }
    assert tokens.restore_dead_tokens(**wanted, since_ms=1, dry_run=True) == DeathsRestored(restored=2)
    assert tokens.restore_dead_tokens(**wanted, user="ann") == DeathsRestored(restored=1)
    assert tokens.user("ann").devices["d1"].push.goes
    assert tokens.restore_dead_tokens() == DeathsRestored(restored=1, unknown=1)
    with pytest.raises(ApiRefused) as refused:
        tokens.restore_dead_tokens(limit=0)
    assert refused.value.field == "limit"


@pytest.mark.parametrize(("decision", "fate"), [("confirm", {"dropped": 1}), ("lift", {"restored": 1})])
def test_tokens_that_are_passed_over_are_decided_on(
    tokens: Any, redis_url: str, decision: Any, fate: dict[str, int]
) -> None:
    assert tokens.accounts_with_deaths() == ()
    known = tokens.register("ann", "d1", a_registration(f"{TOKEN}-ann")).device
    asyncio.run(_die(redis_url, "ann", doubtful_at_ms=known.channels[0].registered_at_ms))
    (account,) = tokens.accounts_with_deaths()
    assert (account.vendor, account.credential, account.quarantined) == ("huawei", "main", 1)
    assert tokens.decide_deaths("huawei", "main", decision) == DeathsDecided(**fate)
    assert tokens.user("ann").devices["d1"].push.goes is (decision == "lift")
    with pytest.raises(ApiRefused) as refused:
        tokens.decide_deaths("apns", "none", decision)
    assert refused.value.code == "unknown_account"


async def _die(url: str, *users: str, doubtful_at_ms: int = 0) -> None:
    """*doubtful_at_ms*: which registration it was, of which the vendor does not say that it is dead for certain."""
    link = Link(url)
    now_ms = int(time.time() * 1000)
    feedback = TokenFeedback(link, link, "pushfleet", DeathsSettings(), lambda: now_ms)
    since_ms = None if doubtful_at_ms else now_ms + 1_000
    dead = Outcome(Verdict.DROP_TOKEN, code="80300007", since_ms=since_ms, doubtful=bool(doubtful_at_ms))
    deliveries = [Delivery(b"x" * 16, user, "d1", f"{TOKEN}-{user}", doubtful_at_ms or now_ms) for user in users]
    await feedback.tell("huawei", "main", "demo", deliveries, [dead] * len(users))
    await link.close()


def test_what_is_wrong_is_told_with_its_place_and_without_the_token(tokens: Any) -> None:
    with pytest.raises(ApiRefused) as refused:
        tokens.register("ann", "d1", Registration(channels=(Channel(vendor="apns", token=TOKEN),)))
    assert (refused.value.status, refused.value.code) == (422, "unknown_account")
    assert refused.value.field == "channels[0].credential"
    assert str(refused.value) == (
        "registering device 'd1' of user 'ann': app demo has no account of that vendor; it has: huawei/main "
        "(422 unknown_account at channels[0].credential)"
    )
    reports = [StateReport(user="ann", device="d1", state="killed")] * (calls.MANY + 1)
    late = StateReport(user="ann", device="d1", state="killed", at_ms=253_402_300_799_999)
    with pytest.raises(ApiRefused) as refused:
        tokens.report_many([*reports, late])
    assert refused.value.field == f"reports[{calls.MANY + 1}].at_ms"
    with pytest.raises(ApiRefused) as refused:
        tokens.register("ann", "d1", a_registration(state=TOKEN))
    assert TOKEN not in str(refused.value)


def test_a_wrong_key_and_a_wrong_app_are_refused(door: Door, running: Process) -> None:
    url = f"http://127.0.0.1:{running.port}"
    for key in ("", "another"):
        with pytest.raises(ApiRefused) as refused:
            door(url, app="demo", key=key).user("ann")
        assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    with pytest.raises(ApiRefused) as refused:
        door(url, app="other", key=KEY).user("ann")
    assert (refused.value.status, refused.value.code) == (404, "unknown_app")


def test_an_outage_of_redis_is_unavailable_and_says_what_to_do(door: Door, tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    try:
        with started(tmp_path, server.url) as api:
            client = door(f"http://127.0.0.1:{api.port}", app="demo", key=KEY, attempts=1)
            server.stop()
            with pytest.raises(ApiUnavailable) as failed:
                client.register("ann", "d1", a_registration())
            assert (failed.value.status, failed.value.code) == (503, "redis_unavailable")
            assert TOKEN not in str(failed.value)
    finally:
        server.stop()


# ---- against servers that misbehave


@contextlib.contextmanager
def answering(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives each request the next of *answers*; an empty one closes the connection."""
    heads: list[bytes] = []
    left = list(answers)

    def talk() -> None:
        with contextlib.suppress(OSError):
            while left:
                link, _ = listener.accept()
                with link:
                    link.settimeout(5)
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += link.recv(65_536)
                    heads.append(head)
                    link.sendall(left.pop(0))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heads
    thread.join(5)


def said(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "PAUSE_S", 0.001)


@pytest.mark.usefixtures("no_pauses")
def test_a_connection_that_breaks_and_a_gateway_that_fails_are_got_over(door: Door) -> None:
    with answering(b"", said("502 Bad Gateway", b"<html>"), said("204 No Content")) as (url, heads):
        assert door(url, app="demo").remove("ann", "d1") is True
    assert len(heads) == 3


@pytest.mark.usefixtures("no_pauses")
def test_a_server_that_is_away_is_tried_again_and_then_told(door: Door) -> None:
    port = free_port()
    with pytest.raises(ApiUnavailable) as failed:
        door(f"http://127.0.0.1:{port}", app="demo", attempts=2).user("ann")
    assert failed.value.status == 0
    assert f"reading user 'ann': no answer came from 127.0.0.1:{port}, " in str(failed.value)
    assert "(sent 2 times); repeating it is safe" in str(failed.value)


def test_a_server_that_is_silent_is_given_up_in_time(door: Door) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = door(f"http://127.0.0.1:{silent.getsockname()[1]}", app="demo", timeout_s=0.1, attempts=1)
        began = time.monotonic()
        with pytest.raises(ApiUnavailable):
            client.user("ann")
        assert time.monotonic() - began < 5


@pytest.mark.usefixtures("no_pauses")
def test_an_answer_of_no_http_server_is_no_answer(door: Door) -> None:
    with answering(b"220 mail.internal ESMTP\r\n") as (url, _), pytest.raises(ApiUnavailable) as failed:
        door(url, app="demo", attempts=1).user("ann")
    assert failed.value.status == 0


def test_a_key_is_shown_to_the_api_alone(door: Door) -> None:
    with answering(said("302 Found", b"", "location: http://127.0.0.1:1/")) as (url, heads):
        client = door(url, app="demo", key=KEY)
        with pytest.raises(PushfleetError) as failed:
            client.user("ann")
    assert f"authorization: bearer {KEY}" in heads[0].decode().lower()
    assert KEY not in f"{failed.value!r} {client!r} {vars(failed.value)}"


def test_a_path_before_the_api_is_kept(door: Door) -> None:
    with answering(said("204 No Content")) as (url, heads):
        door(f"{url}/push/", app="demo").remove("ann", "d1")
    assert heads[0].startswith(b"DELETE /push/v1/apps/demo/users/ann/devices/d1 HTTP/1.1")


# ---- the clients themselves


def test_both_have_the_same_methods() -> None:
    def public(kind: type) -> dict[str, str]:
        return {
            name: str(inspect.signature(one)).replace("httpx.AsyncClient", "httpx.Client")
            for name, one in vars(kind).items()
            if inspect.isfunction(one) and (not name.startswith("_") or name == "__init__")
        }

    sync, twin = public(TokenState), public(AsyncTokenState)
    assert sync.pop("close") == twin.pop("aclose")
    assert sync == twin


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"url": "push.internal:8080"}, "url must be like"),
        ({"url": "redis://push.internal"}, "url must be like"),
        ({"url": "http://"}, "url must be like"),
        ({"url": "http://[::1"}, "url must be like"),
        ({"url": "http://push.internal/?key=x"}, "url must be like"),
        ({"timeout_s": 0}, "timeout_s must be more than 0"),
        ({"attempts": 0}, "attempts must be 1 or more"),
        ({"key": "two\nlines"}, "printable ASCII"),
        ({"key": "schlüssel"}, "printable ASCII"),
        ({"key": "space "}, "printable ASCII"),
    ],
)
def test_an_argument_that_cannot_be_right_is_refused_at_once(door: Door, wrong: dict[str, Any], problem: str) -> None:
    given = {"url": "http://push.internal", "app": "demo", **wrong}
    with pytest.raises(ValueError, match=problem) as refused:
        door(**given)
    assert "schlüssel" not in str(refused.value)


@pytest.mark.parametrize("kind", [TokenState, AsyncTokenState])
def test_a_client_of_another_kind_is_refused(kind: Any) -> None:
    with httpx.Client() as client:
        other = httpx.AsyncClient() if kind is TokenState else client
        with pytest.raises(TypeError, match=r"needs a URL or an httpx\.(Async)?Client, not httpx\.(Async)?Client"):
            kind(other, app="demo")


def test_a_client_that_was_handed_in_is_used_and_left_open() -> None:
    answers = httpx.MockTransport(lambda request: httpx.Response(204 if request.method == "DELETE" else 500))
    with httpx.Client(base_url="http://push.internal", transport=answers) as client:
        with TokenState(client, app="demo") as tokens:
            assert tokens.remove("ann", "d1") is True
        assert not client.is_closed

    async def twin() -> None:
        async with httpx.AsyncClient(base_url="http://push.internal", transport=answers) as client:
            async with AsyncTokenState(client, app="demo") as tokens:
                assert await tokens.remove("ann", "d1") is True
            assert not client.is_closed

    asyncio.run(twin())


def test_a_closed_client_says_so() -> None:
    with TokenState("http://push.internal", app="demo") as tokens:
        pass
    with pytest.raises(ApiUnavailable, match="this TokenState is closed"):
        tokens.user("ann")

    async def twin() -> None:
        async with AsyncTokenState("http://push.internal", app="demo") as tokens:
            pass
        with pytest.raises(ApiUnavailable, match="this AsyncTokenState is closed"):
            await tokens.user("ann")

    asyncio.run(twin())


@pytest.mark.usefixtures("no_pauses")
def test_an_async_client_belongs_to_one_loop() -> None:
    client = AsyncTokenState(f"http://127.0.0.1:{free_port()}", app="demo", attempts=1)

    async def ask() -> None:
        await client.user("ann")

    with pytest.raises(ApiUnavailable):
        asyncio.run(ask())
    with pytest.raises(PushfleetError, match="belongs to another event loop"):
        asyncio.run(ask())


def test_the_child_of_a_fork_has_connections_of_its_own(running: Process, redis_url: str) -> None:
    assert redis_url
    with TokenState(f"http://127.0.0.1:{running.port}", app="demo", key=KEY) as tokens:
        tokens.register("ann", "d1", a_registration())
        child = os.fork()
        if not child:
            # No pytest in here, whatever happens.
            code = 1
            with contextlib.suppress(BaseException):
                signal.alarm(10)
                code = 0 if all(list(tokens.user("ann").devices) == ["d1"] for _ in range(50)) else 2
            os._exit(code)
        for _ in range(50):
            assert list(tokens.user("ann").devices) == ["d1"]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_httpx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    for kind in (TokenState, AsyncTokenState):
        with pytest.raises(ModuleNotFoundError, match=r"needs httpx: pip install 'pushfleet\[http\]'") as failed:
            kind("http://push.internal", app="demo")
        assert failed.value.name == "httpx"


def test_only_who_makes_a_client_imports_httpx() -> None:
    program = (
        "import sys, pushfleet; assert 'httpx' not in sys.modules; "
        "pushfleet.TokenState('http://push.internal', app='demo').close(); assert 'httpx' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
