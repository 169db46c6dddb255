"""What vendors post, read: every code, every form, and whatever else may arrive."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.workers.receipts.samples import AT_MS, NOW_MS, OTHER, TOKEN, a_body

import pushfleet_workers.receipts as package
from pushfleet_workers.errors import SettingsError
from pushfleet_workers.receipts import READERS, Event, Proof, Receipt, load, readers
from pushfleet_workers.receipts._huawei_signature import signature
from pushfleet_workers.vendors._receipts import HuaweiReceiptAccount
from pushfleet_workers.vendors.meizu import MeizuAccount

CODES = [(vendor, code) for vendor, reader in sorted(READERS.items()) for code in reader.codes]
UNTIMED = {"vivo", "meizu"}


def read(vendor: str, body: bytes) -> list[Receipt]:
    return list(READERS[vendor].read(body))


@pytest.mark.parametrize(("vendor", "code"), CODES)
def test_every_code_is_read_as_the_table_says(vendor: str, code: str) -> None:
    at_ms = 0 if vendor in UNTIMED else AT_MS
    expected = Receipt(READERS[vendor].codes[code].event, code, TOKEN, "echo-1", at_ms, "r-1")
    assert read(vendor, a_body(vendor, code)) == [expected]


@pytest.mark.parametrize("vendor", sorted(READERS))
@pytest.mark.parametrize("code", ["77777", "something_new"])
def test_a_code_that_nobody_knows_harms_no_token(vendor: str, code: str) -> None:
    (found,) = read(vendor, a_body(vendor, code))
    assert (found.event, found.code, found.token) == (Event.OTHER, code, TOKEN)


def test_what_kills_a_token_is_what_the_vendors_say_of_installations_that_are_gone() -> None:
    deadly = {(vendor, code) for vendor, code in CODES if READERS[vendor].codes[code].event is Event.DEAD}
    assert deadly == {
        ("harmony", "2"),
        ("harmony", "5"),
        ("huawei", "2"),
        ("huawei", "5"),
        ("oppo", "regid_invalid"),
        ("xiaomi", "16"),
    }


def test_several_targets_are_as_many_receipts() -> None:
    both = [TOKEN, OTHER]
    one = {"messageId": "x", "registrationIds": f"{TOKEN}, {OTHER}", "eventType": "push_arrive", "param": "e"}
    bodies = {
        "oppo": json.dumps([one]).encode(),
        "xiaomi": urlencode({"data": json.dumps({"m": {"type": 1, "targets": ",".join(both), "param": "e"}})}).encode(),
        "vivo": json.dumps({"t": {"param": "e", "targets": ",".join(both)}}).encode(),
        "meizu": urlencode({"cb": json.dumps({"m-1": {"type": 1, "targets": both, "param": "e"}})}).encode(),
    }
    for vendor, body in bodies.items():
        assert [found.token for found in read(vendor, body)] == both, vendor


def test_events_for_one_address_come_merged() -> None:
    body = json.dumps([json.loads(a_body("oppo", code))[0] for code in ("push_arrive", "regid_invalid")]).encode()
    assert [found.event for found in read("oppo", body)] == [Event.DELIVERED, Event.DEAD]


def test_the_old_kind_of_vivo_brings_no_echo_back_where_it_had_none() -> None:
    (found,) = read("vivo", json.dumps({"9": {"param": None, "targets": TOKEN}}).encode())
    assert (found.event, found.echo) == (Event.DELIVERED, "")


def test_a_meizu_message_id_may_hold_dashes() -> None:
    body = urlencode({"cb": json.dumps({"NS-1_0_3-1": {"type": 1, "targets": [TOKEN], "param": "e"}})}).encode()
    assert read("meizu", body)[0].send_id == "NS-1_0_3"


def test_what_a_huawei_console_may_post_for_a_test_is_no_receipt_and_no_error() -> None:
    assert read("huawei", b'{"validate_only":false,"message":{"token":["t"],"android":{}}}') == []


@pytest.mark.parametrize("further", [{"status": 1}, {"type": None}, {"subType": TOKEN}, {"event": "clicked"}])
def test_what_of_vivo_has_no_code_and_is_not_of_the_old_kind_is_not_taken_for_delivered(
    further: dict[str, Any],
) -> None:
    (found,) = read("vivo", json.dumps({"9": {"param": "echo-1", "targets": TOKEN, **further}}).encode())
    assert (found.event, found.code, found.echo) == (Event.OTHER, "untold", "echo-1")


def test_what_vivo_documents_for_cards_ends_no_token() -> None:
    body = {"9": {"param": "echo-1", "targets": TOKEN, "type": 301, "subType": 31004}}
    (found,) = read("vivo", json.dumps(body).encode())
    assert (found.event, found.code) == (Event.OTHER, "31004")


@pytest.mark.parametrize("vendor", sorted(READERS))
def test_a_receipt_shows_no_token(vendor: str) -> None:
    (found,) = read(vendor, a_body(vendor, next(iter(READERS[vendor].codes))))
    assert TOKEN not in repr(found)


# ---- whatever may arrive

_words = ["statuses", "token", "biTag", "status", "timestamp", "deliveryStatus", "result", "requestId", "targets"]
_words += ["type", "subType", "param", "eventType", "registrationIds", "eventTime", "messageId", "data", "cb"]
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from([TOKEN, f"{TOKEN},{OTHER}", "t" * 5_000, "9" * 400, "\ud800".encode("utf-8", "replace").decode()]),
    st.sampled_from([code for _, code in CODES]),
)
_values = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(st.sampled_from(_words), st.text()), inner, max_size=6)
    ),
    max_leaves=14,
)
_jsons = _values.map(lambda value: json.dumps(value).encode())
_forms = st.dictionaries(st.sampled_from(["data", "cb", "access_token", "x"]), _jsons, max_size=3).map(
    lambda fields: urlencode(fields).encode()
)
_oddities = st.sampled_from(
    [b"", b"[" * 100_000, b'{"statuses":' * 5_000, b"&" * 5_000, b"data=%", b"cb=%ff%fe", b"\0"]
)
bodies = st.one_of(st.binary(max_size=80), _jsons, _forms, _oddities)


@pytest.mark.parametrize("vendor", sorted(READERS))
@settings(deadline=None, max_examples=300)
@given(body=bodies)
def test_whatever_arrives_is_some_receipts_or_none(vendor: str, body: bytes) -> None:
    for found in read(vendor, body):
        assert found.token.isascii()
        assert 1 <= len(found.token) <= 4_096
        assert "," not in found.token or vendor in ("huawei", "harmony", "honor", "meizu")
        assert len(found.echo) <= 64
        assert len(found.code) <= 40
        assert len(found.send_id) <= 128
        assert found.at_ms == 0 or 10**12 <= found.at_ms < 253_402_300_800_000
        assert found.token not in repr(found)


@pytest.mark.parametrize("vendor", sorted(READERS))
@settings(deadline=None, max_examples=150)
@given(body=bodies, shown=st.one_of(st.text(max_size=80), st.just(";;=;value=;timestamp=1;nonce")))
def test_whatever_arrives_is_proven_refused_or_neither(vendor: str, body: bytes, shown: str) -> None:
    account = (
        a_signed_account() if vendor in ("huawei", "harmony") else a_meizu_account() if vendor == "meizu" else None
    )
    proof = READERS[vendor].verify(account, {"x-huawei-callback-id": shown}, body, NOW_MS)
    assert proof is (Proof.REFUSED if account is not None else Proof.UNSIGNED)


# ---- signatures


def a_signed_account(**changes: Any) -> HuaweiReceiptAccount:
    fields = {"app": "demo", "receipt_user": "fleet", "receipt_secret": "c2VjcmV0LW9mLXRoZS1yZWNlaXB0"}
    return HuaweiReceiptAccount.model_validate(fields | changes)


def a_meizu_account(**changes: Any) -> MeizuAccount:
    fields = {"app": "demo", "app_id": "1", "app_secret": "s", "receipt_token": "shown-to-the-console"}
    return MeizuAccount.model_validate(fields | changes)


def test_the_signature_is_that_of_the_vendors_pages() -> None:
    # echo -n 1563105451261:::2dd9c2a5fleet | openssl dgst -sha256 -hmac secret-of-the-receipt -binary | base64
    made = {"timestamp": "1563105451261", "nonce": ":::2dd9c2a5", "user": "fleet"}
    as_text = signature("secret-of-the-receipt", is_text=True, **made)
    assert as_text == "ZB9kdbR2p7+d0/5x2fd4s+ufqqZgEJmmAxAQgG2KAjw="
    assert signature("c2VjcmV0LW9mLXRoZS1yZWNlaXB0", is_text=False, **made) == as_text


def a_header(at_ms: int = NOW_MS, space: str = "", **changes: str) -> dict[str, str]:
    fields = {"timestamp": str(at_ms), "nonce": "9f0e", "user": "fleet", "secret": "c2VjcmV0LW9mLXRoZS1yZWNlaXB0"}
    fields |= changes
    value = signature(fields.pop("secret"), is_text=False, **fields)
    parts = [f"timestamp={fields['timestamp']}", f"nonce={fields['nonce']}", f"value={value}"]
    return {"x-huawei-callback-id": f";{space}".join(parts)}


@pytest.mark.parametrize("vendor", ["huawei", "harmony"])
@pytest.mark.parametrize("space", ["", " "])
def test_what_huawei_signed_is_proven(vendor: str, space: str) -> None:
    assert READERS[vendor].verify(a_signed_account(), a_header(space=space), b"", NOW_MS) is Proof.SIGNED


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-huawei-callback-id": ""},
        a_header(user="another"),
        a_header(secret="b3RoZXI="),
        a_header(at_ms=NOW_MS - 300_001),
        a_header(at_ms=NOW_MS + 300_001),
        {"x-huawei-callback-id": a_header()["x-huawei-callback-id"].replace("9f0e", "9f0f")},
        {"x-huawei-callback-id": a_header()["x-huawei-callback-id"].replace("timestamp=", "timestamp=٣")},
    ],
)
def test_what_huawei_did_not_sign_now_is_refused(headers: dict[str, str]) -> None:
    assert READERS["huawei"].verify(a_signed_account(), headers, b"", NOW_MS) is Proof.REFUSED


@pytest.mark.parametrize(
    "changes",
    [
        {"receipt_secret": None},
        {"receipt_user": "", "receipt_secret": None, "receipt_secret_file": "/nowhere/secret"},
        {"receipt_secret": "no base64!"},
    ],
)
def test_a_secret_that_cannot_be_used_lets_nobody_in(changes: dict[str, Any]) -> None:
    assert READERS["huawei"].verify(a_signed_account(**changes), a_header(), b"", NOW_MS) is Proof.REFUSED


def test_a_secret_of_old_is_text(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret-of-the-receipt\n")
    account = a_signed_account(
        receipt_secret=None, receipt_secret_file=str(tmp_path / "secret"), receipt_secret_is_text=True
    )
    assert READERS["huawei"].verify(account, a_header(), b"", NOW_MS) is Proof.SIGNED


def test_without_user_and_secret_nothing_is_signed() -> None:
    account = a_signed_account(receipt_user="", receipt_secret=None)
    assert READERS["huawei"].verify(account, {}, b"", NOW_MS) is Proof.UNSIGNED


@pytest.mark.parametrize(
    ("body", "proof"),
    [
        (b"access_token=shown-to-the-console&cb=%7B%7D", Proof.SIGNED),
        (b"access_token=another&cb=%7B%7D", Proof.REFUSED),
        (b"cb=%7B%7D", Proof.REFUSED),
        (b"access_token=%ff", Proof.REFUSED),
        (b"", Proof.REFUSED),
    ],
)
def test_meizu_shows_the_token_that_its_console_was_told(body: bytes, proof: Proof) -> None:
    assert READERS["meizu"].verify(a_meizu_account(), {}, body, NOW_MS) is proof
    gone = a_meizu_account(receipt_token=None, receipt_token_file="/nowhere/token")
    assert READERS["meizu"].verify(gone, {}, body, NOW_MS) is Proof.REFUSED
    assert READERS["meizu"].verify(a_meizu_account(receipt_token=None), {}, body, NOW_MS) is Proof.UNSIGNED


# ---- readers of other packages, and what a reader may use


class _Good:
    codes: ClassVar[dict[str, Any]] = {}
    acknowledgement = (b"", "text/plain")

    def verify(self, *given: object) -> Proof:
        return Proof.UNSIGNED

    def read(self, body: bytes) -> Any:
        return iter(())


def test_other_packages_bring_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"acme": SimpleNamespace(value="acme:Good", load=lambda: _Good)}
    points["lame"] = SimpleNamespace(value="acme:Lame", load=lambda: object)
    monkeypatch.setattr(readers, "entry_points", lambda group, name: [points[name]] if name in points else [])
    load.cache_clear()
    try:
        assert isinstance(load("acme"), _Good)
        assert load("apns") is None
        with pytest.raises(SettingsError, match="lack acknowledgement, codes, read, verify"):
            load("lame")
    finally:
        load.cache_clear()


IMPURE = {"asyncio", "logging", "prometheus_client", "random", "secrets", "socket", "time", "threading"}
PURE = sorted({"receipt", "_parse", "_huawei_signature", *READERS})


@pytest.mark.parametrize("name", PURE)
def test_a_reader_has_no_clock_socket_log_or_chance(name: str) -> None:
    file = Path(str(package.__file__)).parent / f"{name}.py"
    used = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used.add(str(node.module))
    assert {one.partition(".")[0] for one in used} & IMPURE == set()
    ours = {one.split(".")[1] for one in used if one.startswith("pushfleet_workers.")}
    assert ours <= {"errors", "receipts", "vendors"}
