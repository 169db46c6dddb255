from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from pushfleet_workers.fakecloud import FakeCloudThread

TOKEN = "0a1b2c3d" * 8


@pytest.fixture
def control(cloud: FakeCloudThread) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cloud.control_url) as client:
        yield client


def test_rules_are_added_listed_and_struck_out(control: httpx.Client, push: Callable[..., httpx.Response]) -> None:
    one = {"vendor": "apns", "action": "refuse", "code": "Shutdown", "times": 1}
    two = {"vendor": "apns", "action": "raw", "status": 418, "body": "dGVh"}

    added = control.post("/rules", json=[one, two]).json()["ids"]

    assert [push().status_code for _ in range(2)] == [503, 418]
    listed = control.get("/rules", params={"vendor": "apns"}).json()["rules"]
    assert [(line["id"], line["matches"], line["action"]) for line in listed] == [
        (added[0], 2, "refuse"),
        (added[1], 1, "raw"),
    ]
    assert control.delete("/rules", params={"vendor": "apns", "id": added[1]}).status_code == 200
    assert push().status_code == 200
    control.delete("/rules")
    assert control.get("/rules").json() == {"rules": []}


def test_what_was_received_can_be_asked_for(control: httpx.Client, push: Callable[..., httpx.Response]) -> None:
    push()
    push("ff" * 32)

    mine = control.get("/received", params={"vendor": "apns", "token": TOKEN}).json()["received"]

    assert [(got["title"], got["message_id"], got["data"]) for got in mine] == [("Li Lei", "m-1", {"mid": "m-1"})]
    assert len(control.get("/received").json()["received"]) == 2
    assert control.get("/received", params={"limit": 1}).json()["received"][0]["token"] == "ff" * 32


def test_the_totals_name_no_token(control: httpx.Client, push: Callable[..., httpx.Response]) -> None:
    push()

    answer = control.get("/stats")

    assert answer.json()["vendors"]["apns"]["accepted"] == 1
    assert TOKEN not in answer.text


def test_settings_change_streams_and_blackout(
    control: httpx.Client, cloud: FakeCloudThread, push: Callable[..., httpx.Response]
) -> None:
    control.post("/settings", json={"vendor": "apns", "max_streams": 7, "blackout": True})

    stats = control.get("/stats").json()["vendors"]["apns"]
    assert (stats["max_streams"], stats["blackout"]) == (7, True)
    with pytest.raises(httpx.ConnectError):
        push()
    control.post("/settings", json={"vendor": "apns", "blackout": False})
    assert push().status_code == 200


def test_a_token_can_be_revived(control: httpx.Client, push: Callable[..., httpx.Response]) -> None:
    control.post("/rules", json={"vendor": "apns", "action": "dead", "token": TOKEN})
    assert push().status_code == 410

    assert control.post("/revive", json={"vendor": "apns", "token": TOKEN}).json() == {"revived": True}
    assert push().status_code == 200


def test_a_credential_can_be_asked_for(control: httpx.Client) -> None:
    made = control.post("/credentials", json={"vendor": "apns", "options": {"topics": ["com.example.two"]}}).json()

    assert made["settings"]["topic"] == "com.example.two"
    assert Path(made["file"]).read_text().startswith("-----BEGIN PRIVATE KEY-----")


def test_a_reset_empties_script_and_book(control: httpx.Client, push: Callable[..., httpx.Response]) -> None:
    push()
    control.post("/rules", json={"vendor": "apns", "action": "silent"})

    control.post("/reset")

    assert control.get("/rules").json() == {"rules": []}
    assert control.get("/stats").json()["vendors"]["apns"]["requests"] == 0
    assert push().status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/rules", b"{"),
        ("POST", "/rules", b'{"vendor":"apns","action":"refuse","code":"Nope"}'),
        ("POST", "/rules", b'{"vendor":"nobody","action":"silent"}'),
        ("POST", "/settings", b'{"vendor":"apns","max_streams":-1}'),
        ("POST", "/settings", b'{"vendor":"apns","speed":1}'),
        ("POST", "/credentials", b'{"vendor":"apns","options":{"colour":"red"}}'),
        ("GET", "/rules?vendor=nobody", b""),
        ("GET", "/received?colour=red", b""),
        ("DELETE", "/rules?id=x", b""),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong(control: httpx.Client, method: str, path: str, body: bytes) -> None:
    answer = control.request(method, path, content=body)

    assert answer.status_code == 400
    assert answer.json()["error"]


def test_an_unknown_address_is_told_which_there_are(control: httpx.Client) -> None:
    answer = control.get("/nowhere")

    assert answer.status_code == 404
    assert "GET /stats" in answer.json()["error"]
