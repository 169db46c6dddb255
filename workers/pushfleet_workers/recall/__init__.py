"""Taking messages back: what is remembered for it, and the push that does it."""

from pushfleet_workers.recall.desk import RecallDesk, taken_back
from pushfleet_workers.recall.keys import RecallKeys
from pushfleet_workers.recall.memory import RecallMemory
from pushfleet_workers.recall.overrides import overrides_of_recall

__all__ = ["RecallDesk", "RecallKeys", "RecallMemory", "overrides_of_recall", "taken_back"]
