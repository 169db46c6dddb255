import asyncio
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families
from tests.workers.doubles import Cloud, a_bench
from tests.workers.ledger.support import an_entry, put

from pushfleet_workers.errors import NoAnswer
from pushfleet_workers.hooks import metrics
from pushfleet_workers.hooks.logs import configure_logs
from pushfleet_workers.hooks.probes import ProbeServer
from pushfleet_workers.outcome import OK, Outcome, Verdict
from pushfleet_workers.push import Delivery, Parcel, fingerprint
from pushfleet_workers.settings import LogSettings, MetricsSettings


@pytest.fixture
def logs() -> Iterator[None]:
    """Puts the root logger back as it was."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    noisy = {name: logging.getLogger(name).level for name in ("httpx", "httpcore", "h2", "kombu", "aioapns")}
    yield
    root.handlers[:], root.level = before
    for name, level in noisy.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def ready() -> list[bool]:
    return [False]


@pytest.fixture
def probes(ready: list[bool]) -> Iterator[ProbeServer]:
    server = ProbeServer(MetricsSettings(), role="worker", ready=lambda: ready[0])
    yield server
    server.close()


def get(probes: ProbeServer, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{probes.port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, problem.read().decode()


# ---- probes


def test_a_process_is_alive_before_it_is_ready(probes: ProbeServer, ready: list[bool]) -> None:
    assert get(probes, "/healthz") == (200, "ok\n")
    assert get(probes, "/readyz") == (503, "not ready\n")
    ready[0] = True
    assert get(probes, "/readyz") == (200, "ready\n")


def test_an_unknown_path_says_what_there_is(probes: ProbeServer) -> None:
    status, text = get(probes, "/")
    assert status == 404
    assert "/metrics" in text


@pytest.mark.parametrize("path", ["/metrics", "/metrics?name[]=pushfleet_in_flight"])
def test_the_metrics_hold_every_declared_name(probes: ProbeServer, path: str) -> None:
    status, text = get(probes, path)
    assert status == 200
    names = {family.name for family in text_string_to_metric_families(text)}
    declared = {getattr(metrics, name)._name for name in metrics.__all__}
    assert declared <= names


def test_a_taken_port_is_an_error_of_the_start(probes: ProbeServer) -> None:
    with pytest.raises(OSError, match="in use"):
        ProbeServer(MetricsSettings(port=probes.port), role="worker")


def test_a_closed_server_frees_its_port(probes: ProbeServer) -> None:
    ProbeServer(MetricsSettings(), role="worker").close()
    again = ProbeServer(MetricsSettings(), role="worker")
    port = again.port
    again.close()
    ProbeServer(MetricsSettings(port=port), role="worker").close()


def test_every_metric_is_ours_and_described() -> None:
    for name in metrics.__all__:
        metric = getattr(metrics, name)
        assert isinstance(metric, Counter | Gauge | Histogram)
        assert metric._name.startswith("pushfleet_")
        assert metric._documentation.endswith(".")


# ---- logs


@pytest.mark.usefixtures("logs")
def test_a_line_of_the_log_is_one_json_object(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(level="info", format="json"))
    log = logging.getLogger("pushfleet_workers.drain")
    log.info("drain of %s:\ntwo lines", "apns")
    log.debug("not shown")
    try:
        raise ValueError("why")
    except ValueError:
        log.exception("failed")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["drain of apns:\ntwo lines", "failed"]
    assert lines[0]["level"] == "info"
    assert lines[0]["logger"] == "pushfleet_workers.drain"
    assert lines[0]["timestamp"].endswith("Z")
    assert "ValueError: why" in lines[1]["exception"]


@pytest.mark.usefixtures("logs")
def test_the_terminal_gets_text(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(level="warning", format="text"))
    logging.getLogger("x").info("not shown")
    logging.getLogger("x").warning("seen by %d", 2)
    (line,) = capfd.readouterr().err.splitlines()
    assert "seen by 2" in line
    assert "\x1b" not in line, "no colours into a file"


@pytest.mark.usefixtures("logs")
def test_libraries_that_name_requests_keep_quiet_even_when_we_debug(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs(LogSettings(level="debug", format="json"))
    for name in ("httpx", "httpcore.http2", "h2", "aioapns", "kombu"):
        logging.getLogger(name).info("POST /3/device/token-0")
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("logs")
def test_configuring_twice_logs_once(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        configure_logs(LogSettings())
    logging.getLogger("x").warning("once")
    assert len(capfd.readouterr().err.splitlines()) == 1


# ---- neither holds a token


def test_no_token_and_no_text_reaches_a_log_or_a_metric(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def run() -> None:
        cloud = Cloud()
        async with a_bench(redis_url, cloud=cloud) as bench:
            entry = an_entry("m", deliveries=7)
            tokens = [f"SECRET-{number}" for number in range(7)]
            for delivery, token in zip(entry.parcel.deliveries, tokens, strict=True):
                delivery.token = token
            cloud.build_fails, cloud.read_fails = {tokens[0]}, {tokens[1]}
            cloud.answer(tokens[2], Outcome(Verdict.DROP_TOKEN, code="Gone"))
            cloud.answer(tokens[3], NoAnswer("reset", maybe_delivered=True), OK)
            cloud.answer(tokens[4], ValueError(f"{tokens[4]} and Ann said hi"), OK)
            cloud.answer(tokens[5], Outcome(Verdict.BAD_PAYLOAD, code="Bad"))
            await put(bench.link, entry)
            ends = await bench.finish()
            assert sum(ends.values()) == 7

    asyncio.run(run())
    probes = ProbeServer(MetricsSettings(), role="worker")
    _, exposed = get(probes, "/metrics")
    probes.close()
    assert caplog.records
    for shown in (caplog.text, exposed):
        assert "SECRET" not in shown
        assert "Ann" not in shown


def test_reprs_show_no_token() -> None:
    entry = an_entry("m")
    delivery: Delivery = entry.parcel.deliveries[0]
    parcel: Parcel = entry.parcel
    assert delivery.token not in repr(delivery) + repr(parcel) + repr(entry)
    assert "hi" not in repr(parcel)


def test_a_fingerprint_identifies_and_does_not_address() -> None:
    assert fingerprint("token-0") == fingerprint("token-0") != fingerprint("token-1")
    assert len(fingerprint("t" * 4_096)) == 12
    assert "token" not in fingerprint("token")
    assert fingerprint("\ud800")
