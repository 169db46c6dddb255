"""Which vendors there are: the entry points of the group ``pushfleet.vendors``, checked when first used."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from pushfleet_workers.errors import SettingsError
from pushfleet_workers.vendor import Vendor

__all__ = ["GROUP", "built_in", "load", "names"]

GROUP = "pushfleet.vendors"

_MEMBERS = tuple(sorted(Vendor.__annotations__.keys() | {name for name in vars(Vendor) if name[0] != "_"}))
"""What the interface asks for: its attributes and methods."""


@cache
def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def names() -> tuple[str, ...]:
    """The names of all vendors, sorted."""
    return tuple(sorted(_entry_points()))


def built_in() -> tuple[str, ...]:
    """The names of those vendors that come with the fleet, sorted."""
    return tuple(name for name in names() if _entry_points()[name].module.startswith("pushfleet_workers."))


@cache
def load(name: str) -> Vendor:
    """The vendor called *name*.

    Raises :class:`SettingsError` when there is none, or when it lacks a member of the interface.
    """
    point = _entry_points().get(name)
    if point is None:
        raise SettingsError(f"there is no vendor {name!r}: known are {', '.join(names())}")
    vendor = point.load()()
    missing = [member for member in _MEMBERS if not hasattr(vendor, member)]
    if missing or vendor.name != name:
        problem = f"lacks {', '.join(missing)}" if missing else f"calls itself {vendor.name!r}"
        raise SettingsError(f"vendor {name!r} ({point.value}) {problem}: see pushfleet_workers.vendor.Vendor")
    return cast("Vendor", vendor)
