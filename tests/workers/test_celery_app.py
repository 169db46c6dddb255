import base64
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import redis
from celery import Celery
from celery.bin.worker import WORKERS_POOL
from celery.concurrency.prefork import TaskPool as PreforkPool
from celery.concurrency.solo import TaskPool as SoloPool
from celery.concurrency.thread import TaskPool as ThreadPool

from pushfleet_workers import app as app_module
from pushfleet_workers import registry
from pushfleet_workers.app import make_app
from pushfleet_workers.settings import CONFIG_VARIABLE, Settings
from pushfleet_workers.tasks import publish_drain, serve_drains
from pushfleet_workers.topology import DRAIN, queue_of, queues, vendor_of
from pushfleet_workers.worker_process import _WorkerProcess

ACCOUNTS = {"huawei": {"main": {"app": "demo", "client_id": "1", "client_secret": "x"}}}
SETTINGS_FILE = """
[apps.demo]

[accounts.huawei.main]
app = "demo"
client_id = "1"
client_secret = "x"
"""


def settings(url: str = "redis://127.0.0.1:1") -> Settings:
    return Settings(redis={"url": url, "prefix": "own"}, apps={"demo": {}}, accounts=ACCOUNTS)


@pytest.fixture(scope="module")
def app() -> Celery:
    return make_app(settings())


def test_there_is_a_queue_for_every_vendor_on_the_anonymous_exchange(app: Celery) -> None:
    assert [queue.name for queue in app.conf.task_queues] == [f"push.{vendor}" for vendor in registry.names()]
    for queue in queues(("acme",)):
        assert queue.exchange.name == ""
        assert queue.routing_key == queue.name == "push.acme"


@pytest.mark.parametrize("vendor", ["apns", "huawei", "some.plug-in"])
def test_a_queue_names_its_vendor(vendor: str) -> None:
    assert vendor_of(queue_of(vendor)) == vendor


@pytest.mark.parametrize("queue", ["celery", "unrouted", "other.push.apns"])
def test_a_queue_that_is_not_ours_names_none(queue: str) -> None:
    assert vendor_of(queue) is None


def test_nothing_but_json_is_taken_and_nothing_is_pickled(app: Celery) -> None:
    assert list(app.conf.accept_content) == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.task_ignore_result


def test_the_only_task_has_a_written_name(app: Celery) -> None:
    assert [name for name in app.tasks if not name.startswith("celery.")] == [DRAIN] == ["push.drain"]


def test_there_are_more_slots_than_queues(app: Celery) -> None:
    assert app.conf.worker_concurrency >= len(registry.names()) + 2
    assert app.conf.worker_pool == "threads"


def test_two_apps_of_one_process_do_not_mix() -> None:
    one, other = make_app(settings()), make_app(settings())
    drained: list[str] = []
    serve_drains(one, lambda vendor: drained.append(f"one {vendor}"))
    serve_drains(other, lambda vendor: drained.append(f"other {vendor}"))
    for made in (one, other):
        made.tasks[DRAIN]("apns")
    assert drained == ["one apns", "other apns"]


def test_a_trigger_carries_the_vendors_name_and_nothing_else(redis_url: str, redis_client: redis.Redis) -> None:
    app = make_app(settings(redis_url))
    publish_drain(app, "huawei")
    app.close()
    assert all(key.startswith(b"own:celery:") for key in redis_client.keys("*"))
    (raw,) = redis_client.lrange("own:celery:push.huawei", 0, -1)
    envelope: dict[str, Any] = json.loads(raw)
    body = json.loads(base64.b64decode(envelope["body"]))
    assert body[:2] == [["huawei"], {}]
    assert not any(body[2].values())
    headers = envelope["headers"]
    assert headers["task"] == DRAIN
    assert headers["argsrepr"] == headers["kwargsrepr"] == ""
    assert headers["expires"] is not None
    assert envelope["content-type"] == "application/json"


def test_importing_the_module_reads_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, "/no/such/file.toml")
    monkeypatch.delitem(vars(app_module), "app", raising=False)
    with pytest.raises(Exception, match="there is no settings file"):
        _ = app_module.app
    with pytest.raises(AttributeError):
        _ = app_module.something_else  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "pushfleet.toml"
    path.write_text(SETTINGS_FILE)
    return path


def run_celery(config: Path, url: str, *words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PUSHFLEET_")}
    env |= {CONFIG_VARIABLE: str(config), "PUSHFLEET_REDIS__URL": url}
    command = [sys.executable, "-m", "celery", "-A", "pushfleet_workers.app", "worker", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_another_pool_than_threads_is_refused_with_a_sentence(config: Path, redis_url: str) -> None:
    done = run_celery(config, redis_url, "-P", "solo")
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.startswith("pushfleet: ")]
    assert len(said) == 1
    assert "threads pool, not on solo" in said[0]
    assert "Traceback" not in done.stderr


def test_prefork_from_the_command_line_means_the_configured_pool(app: Celery) -> None:
    # Celery cannot tell `-P prefork` from its own default; what it then takes must be ours.
    context = click.Context(click.Command("worker"), obj=SimpleNamespace(app=app))
    chosen = WORKERS_POOL.convert("prefork", None, context)
    assert issubclass(chosen, ThreadPool)


@pytest.mark.parametrize("pool", [PreforkPool, SoloPool, "gevent"])
def test_no_other_pool_gets_past_the_check(
    capsys: pytest.CaptureFixture[str], app: Celery, redis_url: str, pool: object
) -> None:
    process = _WorkerProcess(app, settings(redis_url))
    with pytest.raises(SystemExit) as refusal:
        process.check(SimpleNamespace(pool_cls=pool))
    assert refusal.value.code == 2
    assert capsys.readouterr().err.startswith("pushfleet: the fleet runs on Celery's threads pool, not on ")
    process.check(SimpleNamespace(pool_cls=ThreadPool))
    process.close()


def test_without_an_account_a_worker_is_refused_with_a_sentence(tmp_path: Path, redis_url: str) -> None:
    empty = tmp_path / "pushfleet.toml"
    empty.write_text("[apps.demo]\n")
    done = run_celery(empty, redis_url)
    assert done.returncode == 2
    assert "pushfleet: no vendor account is configured" in done.stderr
    assert "Traceback" not in done.stderr
