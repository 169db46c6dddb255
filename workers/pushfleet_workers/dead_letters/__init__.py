"""Dead letters in the hands of operators: what could not be delivered, and what routers could not route.

`letter` reads them, `renewal` says what a replay makes of one, `shown` what is told of it; `shelf` and `desk` are the
edges to Redis.
"""

from pushfleet_workers.dead_letters.desk import DropDone, LetterDesk, LetterPage, ReplayDone
from pushfleet_workers.dead_letters.letter import LetterFilter, LetterName
from pushfleet_workers.dead_letters.renewal import LEFT, TTL_S_MAX, Left
from pushfleet_workers.dead_letters.shown import LetterDetail, LetterShown

__all__ = [
    "LEFT",
    "TTL_S_MAX",
    "DropDone",
    "Left",
    "LetterDesk",
    "LetterDetail",
    "LetterFilter",
    "LetterName",
    "LetterPage",
    "LetterShown",
    "ReplayDone",
]
