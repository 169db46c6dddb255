"""Taking messages back: what is remembered for it, and the push that does it."""

from pushfleet_workers.recall.claimed import ClaimedRecalls
from pushfleet_workers.recall.desk import RecallDesk, taken_back
from pushfleet_workers.recall.keys import message_key, screen_key
from pushfleet_workers.recall.memory import RecallMemory
from pushfleet_workers.recall.overrides import overrides_of_recall

__all__ = [
    "ClaimedRecalls",
    "RecallDesk",
    "RecallMemory",
    "message_key",
    "overrides_of_recall",
    "screen_key",
    "taken_back",
]
