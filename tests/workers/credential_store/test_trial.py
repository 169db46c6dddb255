"""Trying credentials against the fake cloud, and what each verdict says of a credential."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.workers.credential_store.support import HUAWEI, OTHER_P8, Play, Stage

from pushfleet_workers import registry
from pushfleet_workers.credential_store.management import Given
from pushfleet_workers.credential_store.secret_files import SecretFile
from pushfleet_workers.credential_store.trial import PROBE_TOKEN, Trial, explain, try_account
from pushfleet_workers.fakecloud import FakeCloudThread
from pushfleet_workers.outcome import Outcome, Scope, Verdict

SECRET_SETTING = {"apns": "key_file", "fcm": "service_account_file", "huawei": "client_secret_file"}


@pytest.fixture(scope="module")
def running() -> Iterator[FakeCloudThread]:
    with FakeCloudThread(vendors=list(SECRET_SETTING)) as cloud:
        yield cloud


@pytest.fixture
def cloud(running: FakeCloudThread) -> FakeCloudThread:
    running.reset()
    return running


def account(cloud: FakeCloudThread, vendor: str, **changes: Any) -> Any:
    credential = cloud.credential(vendor)
    fields: dict[str, Any] = {
        "app": "demo",
        "base_url": cloud.url(vendor),
        "ca_bundle": cloud.ca_file,
        "timeout_s": 5,
        SECRET_SETTING[vendor]: credential.file,
        **{name: value for name, value in credential.settings.items() if name != "project_id"},
    }
    if vendor == "huawei":
        fields["auth_url"] = f"{cloud.url(vendor)}/oauth2/v3/token"
    return registry.load(vendor).account_type(**fields | changes)


def tried(vendor: str, account: Any, *, probe: bool = True) -> Trial:
    return asyncio.run(try_account(vendor, account, probe=probe))


@pytest.mark.parametrize("vendor", SECRET_SETTING)
def test_a_token_that_nobody_has_shows_that_the_credential_is_good(cloud: FakeCloudThread, vendor: str) -> None:
    cloud.kill(vendor, PROBE_TOKEN)
    trial = tried(vendor, account(cloud, vendor))
    assert trial.good is True, trial
    assert "the credential is good" in trial.sentence
    assert trial.sentence.startswith(f"{vendor} answered {trial.code}")
    assert trial.expires_in_s > 600
    assert PROBE_TOKEN not in repr(trial)


@pytest.mark.parametrize("vendor", SECRET_SETTING)
def test_without_a_probe_only_the_authorization_is_obtained(cloud: FakeCloudThread, vendor: str) -> None:
    trial = tried(vendor, account(cloud, vendor), probe=False)
    assert trial.expires_in_s > 600
    if vendor == "apns":
        assert (trial.good, "add --probe" in trial.sentence) == (None, True)
    else:
        assert (trial.good, trial.sentence) == (True, f"{vendor} takes the credential: it gave an access token")
    assert cloud.received(vendor) == []


def test_a_key_that_is_another_than_its_id_says_is_refused_by_the_vendor(
    cloud: FakeCloudThread, tmp_path: Path
) -> None:
    file = tmp_path / "other.p8"
    file.write_bytes(OTHER_P8)
    trial = tried("apns", account(cloud, "apns", key_file=file))
    assert (trial.good, trial.code) == (False, "InvalidProviderToken")
    assert "does not take the credential" in trial.sentence


def test_a_wrong_secret_is_refused_at_the_token_endpoint(cloud: FakeCloudThread, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("wrong")
    trial = tried("huawei", account(cloud, "huawei", client_secret_file=file), probe=False)
    assert trial.good is False
    assert "huawei refuses the credential" in trial.sentence


def test_a_key_that_cannot_be_read_is_told(cloud: FakeCloudThread, tmp_path: Path) -> None:
    missing = {"key_file": tmp_path / "none.p8"}
    assert tried("apns", account(cloud, "apns", **missing)).good is False
    trial = tried("huawei", account(cloud, "huawei", client_secret_file=tmp_path / "none"))
    assert (trial.good, "does not exist" in trial.sentence) == (False, True), trial


@pytest.mark.parametrize("vendor", ["apns", "huawei"])
def test_nobody_there_says_nothing_of_the_credential(cloud: FakeCloudThread, vendor: str) -> None:
    nowhere = {"base_url": "https://127.0.0.1:1", "auth_url": "https://127.0.0.1:1"}
    trial = tried(vendor, account(cloud, vendor, **nowhere))
    assert (trial.good, "could not be reached" in trial.sentence) == (None, True), trial


def test_a_stored_credential_is_tried_with_its_files_in_place(cloud: FakeCloudThread, play: Play, memory: Path) -> None:
    credential = cloud.credential("huawei")
    settings = {name: value for name, value in credential.settings.items() if name != "project_id"}
    given = Given(
        {
            **settings,
            "base_url": cloud.url("huawei"),
            "auth_url": f"{cloud.url('huawei')}/oauth2/v3/token",
        },
        {
            "client_secret_file": SecretFile("secret", credential.file.read_bytes()),
            "ca_bundle": SecretFile("ca.pem", cloud.ca_file.read_bytes()),
        },
    )

    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", given)
        assert (await stage.manager.test(HUAWEI, probe=True)).good is True
        assert list(memory.iterdir()) == []

    play(scenario)


# ---- what a verdict says


@pytest.mark.parametrize("vendor", registry.names())
def test_each_code_of_each_vendor_is_explained_in_a_sentence(vendor: str) -> None:
    module = registry.load(vendor)
    for code, row in module.codes.items():
        trial = explain(module, replace(row.outcome, code=code))
        assert code in trial.sentence
        assert row.meaning in trial.sentence
        assert trial.good is (True if row.outcome.verdict is Verdict.DROP_TOKEN else trial.good)
        if code.startswith("HTTP "):
            assert trial.good is not True or row.outcome.verdict is Verdict.OK, code


@pytest.mark.parametrize(
    ("outcome", "good", "told"),
    [
        (Outcome(Verdict.OK), True, "apns took the push: the credential is good"),
        (Outcome(Verdict.BAD_PAYLOAD, code="PayloadTooLarge"), True, "would not have the probe itself"),
        (Outcome(Verdict.BAD_PAYLOAD, code="HTTP 400"), None, "says nothing"),
        (Outcome(Verdict.MISCONFIGURED, Scope.CLASS, "X"), True, "lacks a right or template"),
        (Outcome(Verdict.MISCONFIGURED, Scope.DEVICE, "X"), True, "lacks a right or template"),
        (Outcome(Verdict.MISCONFIGURED, Scope.ACCOUNT, "X"), False, "does not take the credential"),
        (Outcome(Verdict.REFRESH_AUTH, Scope.ACCOUNT, "X"), False, "does not take the credential"),
        (Outcome(Verdict.RATE_LIMITED, Scope.ACCOUNT, "X"), None, "seems good"),
        (Outcome(Verdict.QUOTA_EXHAUSTED, Scope.CLASS, "X"), None, "seems good"),
        (Outcome(Verdict.RETRY, Scope.ACCOUNT, "X"), None, "try again later"),
    ],
)
def test_what_a_verdict_says(outcome: Outcome, good: bool | None, told: str) -> None:
    trial = explain(registry.load("apns"), outcome)
    assert (trial.good, told in trial.sentence) == (good, True), trial.sentence
