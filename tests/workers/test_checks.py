import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from pushfleet_workers.checks import Finding, check_all, check_redis, refuse_old_redis
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_link import Link, ReplyError
from pushfleet_workers.redis_server import EmbeddedRedis, free_port
from pushfleet_workers.settings import Settings


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as one:
        yield one


class PretendingLink(Link):
    """A server of another kind and age."""

    def __init__(self, info: str, config: Callable[[str], Any] = lambda name: []) -> None:
        super().__init__("redis://example.test:7000/1")
        self.info = info
        self.config = config

    async def call(self, *command: Any) -> Any:
        return self.info.encode() if command[0] == "INFO" else self.config(command[2])


def settings(url: str = "", **accounts: Any) -> Settings:
    return Settings(redis={"url": url}, apps={"demo": {}}, accounts=accounts)


def about(findings: list[Finding], name: str) -> list[Finding]:
    return [finding for finding in findings if finding.about == name]


def test_a_good_redis_is_named_with_its_version(server: EmbeddedRedis) -> None:
    (finding,) = about(check_all(settings(server.url)), "redis.broker")
    assert finding.level == "ok"
    assert not finding.wrong
    assert f"127.0.0.1:{server.port}/0" in finding.sentence


def test_one_server_for_everything_is_looked_at_once(server: EmbeddedRedis) -> None:
    names = [finding.about for finding in check_all(settings(server.url))]
    assert names.count("redis.broker") == 1
    assert "redis.queue" not in names


@pytest.mark.parametrize(
    ("directive", "value", "mend"),
    [
        ("maxmemory-policy", "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
        ("appendonly", "no", "CONFIG SET appendonly yes; without it a restart loses everything"),
        ("hash-max-listpack-value", "64", "CONFIG SET hash-max-listpack-value 512"),
    ],
)
def test_a_wrong_directive_is_a_warning_that_names_the_mend(
    server: EmbeddedRedis, directive: str, value: str, mend: str
) -> None:
    with redis.Redis.from_url(server.url) as client:
        before = client.config_get(directive)[directive]
        client.config_set(directive, value)
        try:
            findings = about(check_all(settings(server.url)), "redis.broker")
        finally:
            client.config_set(directive, before)
    assert [finding.level for finding in findings] == ["warning"]
    assert mend in findings[0].sentence
    assert value in findings[0].sentence


def test_triggers_need_not_survive_a_restart(server: EmbeddedRedis) -> None:
    apart = Settings(redis={"url": server.url, "broker": f"{server.url[:-1]}1"}, apps={"demo": {}})
    with redis.Redis.from_url(server.url) as client:
        client.config_set("appendonly", "no")
        try:
            findings = check_all(apart)
        finally:
            client.config_set("appendonly", "yes")
    assert [finding.level for finding in about(findings, "redis.broker")] == ["ok"]
    assert ["appendonly is no" in finding.sentence for finding in about(findings, "redis.queue")] == [True]


def test_what_is_better_than_wanted_is_good() -> None:
    values = {"maxmemory-policy": b"noeviction", "appendonly": b"yes", "hash-max-listpack-value": b"1024"}
    link = PretendingLink("redis_version:7.4.1", lambda name: [name.encode(), values[name]])
    assert [finding.level for finding in asyncio.run(check_redis(link, "redis"))] == ["ok"]


def test_what_a_managed_redis_hides_is_not_judged() -> None:
    def hidden(name: str) -> Any:
        raise ReplyError("ERR unknown command 'CONFIG'")

    findings = asyncio.run(check_redis(PretendingLink("redis_version:7.0.0", hidden), "redis"))
    assert [finding.level for finding in findings] == ["ok"]


@pytest.mark.parametrize(
    ("info", "old"),
    [
        ("redis_version:6.2.14", True),
        ("redis_version:7.0.0", False),
        ("redis_version:10.0.1", False),
        ("redis_version:7.2.4\r\nvalkey_version:7.2.5", False),
        ("redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.0", False),
        ("redis_version:7.2.4\r\nvalkey_version:7.1.9", True),
    ],
)
def test_a_server_below_the_floor_is_refused(info: str, *, old: bool) -> None:
    link = PretendingLink(f"# Server\r\n{info}\r\nos:Linux")
    (finding,) = asyncio.run(check_redis(link, "redis"))
    assert finding.level == ("error" if old else "ok")
    if old:
        with pytest.raises(RedisUnusable, match=r"example\.test:7000/1 is too old: pushfleet needs Redis 7\.0 or"):
            asyncio.run(refuse_old_redis(link))
    else:
        asyncio.run(refuse_old_redis(link))


def test_what_cannot_be_reached_or_read_is_an_error_each() -> None:
    redis_settings = {"url": "redis://:s3cret@127.0.0.1:nonsense", "state": f"redis://127.0.0.1:{free_port()}"}
    findings = check_all(Settings(redis=redis_settings))
    assert [one.level for one in about(findings, "redis.broker") + about(findings, "redis.state")] == ["error", "error"]
    assert "s3cret" not in str(findings)


def test_nothing_configured_is_said() -> None:
    findings = check_all(settings())
    assert [(finding.level, finding.about) for finding in findings] == [
        ("warning", "accounts"),
        ("warning", "redis.broker"),
        ("warning", "redis.queue"),
        ("warning", "redis.state"),
    ]


def test_each_account_is_looked_at(tmp_path: Path) -> None:
    good = {"app": "demo", "client_id": "1", "client_secret": "s3cret"}
    bad = {"app": "demo", "client_id": "2", "client_secret_file": str(tmp_path / "missing")}
    untrusting = good | {"ca_bundle": str(tmp_path / "missing.pem")}
    findings = check_all(settings(huawei={"good": good, "bad": bad, "untrusting": untrusting}))
    assert [one.level for one in about(findings, "accounts.huawei.good")] == ["ok"]
    assert [one.level for one in about(findings, "accounts.huawei.bad")] == ["error"]
    assert "error" in [one.level for one in about(findings, "accounts.huawei.untrusting")]
    assert "s3cret" not in str(findings)
