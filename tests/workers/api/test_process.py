"""`pushfleet api` as a process of its own: what its callers and its operator see."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.workers.api.process import KEY, Process, started

from pushfleet_workers.push import fingerprint
from pushfleet_workers.redis_server import EmbeddedRedis, free_port
from pushfleet_workers.stock import METRICS

TOKEN = "f00dcafe" * 8
USER = "/v1/apps/demo/users/ann"
DEVICE = f"{USER}/devices/d1"
STATES = "/v1/apps/demo/states"


@pytest.fixture(scope="module")
def running(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """One process for all tests that leave it alone; its log must not show a token in the end."""
    with started(tmp_path_factory.mktemp("api"), redis_server.url) as api:
        yield api
        log = api.log.read_text()
        assert TOKEN not in log
        assert KEY not in log
        assert "Traceback" not in log


@pytest.fixture
def api(running: Process, redis_url: str) -> Process:
    """The process, over an empty Redis."""
    assert redis_url
    return running


def a_body(token: str = TOKEN, **more: Any) -> dict[str, Any]:
    return {"channels": [{"vendor": "huawei", "token": token}], **more}


def nobody_listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


# ---- the whole way


def test_a_device_lives_through_every_endpoint(api: Process, redis_client: redis.Redis) -> None:
    answer = api.put(DEVICE, a_body(locale="zh-CN", state="foreground"))
    assert answer.status_code == 200
    assert api.post(f"{DEVICE}/state", {"state": "background", "unread": 3}).json()["applied"] == 1
    many = {"reports": [{"user": user, "device": "d1", "state": "killed"} for user in ("ann", "bob")]}
    assert api.post(STATES, many).json() == {"applied": 1, "outdated": 0, "unknown": 1}
    assert api.put(f"{USER}/conversations/room/receive-option", {"receive": "none"}).status_code == 204
    known = api.known()
    device = known["devices"]["d1"]
    assert (device["state"], device["unread"], device["locale"]) == ("killed", 3, "zh-CN")
    assert [channel["token_fingerprint"] for channel in device["channels"]] == [fingerprint(TOKEN)]
    assert known["receive_options"] == {"room": {"receive": "none", "until_ms": 0}}
    assert TOKEN not in json.dumps(known) + answer.text
    assert api.put("/v1/apps/demo/users/bob/devices/d2", a_body()).status_code == 200
    assert api.known()["devices"]["d1"]["channels"] == []
    assert api.client.delete(DEVICE).status_code == 204
    assert api.known()["devices"] == {}
    assert all(key.startswith(b"pushfleet:") for key in map(bytes, redis_client.scan_iter()))


def test_redis_keeps_the_time_not_the_machine(api: Process, redis_client: redis.Redis) -> None:
    seconds, micros = redis_client.time()
    before = seconds * 1000 + micros / 1000
    shown = api.put(DEVICE, a_body()).json()["device"]["channels"][0]["registered_at_ms"]
    assert before - 50 <= shown <= before + 5_000


# ---- what is wrong with what was sent


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": KEY}])
def test_nothing_is_told_or_done_without_the_key(
    api: Process, redis_client: redis.Redis, headers: dict[str, str]
) -> None:
    with httpx.Client(base_url=api.client.base_url, headers=headers) as stranger:
        for path in (USER, "/docs", "/openapi.json", "/%6detrics", "/metrics/", "//metrics"):
            assert stranger.get(path).status_code == 401, path
        assert stranger.put(DEVICE, json=a_body()).status_code == 401
        assert stranger.delete(DEVICE).status_code == 401
        for path in ("/healthz", "/readyz", "/metrics"):
            assert stranger.get(path).status_code == 200
    assert set(redis_client.keys()) <= {b"pushfleet:{reports}"}


TOKEN_IN_THE_WRONG_PLACE: list[tuple[str, str, Any]] = [
    ("PUT", DEVICE, a_body(state=TOKEN)),
    ("PUT", DEVICE, a_body(platform=TOKEN * 2)),
    ("PUT", DEVICE, a_body(locale=TOKEN)),
    ("PUT", DEVICE, a_body(at_ms=TOKEN)),
    ("PUT", DEVICE, a_body(notifications=TOKEN)),
    ("PUT", DEVICE, {**a_body(), TOKEN: 1}),
    ("PUT", DEVICE, {"channels": TOKEN}),
    ("PUT", DEVICE, {"channels": [TOKEN]}),
    ("PUT", DEVICE, {"channels": {TOKEN: TOKEN}}),
    ("PUT", DEVICE, {"channels": [{TOKEN: "huawei", "token": TOKEN}]}),
    ("PUT", DEVICE, {"channels": [{"vendor": TOKEN, "token": TOKEN}]}),
    ("PUT", DEVICE, {"channels": [{"vendor": "huawei", "credential": TOKEN, "token": TOKEN}]}),
    ("PUT", DEVICE, {"channels": [{"vendor": "huawei", "kind": TOKEN, "token": TOKEN}]}),
    ("PUT", DEVICE, {"channels": [{"vendor": "huawei", "region": TOKEN * 2, "token": TOKEN}]}),
    ("PUT", DEVICE, {"channels": [{"vendor": "huawei", "token": f"{TOKEN} "}]}),
    ("PUT", DEVICE, {"channels": [{"vendor": "huawei", "token": [TOKEN]}]}),
    ("PUT", DEVICE, {"channels": [{"vendor": "huawei", "token": TOKEN}] * 2}),
    ("POST", f"{DEVICE}/state", {"state": TOKEN}),
    ("POST", f"{DEVICE}/state", {"state": "killed", "unread": TOKEN}),
    ("POST", STATES, {"reports": [{"user": "ann", "device": "d1", "state": TOKEN}]}),
    ("POST", STATES, {"reports": [{"user": "ann", "device": "d1", "state": "killed", TOKEN: 1}]}),
    ("POST", STATES, {"reports": []}),
    ("POST", STATES, {"reports": None}),
    ("POST", STATES, {"reports": [{"user": "", "device": "d1", "state": "killed"}]}),
    ("POST", STATES, {"reports": [{"user": "ann", "device": "d" * 129, "state": "killed"}]}),
    (
        "POST",
        STATES,
        {"reports": [{"user": "ann", "device": "d1", "state": "killed", "at_ms": 10**15}]},
    ),
    ("PUT", f"{USER}/conversations/room/receive-option", {"receive": TOKEN}),
    ("PUT", f"{USER}/conversations/room/receive-option", {"receive": "none", "until_ms": -1}),
    ("PUT", f"{USER}/conversations/room/receive-option", {"receive": "none", "until_ms": 10**30}),
]


@pytest.mark.parametrize(("method", "path", "body"), TOKEN_IN_THE_WRONG_PLACE)
def test_a_refusal_never_repeats_a_token_and_changes_nothing(
    api: Process, redis_client: redis.Redis, method: str, path: str, body: Any
) -> None:
    answer = api.client.request(method, path, json=body)
    assert answer.status_code == 422
    assert set(answer.json()) == {"code", "message", "field"}
    assert answer.json()["message"]
    assert TOKEN not in answer.text
    assert set(redis_client.keys()) <= {b"pushfleet:{reports}"}


def test_a_token_in_the_path_is_not_repeated(api: Process) -> None:
    for path in (f"/{TOKEN}", f"/v1/apps/{TOKEN}/users/ann", f"{USER}/devices/{TOKEN * 3}/state", f"{USER}/{TOKEN}"):
        for answer in (api.client.get(path), api.post(path, {"state": "killed"})):
            assert 400 <= answer.status_code < 500
            assert TOKEN not in answer.text
    metrics = api.client.get("/metrics").text
    assert TOKEN not in metrics


@pytest.mark.parametrize(
    "identity", ["a/b", "..", "\0", "}{", ":", "a\nb", "%2F", "用户" * 42, "\U0001f468‍\U0001f469", "x" * 256]
)
def test_any_id_in_a_path_is_one_id(api: Process, identity: str) -> None:
    encoded = "".join(f"%{byte:02x}" for byte in identity.encode())
    path = f"/v1/apps/demo/users/{encoded}"
    assert api.put(f"{path}/devices/d1", a_body()).status_code == 200
    assert list(api.known(path)["devices"]) == ["d1"]
    report = {"reports": [{"user": identity, "device": "d1", "state": "killed"}]}
    assert api.post(STATES, report).json()["applied"] == 1


@pytest.mark.parametrize(
    "target", ["%ff", "%c3", "%ed%a0%80", "%", "%4", "%zz", "x" * 257, "%E7%94%A8" * 86, "\xe9", "x" * 1_048_576]
)
def test_a_path_that_names_no_user_is_refused_or_read_as_it_stands(api: Process, target: str) -> None:
    """A stray percent sign is itself, as in every decoder; a megabyte of id is cut off before it is read."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as link:
        request = f"GET /v1/apps/demo/users/{target} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        with contextlib.suppress(ConnectionError):
            link.sendall(f"{request}Connection: close\r\n\r\n".encode("latin-1"))
        answer = b""
        with contextlib.suppress(ConnectionError):
            while chunk := link.recv(65_536):
                answer += chunk
    status = int(answer.split(b" ", 2)[1]) if answer else 0
    assert status in ((200,) if target in ("%", "%4", "%zz") else (0, 400, 414, 422, 431))
    assert api.status("/healthz") == 200


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_is_too_large_is_refused_and_not_read_to_the_end(api: Process, chunked: bool) -> None:
    size = 0

    def endless() -> Iterator[bytes]:
        nonlocal size
        yield b'{"reports": ['
        while size < 200 * 1_048_576:
            size += 65_536
            yield b" " * 65_536

    headers = {"content-type": "application/json"}
    try:
        if chunked:
            answer = api.client.post(STATES, content=endless(), headers=headers)
        else:
            answer = api.client.post(STATES, content=b" " * (5 * 1_048_576), headers=headers)
    except httpx.TransportError:
        # The server may close while we still send.
        answer = None
    if answer is not None:
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert api.status("/healthz") == 200


def test_unknown_methods_make_no_series_of_their_own(api: Process) -> None:
    for number in range(5):
        assert api.client.request(f"BREW{number}", USER).status_code == 405
    assert "BREW" not in api.client.get("/metrics").text


FIELDS = ["channels", "vendor", "credential", "token", "kind", "state", "unread", "at_ms", "reports", "user", "device"]
FIELDS += ["receive", "until_ms", "locale", "notifications"]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.sampled_from(["apns", "huawei", "main", "killed", "background", "none", "t1"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    JSON,
    st.sampled_from(
        [
            ("PUT", DEVICE),
            ("POST", f"{DEVICE}/state"),
            ("POST", STATES),
            ("PUT", f"{USER}/conversations/room/receive-option"),
        ]
    ),
)
def test_whatever_is_sent_is_answered_by_a_reason_never_by_a_fault(
    api: Process, body: Any, operation: tuple[str, str]
) -> None:
    answer = api.client.request(*operation, content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code < 500, (body, answer.text)
    if answer.status_code >= 400:
        assert set(answer.json()) == {"code", "message", "field"}


# ---- the document and the metrics


def test_the_document_is_good_openapi_and_its_schemas_take_what_the_api_takes(api: Process) -> None:
    document = api.known("/openapi.json")
    assert document["openapi"].startswith("3.1")

    def resolved(reference: str) -> Any:
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
        return node

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                yield node["$ref"]
            for one in node.values():
                yield from walk(one)
        elif isinstance(node, list):
            for one in node:
                yield from walk(one)

    references = set(walk(document))
    assert references
    assert all(isinstance(resolved(reference), dict) for reference in references)
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)

    operations = [
        operation
        for path, methods in document["paths"].items()
        if path.startswith("/v1/")
        for method, operation in methods.items()
        if method in ("put", "post")
    ]
    assert operations
    for operation in operations:
        body = operation["requestBody"]
        assert body["required"]
        assert resolved(body["content"]["application/json"]["schema"]["$ref"])["properties"]
    identities = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(identities)) == len(identities)

    validator = jsonschema.Draft202012Validator({**document, "$ref": "#/components/schemas/Registration"})
    for body, good in (
        (a_body(), True),
        (a_body(state="background", unread=3), True),
        (a_body(""), False),
        (a_body("a b"), False),
        (a_body(state="asleep"), False),
        ({"channels": []}, False),
        ({**a_body(), "colour": "red"}, False),
    ):
        assert validator.is_valid(body) is good, body
        assert (api.put(DEVICE, body).status_code == 200) is good, body


def test_the_pages_of_the_document_are_served(api: Process) -> None:
    page = api.client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


def test_the_metrics_hold_the_requests_and_the_totals_of_redis(api: Process) -> None:
    api.known()
    api.until(lambda: "pushfleet_books_balanced 1.0" in api.client.get("/metrics").text, "the totals")
    page = api.client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    assert 'pushfleet_api_requests_total{method="GET",route="/v1/apps/{app}/users/{user}",status="200"}' in page.text
    for name in METRICS:
        assert f"# TYPE {name.removesuffix('_total')}" in page.text, name
    assert 'pushfleet_backlog{account="main",state="ready",vendor="huawei"} 0.0' in page.text


# ---- start, outage, end


def test_an_outage_of_redis_is_answered_and_gets_over_by_itself(tmp_path: Path) -> None:
    server = EmbeddedRedis(tmp_path / "redis")
    server.start()
    try:
        with started(tmp_path, server.url) as api:
            assert api.put(DEVICE, a_body()).status_code == 200
            server.stop()
            assert api.status("/healthz") == 200
            assert api.status("/readyz") == 503
            assert api.status("/metrics") == 200
            state = {"reports": [{"user": "ann", "device": "d1", "state": "background", "unread": 4}]}
            for answer in (
                api.client.get(USER),
                api.put(DEVICE, a_body("t2")),
                api.post(STATES, state),
            ):
                assert (answer.status_code, answer.json()["code"]) == (503, "redis_unavailable")
                assert TOKEN not in answer.text
            server.start()
            api.until_ready()
            assert api.known()["devices"]["d1"]["channels"][0]["token_fingerprint"] == fingerprint(TOKEN)
            assert api.post(STATES, state).json()["applied"] == 1
            api.until(lambda: "pushfleet_books_balanced 1.0" in api.client.get("/metrics").text, "the totals")
            assert "Traceback" not in api.log.read_text()
    finally:
        server.stop()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_code_0_and_frees_the_port(redis_url: str, tmp_path: Path, number: int) -> None:
    with started(tmp_path, redis_url) as api:
        assert not nobody_listens(api.port)
        assert api.end(number) == 0
        assert nobody_listens(api.port)
        with socket.create_server(("127.0.0.1", api.port)):
            pass
        assert "Traceback" not in api.log.read_text()


def test_a_port_that_is_taken_is_one_sentence(redis_url: str, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        api = Process(tmp_path, redis_url, other.getsockname()[1])
        assert api.process.wait(20) == 2
    said = api.log.read_text()
    assert f"cannot listen on 127.0.0.1:{api.port}" in said
    assert "Traceback" not in said
    api.client.close()


def test_without_redis_the_start_is_refused_with_one_sentence(tmp_path: Path) -> None:
    api = Process(tmp_path, f"redis://:hunter2@127.0.0.1:{free_port()}/0")
    assert api.process.wait(20) == 2
    said = api.log.read_text()
    assert "cannot be reached" in said
    assert "hunter2" not in said
    assert "Traceback" not in said
    api.client.close()
