"""What leaves users in peace: pushes that wait for a moment, in case they are not needed."""

from pushfleet_workers.peace.cap_desk import CapDesk
from pushfleet_workers.peace.desk import StormDesk, Stormy
from pushfleet_workers.peace.holds import hold_s
from pushfleet_workers.peace.parking import Going, Parking, first_look_ms
from pushfleet_workers.peace.storms import read_storm, storm_command, storm_place, told, told_by

__all__ = [
    "CapDesk",
    "Going",
    "Parking",
    "StormDesk",
    "Stormy",
    "first_look_ms",
    "hold_s",
    "read_storm",
    "storm_command",
    "storm_place",
    "told",
    "told_by",
]
