"""Which vendors the fake cloud knows: one row each."""

from __future__ import annotations

from pushfleet_workers.fakecloud.apns import Apns
from pushfleet_workers.fakecloud.fcm import Fcm
from pushfleet_workers.fakecloud.harmony import Harmony
from pushfleet_workers.fakecloud.honor import Honor
from pushfleet_workers.fakecloud.huawei import Huawei
from pushfleet_workers.fakecloud.meizu import Meizu
from pushfleet_workers.fakecloud.oppo import Oppo
from pushfleet_workers.fakecloud.tpns import Tpns
from pushfleet_workers.fakecloud.vendor import FakeVendor
from pushfleet_workers.fakecloud.vivo import Vivo
from pushfleet_workers.fakecloud.xiaomi import Xiaomi

__all__ = ["VENDORS"]

VENDORS: dict[str, type[FakeVendor]] = {
    "apns": Apns,
    "fcm": Fcm,
    "huawei": Huawei,
    "harmony": Harmony,
    "honor": Honor,
    "xiaomi": Xiaomi,
    "meizu": Meizu,
    "oppo": Oppo,
    "vivo": Vivo,
    "tpns": Tpns,
}
"""Name to class; the name is the fleet's name of the vendor."""
