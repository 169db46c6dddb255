"""One fake cloud for the whole folder, emptied before each test, and a client per vendor."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import jwt
import pytest

from pushfleet_workers.fakecloud import Credential, FakeCloudThread

TOKEN = "0a1b2c3d" * 8
OTHER_TOKEN = "ff00ff00" * 8
PAYLOAD = {"aps": {"alert": {"title": "Li Lei", "body": "See you at 8?"}}, "mid": "m-1"}


@pytest.fixture(scope="package")
def running_cloud() -> Iterator[FakeCloudThread]:
    with FakeCloudThread() as cloud:
        yield cloud


@pytest.fixture(scope="package")
def apns_key(running_cloud: FakeCloudThread) -> Credential:
    return running_cloud.credential("apns")


@pytest.fixture(scope="package")
def fcm_account(running_cloud: FakeCloudThread) -> Credential:
    return running_cloud.credential("fcm")


@pytest.fixture(scope="package")
def huawei_app(running_cloud: FakeCloudThread) -> Credential:
    return running_cloud.credential("huawei")


@pytest.fixture(scope="package")
def trust(running_cloud: FakeCloudThread) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=running_cloud.ca_file)


@pytest.fixture
def cloud(running_cloud: FakeCloudThread) -> FakeCloudThread:
    running_cloud.reset()
    for vendor, streams in (("apns", 1_000), ("fcm", 100), ("huawei", 128)):
        running_cloud.heal(vendor)
        if running_cloud.stats()["vendors"][vendor]["tls"] != "sound":
            running_cloud.tls(vendor, "sound")
        running_cloud.max_streams(vendor, streams)
    return running_cloud


@pytest.fixture
def apns_headers(apns_key: Credential) -> dict[str, str]:
    claims = {"iss": apns_key.settings["team_id"], "iat": int(time.time())}
    token = jwt.encode(claims, apns_key.file.read_text(), "ES256", headers={"kid": apns_key.settings["key_id"]})
    return {
        "authorization": f"bearer {token}",
        "apns-topic": apns_key.settings["topic"],
        "apns-push-type": "alert",
        "apns-priority": "10",
    }


@pytest.fixture
def apns(cloud: FakeCloudThread, trust: ssl.SSLContext, apns_headers: dict[str, str]) -> Iterator[httpx.Client]:
    options: dict[str, Any] = {"base_url": cloud.url("apns"), "headers": apns_headers}
    with httpx.Client(http1=False, http2=True, verify=trust, timeout=5, **options) as client:
        yield client


@pytest.fixture
def push(apns: httpx.Client) -> Callable[..., httpx.Response]:
    """Sends one push to APNs; keyword arguments go to httpx."""

    def send(token: str = TOKEN, **options: Any) -> httpx.Response:
        return apns.post(f"/3/device/{token}", content=json.dumps(PAYLOAD), **options)

    return send
