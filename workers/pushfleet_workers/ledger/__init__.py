"""The ledger: every delivery between the router's decision and its end, per account, in Redis.

A parcel is in exactly one of three places: ready (a list per lane), leased (a hash per process) or delayed (a sorted
set by due time). Each script moves it and keeps the books in one step: put = ready + leased + delayed + ended.
"""

from pushfleet_workers.ledger.entry import Entry, pack, unpack
from pushfleet_workers.ledger.keys import AccountKeys, VendorKeys
from pushfleet_workers.ledger.ledger import Claim, GateNews, Ledger, Settlement
from pushfleet_workers.ledger.letters import DeadLetter, DeadLetters, Return

__all__ = [
    "AccountKeys",
    "Claim",
    "DeadLetter",
    "DeadLetters",
    "Entry",
    "GateNews",
    "Ledger",
    "Return",
    "Settlement",
    "VendorKeys",
    "pack",
    "unpack",
]
