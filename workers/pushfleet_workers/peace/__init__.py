"""What leaves users in peace: pushes that wait for a moment, in case they are not needed."""

from pushfleet_workers.peace.holds import hold_s
from pushfleet_workers.peace.storms import (
    StormCall,
    is_stormy,
    read_storm,
    storm_call,
    storm_command,
    storm_drop_call,
    storm_place,
    told,
    told_by,
)

__all__ = [
    "StormCall",
    "hold_s",
    "is_stormy",
    "read_storm",
    "storm_call",
    "storm_command",
    "storm_drop_call",
    "storm_place",
    "told",
    "told_by",
]
