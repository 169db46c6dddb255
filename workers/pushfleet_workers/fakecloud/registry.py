"""Which vendors the fake cloud knows: one row each, and those of other packages by entry point."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from pushfleet_workers.errors import SettingsError
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

__all__ = ["GROUP", "VENDORS", "with_plug_ins"]

GROUP = "pushfleet.fakes"
"""The entry-point group of fakes that other packages bring."""

_MEMBERS = tuple(sorted(FakeVendor.__annotations__.keys() | {name for name in vars(FakeVendor) if name[0] != "_"}))

_OURS: dict[str, type[FakeVendor]] = {
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


def with_plug_ins(points: Iterable[EntryPoint]) -> dict[str, type[FakeVendor]]:
    """Ours and those of *points*, by the fleet's name of the vendor.

    Raises :class:`SettingsError` for one that takes a name of ours, or lacks a member of the interface.
    """
    vendors = dict(_OURS)
    for point in points:
        fake = point.load()
        missing = [member for member in _MEMBERS if not hasattr(fake, member)]
        problem = f"lacks {', '.join(missing)}" if missing else ""
        if not missing and fake.name != point.name:
            problem = f"calls itself {fake.name!r}"
        if point.name in _OURS:
            problem = "takes the name of one of ours"
        if problem:
            where = "see pushfleet_workers.fakecloud.vendor.FakeVendor"
            raise SettingsError(f"the fake vendor {point.name!r} ({point.value}) {problem}: {where}")
        vendors[point.name] = fake
    return vendors


VENDORS = with_plug_ins(entry_points(group=GROUP))
"""Name to class; the name is the fleet's name of the vendor."""
