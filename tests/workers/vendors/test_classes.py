"""In which class a vendor counts a message to a device, and how many of it a day the device gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.workers.vendors.samples import KINDS, an_account

from pushfleet.message import (
    HarmonyOptions,
    HonorOptions,
    HuaweiOptions,
    MeizuOptions,
    OppoOptions,
    VivoOptions,
    XiaomiOptions,
)
from pushfleet_workers import registry
from pushfleet_workers.outcome import DayHour

HUAWEI = {"app": "demo", "client_id": "1"}
HARMONY = {"app": "demo", "service_account_file": "key.json"}
HONOR = {"app": "demo", "app_id": "1", "client_id": "2"}
OPPO = {"app": "demo", "app_key": "k"}
VIVO = {"app": "demo", "app_id": 1, "app_key": "k"}
MEIZU = {"app": "demo", "app_id": "1"}
XIAOMI = {"app": "demo", "package_name": "com.example.chat"}


def of(vendor: str, fields: dict[str, Any], kind: str, own: Any = None, *, group: bool = False) -> tuple[str, int]:
    """The class of a message and how many of it a device gets by default; 0: no limit."""
    module = registry.load(vendor)
    account = module.account_type.model_validate(fields)
    name = module.class_of(account, kind, group=group, own=own)  # type: ignore[arg-type]
    return name, module.device_caps(account).get(name, 0)


@pytest.mark.parametrize(
    ("vendor", "fields", "chat", "marketing"),
    [
        ("huawei", HUAWEI, "service", "marketing"),
        ("harmony", HARMONY, "service", "marketing"),
        ("honor", HONOR, "service", "marketing"),
        ("oppo", OPPO, "service", "marketing"),
        ("vivo", VIVO, "system", "operation"),
    ],
)
def test_marketing_is_capped_at_two_and_what_people_write_is_not(
    vendor: str, fields: dict[str, Any], chat: str, marketing: str
) -> None:
    for kind in ("chat", "mention", "call", "call_cancel", "missed_call", "summary"):
        assert of(vendor, fields, kind) == (chat, 0)
    assert of(vendor, fields, "marketing") == (marketing, 2)
    assert of(vendor, fields, "official") == (marketing, 2)


@pytest.mark.parametrize(
    ("vendor", "fields", "kind", "own", "counted"),
    [
        ("huawei", HUAWEI, "chat", HuaweiOptions(category="MARKETING"), ("marketing", 2)),
        ("huawei", HUAWEI, "marketing", HuaweiOptions(category="WORK"), ("service", 0)),
        ("huawei", HUAWEI, "marketing", HuaweiOptions(importance="LOW"), ("marketing", 2)),
        ("harmony", HARMONY, "chat", HarmonyOptions(category="MARKETING"), ("marketing", 2)),
        ("harmony", HARMONY, "system", HarmonyOptions(category="ACCOUNT"), ("service", 0)),
        ("honor", HONOR, "chat", HonorOptions(importance="LOW"), ("marketing", 2)),
        ("honor", HONOR, "system", HonorOptions(importance="NORMAL"), ("service", 0)),
        ("oppo", OPPO, "chat", OppoOptions(category="NEWS"), ("marketing", 2)),
        ("oppo", OPPO, "marketing", OppoOptions(category="ORDER"), ("service", 0)),
        ("vivo", VIVO, "chat", VivoOptions(category="SOCIAL"), ("operation", 2)),
        ("vivo", VIVO, "chat", VivoOptions(classification=0), ("operation", 2)),
        ("vivo", VIVO, "marketing", VivoOptions(classification=1), ("system", 0)),
        ("vivo", VIVO, "marketing", VivoOptions(notify_type=1), ("operation", 2)),
        ("meizu", MEIZU, "chat", MeizuOptions(notice_type=0), ("public", 3)),
        ("meizu", MEIZU, "system", MeizuOptions(notice_type=1), ("private", 0)),
    ],
)
def test_a_message_may_ask_for_another_class(
    vendor: str, fields: dict[str, Any], kind: str, own: Any, counted: tuple[str, int]
) -> None:
    assert of(vendor, fields, kind, own) == counted


def test_meizu_counts_public_messages() -> None:
    assert of("meizu", MEIZU, "chat") == of("meizu", MEIZU, "call") == ("private", 0)
    assert of("meizu", MEIZU, "system") == of("meizu", MEIZU, "marketing") == ("public", 3)


def test_vivo_takes_what_has_no_class_for_an_operation_message() -> None:
    assert of("vivo", {**VIVO, "kinds": {"chat": {"category": ""}}}, "chat") == ("operation", 2)
    assert of("vivo", {**VIVO, "kinds": {"chat": {"category": "", "classification": 1}}}, "chat") == ("system", 0)


PUBLIC, PRIVATE = {"channel_id": "1", "template_id": ""}, {"channel_id": "2", "template_id": "T"}


@pytest.mark.parametrize(
    ("kinds", "kind", "own", "counted"),
    [
        ({}, "chat", None, ("default", 0)),
        ({"chat": {"channel_id": ""}}, "chat", None, ("default", 0)),
        ({"chat": PUBLIC}, "chat", None, ("public", 5)),
        ({"chat": PUBLIC}, "call", None, ("public", 5)),
        ({"chat": PRIVATE}, "mention", None, ("private", 0)),
        ({"chat": {"channel_id": "1"}}, "chat", None, ("private", 0)),
        ({"system": {"channel_id": "1"}}, "system", None, ("public", 5)),
        ({"marketing": PRIVATE}, "marketing", None, ("private", 0)),
        ({"chat": PUBLIC}, "chat", XiaomiOptions(channel_id="9", template_id="T"), ("private", 0)),
        ({"chat": PRIVATE}, "chat", XiaomiOptions(channel_id="9", template_id=""), ("public", 5)),
        ({"chat": PRIVATE}, "chat", XiaomiOptions(template_params={"x": "y"}), ("private", 0)),
        ({"chat": PUBLIC}, "chat", XiaomiOptions(template_id="T"), ("private", 0)),
    ],
)
def test_xiaomi_counts_by_channel_and_template(
    kinds: dict[str, Any], kind: str, own: XiaomiOptions | None, counted: tuple[str, int]
) -> None:
    assert of("xiaomi", {**XIAOMI, "kinds": kinds}, kind, own) == counted


def test_a_group_has_the_class_of_its_own_channel() -> None:
    fields = {**XIAOMI, "kinds": {"chat": {**PRIVATE, "group": PUBLIC}}}
    assert of("xiaomi", fields, "chat") == ("private", 0)
    assert of("xiaomi", fields, "chat", group=True) == ("public", 5)


@pytest.mark.parametrize(("vendor", "fields"), [("xiaomi", XIAOMI), ("oppo", OPPO)])
def test_numbers_are_those_of_mainland_china(vendor: str, fields: dict[str, Any]) -> None:
    module = registry.load(vendor)
    region = "sg" if vendor == "xiaomi" else "intl"
    abroad = module.account_type.model_validate({**fields, "region": region})
    assert set(module.device_caps(abroad).values()) == {0}
    assert set(module.device_caps(abroad)) == set(module.device_caps(module.account_type.model_validate(fields)))


@pytest.mark.parametrize(
    ("vendor", "fields"), [("huawei", HUAWEI), ("harmony", HARMONY), ("honor", HONOR), ("vivo", VIVO)]
)
def test_test_messages_count_in_no_class(vendor: str, fields: dict[str, Any]) -> None:
    assert of(vendor, {**fields, "environment": "development"}, "marketing") == ("", 0)


@pytest.mark.parametrize("name", registry.names())
def test_every_message_is_in_one_of_the_vendors_classes(name: str, keys: Path) -> None:
    vendor, account = registry.load(name), an_account(name, keys)
    classes = vendor.device_caps(account)
    for kind in KINDS:
        for group in (False, True):
            assert vendor.class_of(account, kind, group=group) in classes
    assert classes[vendor.class_of(account, "chat")] == 0, "whoever has the rights is not limited"
    in_china = {"huawei", "harmony", "honor", "xiaomi", "oppo", "vivo", "meizu"}
    assert vendor.day == (DayHour(0, 8) if name in in_china else DayHour(0, 0))
