"""The URL of the broker in kombu's words, by what kombu makes of it."""

import ssl
from urllib.parse import quote

import pytest
import redis
from celery import Celery
from kombu import Connection

from pushfleet_workers.app import make_app
from pushfleet_workers.broker import broker_settings
from pushfleet_workers.errors import RedisUnusable
from pushfleet_workers.redis_server import EmbeddedRedis
from pushfleet_workers.settings import Settings
from pushfleet_workers.tasks import publish_drain

SECRET = "s3cret/with:odd@signs?#;"
AT = quote(SECRET, safe="")


def app(url: str) -> Celery:
    return make_app(Settings(redis={"url": url}))


def connection(url: str) -> Connection:
    return app(url).connection_for_write()


def read(one: Connection) -> tuple[object, ...]:
    return one.transport_cls, one.hostname, one.port, one.userid, one.password, one.virtual_host


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://h", ("redis", "h", 6379, None, None, "0")),
        ("redis://h:7000/3", ("redis", "h", 7000, None, None, "3")),
        ("redis://h?db=4", ("redis", "h", 6379, None, None, "4")),
        (f"redis://:{AT}@h", ("redis", "h", 6379, None, SECRET, "0")),
        (f"redis://me:{AT}@[::1]:1", ("redis", "::1", 1, "me", SECRET, "0")),
        (f"rediss://me:{AT}@h", ("rediss", "h", 6379, "me", SECRET, "0")),
        (f"redis+sentinel://me:{AT}@h1,h2:1/fleet/3", ("sentinel", "h1", 26379, "me", SECRET, "3")),
    ],
)
def test_a_broker_is_where_the_url_says(url: str, expected: tuple[object, ...]) -> None:
    assert read(connection(url)) == expected


def test_sentinels_are_named_all_with_the_name_of_the_master_and_their_own_login() -> None:
    one = connection(f"redis+sentinel://me:{AT}@h1,[::1]:7/my%20fleet/3?sentinel_username=you&sentinel_password={AT}")
    login = f"me:{quote(SECRET, safe='')}@"
    assert one.alt == [f"sentinel://{login}h1:26379/3", f"sentinel://{login}[::1]:7/3"]
    assert one.transport_options["master_name"] == "my fleet"
    told = one.transport_options["sentinel_kwargs"]
    assert (told["username"], told["password"]) == ("you", SECRET)
    assert not one.ssl
    assert SECRET not in one.as_uri()
    assert login not in one.as_uri()


@pytest.mark.parametrize("url", ["rediss://h?ssl_ca_certs=/ca.pem", "rediss+sentinel://h/fleet?ssl_ca_certs=/ca.pem"])
def test_a_certificate_is_looked_at(url: str) -> None:
    one = connection(url)
    trust = {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"}
    assert one.ssl == trust
    if "sentinel" in url:
        told = one.transport_options["sentinel_kwargs"]
        assert {name: told[name] for name in ("ssl", *trust)} == {"ssl": True, **trust}
    assert connection("rediss://h").ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}


def test_what_is_no_url_of_a_redis_is_refused_in_a_sentence_without_secrets() -> None:
    for url in ("amqp://:s3cret@h", "sentinel://:s3cret@h/0", "redis+sentinel://:s3cret@h"):
        with pytest.raises(RedisUnusable, match=r"a Redis URL starts|a URL of Redis behind Sentinels") as refusal:
            app(url)
        assert "s3cret" not in str(refusal.value)


def test_no_url_is_no_broker() -> None:
    assert broker_settings("")["broker_url"] == ""


def test_triggers_travel_through_a_unix_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("r s")
    path = folder / "redis.sock"
    with EmbeddedRedis(folder, config={"unixsocket": str(path)}) as server:
        made = app(f"unix://{quote(str(path))}?db=5")
        publish_drain(made, "apns")
        made.close()
        with redis.Redis.from_url(server.url.replace("/0", "/5")) as client:
            assert client.llen("pushfleet:celery:push.apns") == 1
