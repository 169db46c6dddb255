"""What apps report themselves: validated as a whole, recorded once."""

from __future__ import annotations

from typing import Any

import pytest
from tests.workers.api.receipts_support import CLIENT, Receipts, receiving
from tests.workers.receipts.samples import NOW_MS


def a_receipt(**changes: Any) -> dict[str, Any]:
    return {"mid": "m-1", "user": "ann", "device": "phone", "event": "delivered", "at_ms": NOW_MS - 10, **changes}


def a_report(*receipts: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"app": "demo", "receipts": list(receipts) or [a_receipt()], **changes}


def test_what_apps_report_is_recorded_once(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        report = a_report(a_receipt(), a_receipt(event="clicked", at_ms=0), a_receipt(device="tablet"), a_receipt())
        answer = await stage.client.post(CLIENT, json=report)
        assert (answer.status_code, answer.json()) == (200, {"recorded": 3, "repeated": 1})
        assert (await stage.client.post(CLIENT, json=report)).json() == {"recorded": 0, "repeated": 4}
        assert [
            (entry["event"], entry["mid"], entry["user"], entry["device"], entry["vendor"], entry["at_ms"])
            for entry in await stage.recorded()
        ] == [
            ("delivered", "m-1", "ann", "phone", "", str(NOW_MS - 10)),
            ("clicked", "m-1", "ann", "phone", "", str(NOW_MS)),
            ("delivered", "m-1", "ann", "tablet", "", str(NOW_MS - 10)),
        ]
        assert await stage.counts() == {"::delivered": 2, "::clicked": 1}

    receiving(redis_url, scenario)


def test_a_thousand_are_taken_at_once_and_one_more_is_not(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        many = [a_receipt(mid=f"m-{number}") for number in range(1_001)]
        assert (await stage.client.post(CLIENT, json=a_report(*many[:1_000]))).json()["recorded"] == 1_000
        answer = await stage.client.post(CLIENT, json=a_report(*many))
        assert (answer.status_code, answer.json()["field"]) == (422, "receipts")

    receiving(redis_url, scenario)


@pytest.mark.parametrize(
    ("report", "status", "code", "field"),
    [
        (a_report(app="other"), 422, "unknown_app", "app"),
        (a_report(receipts=[]), 422, "invalid_field", "receipts"),
        (a_report(a_receipt(), a_receipt(event="blocked")), 422, "invalid_field", "receipts[1].event"),
        (a_report(a_receipt(), a_receipt(mid="")), 422, "invalid_field", "receipts[1].mid"),
        (a_report(a_receipt(user="u" * 257)), 422, "invalid_field", "receipts[0].user"),
        (a_report(a_receipt(device="d" * 129)), 422, "invalid_field", "receipts[0].device"),
        (a_report(a_receipt(), a_receipt(at_ms=-1)), 422, "invalid_field", "receipts[1].at_ms"),
        (a_report(a_receipt(), a_receipt(at_ms=NOW_MS + 600_000)), 422, "time_in_future", "receipts[1].at_ms"),
        (a_report(a_receipt(), a_receipt(token="secret-token")), 422, "invalid_field", "receipts[1].token"),
        ({"receipts": [a_receipt()]}, 422, "invalid_field", "app"),
        ([], 422, "invalid_field", ""),
        ("text", 422, "invalid_field", ""),
    ],
)
def test_one_that_is_wrong_refuses_them_all(redis_url: str, report: Any, status: int, code: str, field: str) -> None:
    async def scenario(stage: Receipts) -> None:
        answer = await stage.client.post(CLIENT, json=report)
        assert (answer.status_code, answer.json()["code"], answer.json()["field"]) == (status, code, field)
        assert "secret-token" not in answer.text
        assert await stage.recorded() == []
        assert await stage.counts() == {}

    receiving(redis_url, scenario)


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b"\xff", "application/json", 400, "invalid_json"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b" " * (4 * 1024 * 1024 + 1), "application/json", 413, "body_too_large"),
    ],
)
def test_what_is_no_report_is_refused(redis_url: str, body: bytes, media_type: str, status: int, code: str) -> None:
    async def scenario(stage: Receipts) -> None:
        answer = await stage.client.post(CLIENT, content=body, headers={"content-type": media_type})
        assert (answer.status_code, answer.json()["code"]) == (status, code)

    receiving(redis_url, scenario)


def test_the_key_of_the_api_is_asked_for(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        assert (await stage.client.post(CLIENT, json=a_report())).status_code == 401
        shown = {"authorization": "Bearer k3y"}
        assert (await stage.client.post(CLIENT, json=a_report(), headers=shown)).status_code == 200

    receiving(redis_url, scenario, key="k3y")


def test_an_app_that_floods_hears_so(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        answers = [await stage.client.post(CLIENT, json=a_report()) for _ in range(12)]
        assert {answer.status_code for answer in answers} == {200, 429}
        assert answers[-1].json()["code"] == "too_many_requests"

    receiving(redis_url, scenario, requests_per_s=1)


def test_switched_off_there_is_no_address(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        assert (await stage.client.post(CLIENT, json=a_report())).status_code == 404

    receiving(redis_url, scenario, clients=False)


def test_the_document_tells_of_it_and_of_its_refusals(redis_url: str) -> None:
    async def scenario(stage: Receipts) -> None:
        document = (await stage.client.get("/openapi.json", headers={"authorization": "Bearer k3y"})).json()
        client = document["paths"][CLIENT]["post"]
        assert {"200", "400", "401", "413", "415", "422", "429", "503"} <= set(client["responses"])
        assert client["security"] == [{"key": []}]
        assert not any("{secret}" in path for path in document["paths"])
        assert "HTTPValidationError" not in document["components"]["schemas"]

    receiving(redis_url, scenario, key="k3y")
