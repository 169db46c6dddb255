"""What a push carries so that its receipts can be told: addresses, echoes and their seals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.vendors.samples import AUTH, NOW_MS, a_delivery, a_push, an_account, content

from pushfleet.message import Kind
from pushfleet_workers import registry
from pushfleet_workers.push import Push
from pushfleet_workers.receipts import READERS
from pushfleet_workers.vendors._receipts import (
    Callback,
    ReceiptAccount,
    callback,
    read_echo,
    receipt_keys,
    secret_path,
)

FIELDS = {
    "huawei": ("", "bi_tag"),
    "harmony": ("", "biTag"),
    "honor": ("", "biTag"),
    "xiaomi": ("extra.callback", "extra.callback.param"),
    "oppo": ("call_back_url", "call_back_parameter"),
    "vivo": ("callback", "callback.param"),
    "meizu": ("callback", "callback.param"),
}
"""Where a request has the address and the echo; no name: the address is only told in the vendor's console."""

LIMITS = {"xiaomi": (128, 64), "oppo": (200, 50), "vivo": (128, 64), "meizu": (128, 64)}
"""Characters that a vendor takes of both; of the others 64 for the echo."""

ids = st.one_of(st.text(min_size=1, max_size=80), st.from_regex(r"[A-Za-z0-9._~-]{1,60}", fullmatch=True), st.uuids())


@pytest.fixture(params=sorted(READERS))
def vendor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def fields_of(value: Any) -> dict[str, str]:
    """Every text in a request by the name of its field; of several the last."""
    found: dict[str, str] = {}
    if isinstance(value, str) and value[:1] in ("{", "["):
        value = json.loads(value)
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        found |= fields_of(inner)
    if isinstance(value, dict):
        found |= {name: inner for name, inner in value.items() if isinstance(inner, str)}
    return found


def sent(vendor: str, keys: Path, push: Push | None = None, **changes: Any) -> dict[str, str]:
    account = an_account(vendor, keys, **changes)
    return fields_of(content(registry.load(vendor).build(account, push or a_push(), [a_delivery()], AUTH, NOW_MS)))


def test_every_vendor_that_has_receipts_asks_for_them(vendor: str, keys: Path) -> None:
    address, echo = FIELDS[vendor]
    found = sent(vendor, keys)
    account = an_account(vendor, keys)
    assert isinstance(account, ReceiptAccount)
    (key,) = receipt_keys(account)
    if address:
        assert found[address] == f"{account.receipt_url}/{secret_path(key, f'{vendor}/main')}"
        assert len(found[address]) <= LIMITS[vendor][0]
    said = read_echo([key], f"{vendor}/main", found[echo])
    assert said is not None
    assert (said.message_id, said.digest, said.public) == ("m-9f3c1d", "", False)


def test_without_an_address_nothing_is_asked_for(vendor: str, keys: Path) -> None:
    address, echo = FIELDS[vendor]
    found = sent(vendor, keys, receipt_url="")
    assert address not in found
    assert "callback" not in str(found)
    assert found.get(echo, "") in ("", a_digest_of_old())


def a_digest_of_old() -> str:
    from pushfleet_workers.push import shared_id

    return shared_id(a_push()).hex()


def test_a_key_that_cannot_be_read_costs_the_receipts_and_not_the_push(vendor: str, keys: Path, tmp_path: Path) -> None:
    changes = {"receipt_key": None, "receipt_key_file": str(tmp_path / "gone")}
    assert sent(vendor, keys, **changes) == sent(vendor, keys, receipt_url="")
    (problem,) = registry.load(vendor).check(an_account(vendor, keys, **changes), 0)
    assert "receipt_key_file" in problem
    assert "does not exist" in problem


def test_a_key_in_a_file_counts_as_one_in_the_settings(vendor: str, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{vendor}-receipts-for-tests\n")
    assert sent(vendor, keys, receipt_key=None, receipt_key_file=str(tmp_path / "key")) == sent(vendor, keys)


@given(message_id=ids.map(str), kind=st.sampled_from(get_args(Kind)))
def test_an_echo_is_read_as_it_was_made_whatever_the_id(message_id: str, kind: Kind) -> None:
    push = a_push(message_id=message_id, kind=kind)
    for name in READERS:
        account = an_account(name, Path("/nowhere"))
        assert isinstance(account, ReceiptAccount)
        limit = LIMITS.get(name, (0, 64))[1]
        asked = callback(account, push, limit)
        assert asked is not None
        assert len(asked.echo) <= limit
        said = read_echo(receipt_keys(account), f"{name}/main", asked.echo)
        assert said is not None
        assert said.public == (kind in ("system", "official", "marketing"))
        digest = hashlib.sha256(message_id.encode(errors="surrogatepass")).hexdigest()[:32]
        assert (said.message_id, said.digest) in ((message_id, ""), ("", digest))


def test_the_usual_ids_fit_whole_into_every_echo() -> None:
    for message_id in ("6b0f8f1e-5d0e-4c51-9d0a-0a4cf2d5c9aa", "7234567890123456789", "m" * 37):
        asked = callback(an_account("oppo", Path("/nowhere")), a_push(message_id=message_id), 50)  # type: ignore[arg-type]
        assert asked is not None
        assert asked.echo.endswith(message_id)


def an_echo(**changes: Any) -> str:
    account = an_account("xiaomi", Path("/nowhere"), **changes)
    assert isinstance(account, ReceiptAccount)
    asked = callback(account, a_push())
    assert asked is not None
    return asked.echo


KEY = b"xiaomi-receipts-for-tests"


@given(at=st.integers(0, 19), by=st.integers(1, 127))
def test_an_echo_that_was_changed_anywhere_says_nothing(at: int, by: int) -> None:
    echo = an_echo()
    changed = echo[:at] + chr((ord(echo[at]) + by) % 128) + echo[at + 1 :]
    assert read_echo([KEY], "xiaomi/main", changed) is None


@given(st.text(max_size=80))
def test_what_is_no_echo_says_nothing(text: str) -> None:
    assert read_echo([KEY], "xiaomi/main", text) is None


def test_an_echo_belongs_to_its_account_and_its_key() -> None:
    echo = an_echo()
    assert read_echo([KEY], "xiaomi/main", echo) is not None
    assert read_echo([KEY], "xiaomi/other", echo) is None
    assert read_echo([KEY], "oppo/main", echo) is None
    assert read_echo([b"another key of the same kind"], "xiaomi/main", echo) is None


def test_a_new_key_makes_and_the_old_one_still_lets_in() -> None:
    old = an_echo()
    account = an_account("xiaomi", Path("/nowhere"), receipt_key=f"a-new-key-for-receipts {KEY.decode()}")
    assert isinstance(account, ReceiptAccount)
    new = callback(account, a_push())
    assert new is not None
    assert new.echo != old
    for echo in (old, new.echo):
        assert read_echo(receipt_keys(account), "xiaomi/main", echo) is not None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"receipt_key": "too-short"}, "fewer than 16 characters"),
        ({"receipt_key": f"{KEY.decode()} short"}, "fewer than 16 characters"),
        ({"receipt_key": None}, "are both missing"),
        ({"receipt_url": ""}, "without a receipt_url"),
        ({"receipt_url": f"https://{'a' * 70}.example.com/v1/receipts/xiaomi/main"}, "longer than 105 characters"),
    ],
)
def test_what_is_wrong_with_receipts_is_found_with_its_mend(changes: dict[str, Any], problem: str, keys: Path) -> None:
    (found,) = registry.load("xiaomi").check(an_account("xiaomi", keys, **changes), 0)
    assert problem in found
    assert ":" in found
    assert "too-short" not in found


@pytest.mark.parametrize(
    "url",
    [
        "https://push.example.com",
        "push.example.com/v1/receipts/xiaomi/main",
        "https://push.example.com/v1/receipts/xiaomi/main/",
        "https://push.example.com/v1/receipts/xiaomi",
        "https://push.example.com/v1/receipts/xiaomi/main?x=y",
    ],
)
def test_an_address_that_could_not_be_served_is_no_setting(url: str, keys: Path) -> None:
    with pytest.raises(ValueError, match="receipt_url"):
        an_account("xiaomi", keys, receipt_url=url)


def test_neither_key_nor_address_shows() -> None:
    account = an_account("xiaomi", Path("/nowhere"))
    assert isinstance(account, ReceiptAccount)
    asked = callback(account, a_push())
    assert isinstance(asked, Callback)
    for shown in (repr(account), repr(asked)):
        assert KEY.decode() not in shown
        assert secret_path(KEY, "xiaomi/main") not in shown


def test_vivo_asks_by_the_address_for_single_pushes_and_by_its_id_for_all(keys: Path) -> None:
    vivo = registry.load("vivo")
    deliveries = [a_delivery(number) for number in range(2)]

    def staged(**changes: Any) -> dict[str, str]:
        request = vivo.stage(an_account("vivo", keys, **changes), a_push(), deliveries, AUTH, NOW_MS)
        assert request is not None
        return fields_of(content(request))

    assert "callback.param" not in staged()
    for found in (staged(receipt_id="77"), sent("vivo", keys, receipt_id="77")):
        assert found["callback.id"] == "77"
        assert read_echo([b"vivo-receipts-for-tests"], "vivo/main", found["callback.param"]) is not None
        assert "callback" not in found
    assert "callback.param" not in sent("vivo", keys, environment="development")
