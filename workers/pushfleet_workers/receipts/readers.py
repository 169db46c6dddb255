"""Whose receipts can be read: ours, and those of other packages by the entry-point group ``pushfleet.receipts``."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from pushfleet_workers.errors import SettingsError
from pushfleet_workers.receipts.harmony import HarmonyReceipts
from pushfleet_workers.receipts.honor import HonorReceipts
from pushfleet_workers.receipts.huawei import HuaweiReceipts
from pushfleet_workers.receipts.meizu import MeizuReceipts
from pushfleet_workers.receipts.oppo import OppoReceipts
from pushfleet_workers.receipts.receipt import Reader
from pushfleet_workers.receipts.vivo import VivoReceipts
from pushfleet_workers.receipts.xiaomi import XiaomiReceipts

__all__ = ["GROUP", "READERS", "load"]

GROUP = "pushfleet.receipts"

READERS: dict[str, Reader] = {
    "harmony": HarmonyReceipts(),
    "honor": HonorReceipts(),
    "huawei": HuaweiReceipts(),
    "meizu": MeizuReceipts(),
    "oppo": OppoReceipts(),
    "vivo": VivoReceipts(),
    "xiaomi": XiaomiReceipts(),
}
"""Ours, by the fleet's name of the vendor."""

_MEMBERS = tuple(sorted(Reader.__annotations__.keys() | {name for name in vars(Reader) if name[0] != "_"}))


@cache
def load(name: str) -> Reader | None:
    """What reads the receipts of the vendor called *name*; None where nothing does.

    Raises :class:`SettingsError` for one of another package that lacks a member of the interface.
    """
    if name in READERS:
        return READERS[name]
    for point in entry_points(group=GROUP, name=name):
        reader: Reader = point.load()()
        missing = [member for member in _MEMBERS if not hasattr(reader, member)]
        if missing:
            raise SettingsError(f"the receipts of {name!r} ({point.value}) lack {', '.join(missing)}")
        return reader
    return None
