"""Receipts of the fake vendors: only where asked for, in the vendor's form, refusals that say why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from pushfleet_workers.fakecloud import Accepted, Console, FakeCloudThread
from pushfleet_workers.fakecloud.receipts import DELIVERED, postings

NOW_MS = 1_767_300_000_000
URL = "http://127.0.0.1:9/cb"


def accepted(vendor: str, token: str = "t-1", **callback: str) -> Accepted:
    asked = {"param": "echo-1", "url": URL, **callback}
    return Accepted(vendor, "app", token, "title", "body", "id-1", "m-1", "", {}, 1.0, NOW_MS / 1000, asked)


@pytest.fixture
def control(cloud: FakeCloudThread) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cloud.control_url) as client:
        yield client


def post(vendor: str, *pushes: Accepted, code: str = "", **console: Any) -> list[Any]:
    return postings(vendor, code or DELIVERED[vendor], pushes, Console(**console), NOW_MS)


@pytest.mark.parametrize("vendor", sorted(DELIVERED))
def test_a_push_that_asked_for_nothing_brings_nothing(vendor: str) -> None:
    assert post(vendor, accepted(vendor, param="")) == []


@pytest.mark.parametrize("vendor", sorted(DELIVERED))
def test_each_address_gets_its_own(vendor: str) -> None:
    pushes = [accepted(vendor, "t-1"), accepted(vendor, "t-2"), accepted(vendor, "t-3", url=f"{URL}/other")]
    made = post(vendor, *pushes)
    assert [posting.url for posting in made] == [URL, f"{URL}/other"]
    assert b"t-1" in made[0].body
    assert b"t-2" in made[0].body
    assert b"t-3" not in made[0].body


@pytest.mark.parametrize("vendor", ["huawei", "harmony", "honor", "vivo"])
def test_where_the_console_has_the_address_it_must_be_said(vendor: str) -> None:
    with pytest.raises(ValueError, match=r"console\.url"):
        post(vendor, accepted(vendor, url=""))
    (posting,) = post(vendor, accepted(vendor, url=""), url=URL)
    assert posting.url == URL


@pytest.mark.parametrize(("asked", "count"), [("1267", 1), ("3", 1), ("2", 0), ("", 1)])
def test_only_the_types_that_were_asked_for_come(asked: str, count: int) -> None:
    assert len(post("xiaomi", accepted("xiaomi", type=asked), code="1")) == count


def test_huawei_signs_where_its_console_was_told_to() -> None:
    (plain,) = post("huawei", accepted("huawei"))
    assert "x-huawei-callback-id" not in plain.headers
    (signed,) = post("huawei", accepted("huawei"), user="u", secret="c2VjcmV0")
    assert signed.headers["x-huawei-callback-id"].startswith(f"timestamp={NOW_MS}; nonce=")


def test_xiaomi_gathers_the_targets_of_a_message() -> None:
    (posting,) = post("xiaomi", accepted("xiaomi", "t-1"), accepted("xiaomi", "t-2"))
    (content,) = json.loads(parse_qs(posting.body.decode())["data"][0]).values()
    assert (content["targets"], content["param"], content["type"]) == ("t-1,t-2", "echo-1", 1)


def test_others_post_no_receipts(cloud: FakeCloudThread, control: httpx.Client) -> None:
    with pytest.raises(ValueError, match="apns posts no receipts"):
        cloud.send_receipts("apns")
    for body in (
        {"vendor": "apns"},
        {"vendor": "nobody"},
        {"vendor": "xiaomi", "times": 0},
        {"vendor": "xiaomi", "x": 1},
    ):
        answer = control.post("/receipts", json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]
    assert control.post("/receipts", json={"vendor": "xiaomi"}).json() == {"answers": []}
