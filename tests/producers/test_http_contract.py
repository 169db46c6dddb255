"""The SDK's shapes and paths against the OpenAPI document of the API: neither changes without the other."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest
from tests.workers.api.process import started

from pushfleet import ApiError, Channel, ClientReceipt, Confirmation, Preferences, Registration, StateReport, devices
from pushfleet.calls import Answer, Api, Call, Request
from pushfleet.devices import Receive
from pushfleet_workers.redis_server import EmbeddedRedis

GIVEN = {
    "Channel": "ChannelGiven",
    "ClientReceipt": "ReceiptGiven",
    "Confirmation": "Confirmation",
    "Registration": "Registration",
    "StateReport": "Report",
}
SHOWN = {
    "Confirmed": "ConfirmedShown",
    "AccountDeaths": "AccountDeaths",
    "AccountsWithDeaths": "AccountDeathsList",
    "Death": "DeathTold",
    "DeathPage": "DeathPage",
    "DeathsDecided": "Decided",
    "DeathsRestored": "RestoreDone",
    "Device": "DeviceShown",
    "DeviceChannel": "ChannelShown",
    "DeviceJudged": "DeviceJudged",
    "DoNotDisturb": "QuietShown",
    "Preferences": "PreferencesShown",
    "PushVerdict": "PushShown",
    "QuietHours": "WindowShown",
    "ReceiptsRecorded": "ReceiptsShown",
    "ReceiveOption": "OptionShown",
    "Registered": "RegisteredShown",
    "Reported": "ReportedShown",
    "Sounds": "SoundsShown",
    "User": "UserShown",
}
"""The SDK's shapes, and the names that the document gives them."""


@pytest.fixture(scope="module")
def document(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with started(tmp_path_factory.mktemp("api"), redis_server.url) as api:
        return api.known("/openapi.json")


def plain(schema: Any, names: dict[str, str]) -> Any:
    """What *schema* allows, without prose and limits, its references by the document's names."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return names.get(name, name)
    if "anyOf" in schema:
        return [plain(one, names) for one in schema["anyOf"]]
    kept = {key: schema[key] for key in ("type", "enum") if key in schema}
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            kept[inner] = plain(schema[inner], names)
    return kept


def sdk_schemas() -> dict[str, Any]:
    kinds = [getattr(devices, name) for name in (*GIVEN, *SHOWN)]
    return msgspec.json.schema_components(kinds, ref_template="#/{name}")[1]


def test_every_shape_of_the_sdk_is_compared() -> None:
    structs = {name for name in devices.__all__ if isinstance(getattr(devices, name), type)}
    assert structs == GIVEN.keys() | SHOWN.keys()


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_given_is_what_the_api_takes(document: Any, name: str) -> None:
    ours, theirs = sdk_schemas()[name], document["components"]["schemas"][GIVEN[name]]
    assert {field: plain(one, GIVEN) for field, one in ours["properties"].items()} == {
        field: plain(one, {}) for field, one in theirs["properties"].items()
    }
    assert sorted(ours["required"]) == sorted(theirs["required"])
    # What is left out of a body means the same on both sides.
    assert {field: one.get("default") for field, one in ours["properties"].items()} == {
        field: one.get("default") for field, one in theirs["properties"].items()
    }


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_answered_is_all_there(document: Any, name: str) -> None:
    ours, theirs = sdk_schemas()[name], document["components"]["schemas"][SHOWN[name]]
    assert ours["properties"].keys() == theirs["properties"].keys()
    for field, one in ours["properties"].items():
        told, wanted = _enumless(plain(theirs["properties"][field], {}), document), plain(one, SHOWN)
        assert told == wanted, field
    # Who needs a field must be sent it.
    assert set(ours.get("required", ())) <= set(theirs.get("required", ()))


def _enumless(told: Any, document: Any) -> Any:
    """An enumeration as the plain text that the SDK takes it for, so that a newer API may have more of them."""
    if isinstance(told, str) and "enum" in document["components"]["schemas"][told]:
        return {"type": "string"}
    if isinstance(told, dict) and "enum" in told:
        return {"type": "string"}
    return told


def first_request(call: Call[Any]) -> Request:
    step = next(call)
    assert isinstance(step, Request)
    return step


def the_operation(document: Any, request: Request) -> Any:
    path, method = request.path.partition("?")[0], request.method.lower()
    (operation,) = [
        methods[method]
        for template, methods in document["paths"].items()
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method in methods
    ]
    return operation


def each_call() -> dict[str, Call[Any]]:
    """Every call of the SDK, with all that it can say."""
    api = Api("demo", 1, lambda: 0.0)
    report = StateReport(user="ann", device="d1", state="killed", unread=1, at_ms=1)
    receipt = ClientReceipt(mid="m1", user="ann", device="d1", event="clicked", at_ms=1)
    confirmation = Confirmation(user="ann", device="d1", up_to_ms=1, conversation="c1")
    registration = Registration(channels=(Channel(vendor="apns", token="t1", kind="voip", region="eu"),))
    filters = {"vendor": "apns", "credential": "main", "user": "ann", "code": "1", "fate": "dropped"}
    receive: Receive = "mentions"
    return {
        "register": api.register("ann", "d1", registration),
        "remove": api.remove("ann", "d1"),
        "report": api.report(report),
        "report_many": api.report_many([report]),
        "confirm_delivery": api.confirm_delivery([confirmation]),
        "logout": api.logout("ann", "d1", 1),
        "user": api.user("ann", "c1", "chat", mention=True),
        "log_in": api.log_in("ann", "d1", "ios", 1),
        "mark_read": api.mark_read("ann", "c1", 1, 1, 1),
        "preferences": api.preferences("ann"),
        "set_preferences": api.set_preferences("ann", Preferences(push=False, hide_text=True)),
        "change_preferences": api.change_preferences("ann", {"do_not_disturb": None, "sound": None}),
        "forget_user": api.forget_user("ann"),
        "set_receive_option": api.set_receive_option("ann", "c1", receive, 1),
        "recall": api.recall("m1", "c1", ["ann"]),
        "dead_tokens": api.dead_tokens("1-0", 10, filters),
        "restore_dead_tokens": api.restore_dead_tokens({"vendor": "apns", "since_ms": 1, "limit": 1, "dry_run": True}),
        "accounts_with_deaths": api.accounts_with_deaths(),
        "decide_deaths": api.decide_deaths("apns", "main", "lift", 1),
        "report_receipts": api.report_receipts([receipt]),
    }


def test_every_call_is_compared() -> None:
    assert each_call().keys() == {name for name in vars(Api) if not name.startswith("_")}


@pytest.mark.parametrize("name", each_call())
def test_every_call_is_one_of_the_document(document: Any, name: str) -> None:
    request = first_request(each_call()[name])
    operation = the_operation(document, request)
    asked = {pair.partition("=")[0] for pair in request.path.partition("?")[2].split("&") if pair}
    assert asked == {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
    assert (request.body is not None) == ("requestBody" in operation)
    if request.body is not None:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        fields = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["properties"]
        assert msgspec.json.decode(request.body, type=dict[str, Any]).keys() <= fields.keys()


@pytest.mark.parametrize("name", each_call())
def test_every_call_reads_the_answer_that_the_document_promises(document: Any, name: str) -> None:
    request = first_request(each_call()[name])
    operation = the_operation(document, request)
    (status,) = [int(one) for one in operation["responses"] if one.startswith("2")]
    content = operation["responses"][str(status)].get("content")
    body = b""
    if content is not None:
        body = msgspec.json.encode(an_example(content["application/json"]["schema"], document))
    call = each_call()[name]
    next(call)
    with pytest.raises(StopIteration):
        call.send(Answer(status, body))
    refused = each_call()[name]
    next(refused)
    with pytest.raises(ApiError):
        refused.send(Answer(status, b"<html>") if content is not None else Answer(302, b""))


def an_example(schema: Any, document: Any) -> Any:
    """The least that *schema* allows: only what is required, in lists and maps one of each, of several the first."""
    if "$ref" in schema:
        return an_example(document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    if "anyOf" in schema:
        return an_example(schema["anyOf"][0], document)
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object" and "properties" in schema:
        return {name: an_example(schema["properties"][name], document) for name in schema.get("required", ())}
    if schema["type"] == "object":
        return {"one": an_example(schema["additionalProperties"], document)}
    if schema["type"] == "array":
        return [an_example(schema["items"], document)]
    return {"string": "", "integer": 1, "boolean": True}[schema["type"]]
