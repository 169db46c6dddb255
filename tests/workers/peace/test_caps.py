"""Which pushes a cap is for, and which of them it is kept for."""

from __future__ import annotations

from typing import Any

import pytest

from pushfleet.message import HuaweiOptions, OfflinePush
from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.errors import SettingsError
from pushfleet_workers.peace.caps import AccountCaps, DayCap, Sort, sort_of
from pushfleet_workers.settings import load

HUAWEI = {"app": "demo", "client_id": "1"}
EIGHT_HOURS_BEFORE = -8 * 3_600_000


def caps(vendor: str = "huawei", **fields: Any) -> AccountCaps:
    return AccountCaps(vendor, registry.load(vendor).account_type.model_validate({**HUAWEI, **fields}))


@pytest.mark.parametrize(
    ("kind", "lane", "more", "sort"),
    [
        ("chat", "normal", {}, Sort.GATHERED),
        ("chat", "bulk", {}, Sort.GATHERED),
        ("summary", "normal", {}, Sort.GATHERED),
        ("chat", "urgent", {}, Sort.IMPORTANT),
        ("chat", "normal", {"mention": True}, Sort.IMPORTANT),
        ("chat", "normal", {"forced": True}, Sort.IMPORTANT),
        ("chat", "normal", {"recall": True}, Sort.IMPORTANT),
        ("mention", "normal", {}, Sort.IMPORTANT),
        ("call", "urgent", {}, Sort.IMPORTANT),
        ("missed_call", "normal", {}, Sort.IMPORTANT),
        ("call_cancel", "urgent", {}, Sort.SINGLE),
        ("system", "normal", {}, Sort.SINGLE),
        ("system", "urgent", {}, Sort.IMPORTANT),
        ("official", "bulk", {}, Sort.SINGLE),
        ("marketing", "bulk", {}, Sort.SINGLE),
    ],
)
def test_what_is_important_and_what_may_be_gathered(kind: Any, lane: Any, more: dict[str, bool], sort: Sort) -> None:
    assert sort_of(kind, lane, **more) is sort


def test_a_share_is_kept_only_in_classes_in_which_people_call_each_other() -> None:
    found = caps(device_caps={"service": 10})
    assert found.of("chat", group=True, options=None) == DayCap("service", 10, 4, EIGHT_HOURS_BEFORE)
    assert found.of("call", group=False, options=None) == found.of("chat", group=False, options=None)
    assert found.of("marketing", group=False, options=None) == DayCap("marketing", 2, 0, EIGHT_HOURS_BEFORE)


@pytest.mark.parametrize(("most", "share", "reserved"), [(1, 0.4, 0), (2, 0.4, 1), (3, 0.4, 1), (5, 0.4, 2), (5, 0, 0)])
def test_the_share_is_rounded(most: int, share: float, reserved: int) -> None:
    found = caps(device_caps={"service": most}, device_reserve=share).of("chat", group=False, options=None)
    assert found is not None
    assert found.reserved == reserved


def test_no_limit_is_no_cap() -> None:
    assert caps().of("chat", group=False, options=None) is None
    assert not caps(device_caps={"marketing": 0})
    assert not caps(environment="development").of("marketing", group=False, options=None)
    assert not AccountCaps("apns", AccountSettings(app="demo"))


def test_a_message_that_asks_for_a_class_counts_there() -> None:
    options = OfflinePush(huawei=HuaweiOptions(category="MARKETING"))
    found = caps().of("chat", group=False, options=options)
    assert found is not None
    assert (found.name, found.most) == ("marketing", 2)
    assert caps().of("chat", group=False, options=OfflinePush(huawei=HuaweiOptions(image="https://x"))) is None


def test_a_class_that_the_vendor_does_not_have_is_refused(tmp_path: Any) -> None:
    file = tmp_path / "pushfleet.toml"
    for caps_of, told in [
        ("{ markting = 3 }", "device_caps names 'markting', which is no class of huawei's: write marketing or service"),
        (
            "{ marketing = -1 }",
            "accounts.huawei.main.device_caps.marketing: Input should be greater than or equal to 0",
        ),
        ("3", "accounts.huawei.main.device_caps: Input should be a valid dictionary"),
    ]:
        file.write_text(
            f'[apps.demo]\n[accounts.huawei.main]\napp = "demo"\nclient_id = "1"\ndevice_caps = {caps_of}\n'
        )
        with pytest.raises(SettingsError) as refused:
            load(file)
        assert told in str(refused.value)
