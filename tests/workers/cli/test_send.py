"""One push by itself, through the fake cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.integration.every_vendor import SECRETS, Accounts
from tests.workers.cli.conftest import Cli, Said
from tests.workers.commands import NOTHING_LISTENS, settings_file
from tests.workers.credential_store.support import MASTER_KEY

from pushfleet_workers.fakecloud import FakeCloudThread
from pushfleet_workers.fakecloud.certs import make_certificates
from pushfleet_workers.push import fingerprint
from pushfleet_workers.vendors.meizu import Meizu

TOKEN = "ab" * 18
"""As long as the longest that TPNS takes."""


@pytest.fixture(scope="module")
def running() -> Iterator[FakeCloudThread]:
    with FakeCloudThread() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def made(running: FakeCloudThread) -> Accounts:
    return Accounts(running)


@pytest.fixture
def cloud(running: FakeCloudThread) -> FakeCloudThread:
    running.reset()
    return running


@pytest.fixture
def account(tmp_path: Path, made: Accounts, cloud: FakeCloudThread) -> Any:
    """Writes settings with an account of a vendor, without a Redis unless there is a URL."""

    def write(vendor: str, url: str = "", **further: Any) -> None:
        settings_file(tmp_path, url, made.make(vendor, "main", timeout_s=5, **further)[0])

    return write


def send(cli: Cli, vendor: str, *words: str) -> Said:
    said = cli("send", "--vendor", vendor, "--token", TOKEN, "--title", "Li Lei", "--body", "See you at 8?", *words)
    assert TOKEN not in said.out + said.err
    assert "See you" not in said.out + said.err
    return said


@pytest.mark.parametrize("vendor", sorted(SECRETS))
def test_every_vendor_takes_it_and_says_what_it_refuses(
    cli: Cli, account: Any, cloud: FakeCloudThread, vendor: str
) -> None:
    account(vendor)
    said = send(cli, vendor)
    assert (said.code, said.err) == (0, ""), said
    assert said.out.startswith(f"{vendor} took the push to token {fingerprint(TOKEN)} (")
    assert said.out.endswith("HTTP 200); the fleet would count it as sent.\n")
    (received,) = cloud.received(vendor)
    assert received.token == TOKEN
    shown = received.data if vendor == "fcm" else {"title": received.title, "body": received.body}
    assert (shown["title"], shown["body"]) == ("Li Lei", "See you at 8?")
    cloud.kill(vendor, TOKEN)
    said = send(cli, vendor, "--json")
    assert (said.code, said.err) == (1, ""), said
    shown = json.loads(said.out)
    assert (shown["accepted"], shown["verdict"], shown["scope"]) == (False, "drop_token", "device")
    assert shown["token"] == fingerprint(TOKEN)
    assert shown["code"]
    assert shown["meaning"].rstrip(".") in shown["sentence"]
    assert shown["meaning"]
    assert 200 <= shown["status"] < 500
    assert "the fleet would " + shown["fleet"] in shown["sentence"]


def test_what_can_be_told_of_a_push_reaches_the_vendor(cli: Cli, account: Any, cloud: FakeCloudThread) -> None:
    account("apns")
    words = ("--kind", "system", "--ext", '{"a":"b"}', "--badge", "7", "--ttl", "60", "--replace-key", "c-1")
    assert send(cli, "apns", *words).code == 0
    (received,) = cloud.received("apns")
    assert received.replace_key == "c-1"
    assert (received.data["ext"], received.data["mid"][:5]) == ('{"a":"b"}', "send-")


def test_a_certificate_serves_as_well_as_a_key(cli: Cli, tmp_path: Path, cloud: FakeCloudThread) -> None:
    issued = cloud.credential("apns", certificate=True)
    fields = {
        "app": "demo",
        "base_url": cloud.url("apns"),
        "ca_bundle": str(cloud.ca_file),
        "certificate_file": str(issued.file),
        "certificate_password": issued.settings.get("certificate_password", ""),
        "topic": issued.settings["topic"],
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items() if value]
    settings_file(tmp_path, "", "[accounts.apns.main]", *lines)
    said = send(cli, "apns")
    assert said.code == 0, said


def test_a_class_without_its_right_is_explained(cli: Cli, account: Any, cloud: FakeCloudThread) -> None:
    account("oppo")
    cloud.rule("oppo", "refuse", code="67")
    said = send(cli, "oppo")
    assert said.code == 1
    assert "misconfigured, scope class; the fleet would hold the account's messages of kind chat until" in said.out
    assert "apply for it, or correct both in kinds" in said.out


def test_a_refused_credential_is_an_answer(cli: Cli, account: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("wrong")
    account("huawei", client_secret_file=str(tmp_path / "secret"))
    said = send(cli, "huawei")
    assert said.code == 1, said
    assert said.out.startswith("huawei gave no authorization (")
    assert "misconfigured, scope account; the fleet would hold the account's work" in said.out
    assert json.loads(send(cli, "huawei", "--json").out)["status"] == 0


def test_the_authorization_is_the_fleets_and_one_that_is_refused_is_given_up(
    cli: Cli, account: Any, cloud: FakeCloudThread, redis_url: str, redis_client: redis.Redis
) -> None:
    account("huawei", redis_url)
    key = "t:{huawei:main}:auth"
    assert send(cli, "huawei").code == 0
    value: Any = redis_client.hget(key, "value")
    assert value
    assert send(cli, "huawei").code == 0
    assert redis_client.hget(key, "value") == value
    cloud.expire_auth("huawei")
    said = send(cli, "huawei")
    assert (said.code, "obtain a new authorization" in said.out) == (1, True), said
    assert send(cli, "huawei").code == 0
    assert redis_client.hget(key, "value") != value
    assert redis_client.keys("t:*") == [key.encode()], "nothing else of the fleet hears of it"


def test_a_success_that_nobody_can_read_may_have_been_one(cli: Cli, account: Any, cloud: FakeCloudThread) -> None:
    account("meizu")
    cloud.rule("meizu", "raw", status=200, times=2)
    said = send(cli, "meizu")
    assert said.code == 1
    assert said.out.startswith(f"meizu may have taken the push to token {fingerprint(TOKEN)} (HTTP 200")
    assert said.out.endswith(", and send it again within 1 s, 8 times at most.\n")
    account("meizu", on_unknown="drop")
    assert send(cli, "meizu").out.endswith(", and drop it, as it may have arrived.\n")


# ---- our own errors


def test_nobody_answers(cli: Cli, account: Any, cloud: FakeCloudThread) -> None:
    account("meizu", base_url="https://127.0.0.1:1")
    told = send(cli, "meizu").refusal
    assert told.startswith("meizu did not answer (")
    assert told.endswith("it did not get the push, and the fleet would send it again")
    account("meizu", on_unknown="drop")
    cloud.rule("meizu", "drop")
    assert send(cli, "meizu").refusal.endswith("not known whether it took the push, and the fleet would drop it")
    account("huawei")
    cloud.blackout("huawei")
    try:
        assert "could not be asked for an authorization" in send(cli, "huawei").refusal
    finally:
        cloud.heal("huawei")


@pytest.mark.parametrize(
    ("vendor", "setting", "told"),
    [
        ("huawei", "client_secret_file", "does not exist"),
        ("meizu", "app_secret_file", "does not exist"),
        ("apns", "key_file", "no authorization can be made (KeyFile"),
    ],
)
def test_a_secret_that_cannot_be_used(
    cli: Cli, account: Any, tmp_path: Path, vendor: str, setting: str, told: str
) -> None:
    account(vendor, **{setting: str(tmp_path / "missing")})
    assert told in send(cli, vendor).refusal


def test_a_module_that_cannot_build_is_not_the_vendors_refusal(
    cli: Cli, account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    account("meizu")
    monkeypatch.setattr(Meizu, "build", lambda *given: 1 / 0)
    said = send(cli, "meizu")
    assert said.code == 2
    assert "the module of meizu made no request of the push" in said.err


def test_what_it_is_told_is_wrong(cli: Cli, account: Any, tmp_path: Path) -> None:
    account("meizu")
    assert send(cli, "pigeon").refusal.startswith("there is no vendor 'pigeon'")
    assert send(cli, "meizu", "--credential", "other").refusal == "there is no account meizu:other: there are main"
    assert send(cli, "fcm").refusal == "there is no account fcm:main: add [accounts.fcm.main] to pushfleet.toml"
    assert "ext has 3000 bytes" in send(cli, "meizu", "--ext", "x" * 3_000).refusal
    account("meizu", NOTHING_LISTENS)
    assert "127.0.0.1:1/0" in send(cli, "meizu").refusal


def test_a_stored_credential_is_sent_with(cli: Cli, tmp_path: Path, cloud: FakeCloudThread, redis_url: str) -> None:
    settings_file(tmp_path, redis_url, "[credentials]", f'master_key = "{MASTER_KEY}"')
    issued = cloud.credential("meizu")
    files = ("--file", f"app_secret={issued.file}", "--file", f"ca_bundle={cloud.ca_file}")
    sets = ("--set", f"app_id={issued.settings['app_id']}", "--set", f"base_url={cloud.url('meizu')}")
    said = cli("credentials", "add", "meizu", "main", "--app", "demo", *sets, *files)
    assert said.code == 0, said
    assert send(cli, "meizu").code == 0
    assert len(cloud.received("meizu")) == 1


def test_a_rotation_that_is_refused_sends_the_fleet_back(
    cli: Cli, tmp_path: Path, cloud: FakeCloudThread, redis_url: str
) -> None:
    settings_file(tmp_path, redis_url, "[credentials]", f'master_key = "{MASTER_KEY}"')
    issued = cloud.credential("meizu")
    files = ("--file", f"app_secret={issued.file}", "--file", f"ca_bundle={cloud.ca_file}")
    sets = ("--set", f"app_id={issued.settings['app_id']}", "--set", f"base_url={cloud.url('meizu')}")
    assert cli("credentials", "add", "meizu", "main", "--app", "demo", *sets, *files).code == 0
    wrong = ("credentials", "rotate", "meizu", "main", "--file", "app_secret=-", "--overlap")
    assert cli(*wrong, "1h", stdin=b"wrong").code == 0
    said = send(cli, "meizu")
    assert said.code == 1
    assert "the fleet would go back to the secret before the rotation, which is kept until 20" in said.out
    assert cli(*wrong, "0s", stdin=b"wrong as well").code == 0
    said = send(cli, "meizu")
    assert "hold the account's work until the fault is mended" in said.out


def test_a_token_that_tpns_cannot_have_given_is_explained(cli: Cli, account: Any) -> None:
    account("tpns")
    said = cli("send", "--vendor", "tpns", "--token", "ab" * 32, "--title", "Li Lei")
    assert said.code == 1
    assert "36 characters at most" in said.out


@pytest.mark.parametrize(
    ("vendor", "lost"), [("meizu", "did not get the push"), ("huawei", "was not asked for an auth")]
)
def test_a_certificate_that_is_not_taken_is_told_with_its_mend(
    cli: Cli, account: Any, tmp_path: Path, vendor: str, lost: str
) -> None:
    account(vendor, ca_bundle=str(make_certificates(tmp_path).ca_file))
    refusal = send(cli, vendor).refusal
    assert refusal.startswith(f"{vendor} {lost}")
    assert "signed by nobody who is trusted here: if a proxy reads along, its authority belongs in" in refusal
