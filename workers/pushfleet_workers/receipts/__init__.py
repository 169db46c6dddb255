"""Receipts: what vendors and apps tell of a push after it was sent. They come after an end and change none.

Each vendor's are read by a small pure module; other packages bring theirs through the entry-point group
``pushfleet.receipts``.
"""

from pushfleet_workers.receipts.readers import READERS, load
from pushfleet_workers.receipts.receipt import Event, Proof, Reader, Receipt, Row

__all__ = ["READERS", "Event", "Proof", "Reader", "Receipt", "Row", "load"]
