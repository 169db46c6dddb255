"""Signals that ask a process to end, heeded where ending is safe.

A handler that raises strikes wherever the process happens to be. In the middle of a fork or of a lock's release Python
swallows what it raises, and the process goes on as if nobody had asked.
"""

from __future__ import annotations

import signal

__all__ = ["AskedToStop", "StopSignals"]

_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class AskedToStop(Exception):
    """A signal asks the process to end."""


class StopSignals:
    """Notes SIGINT, SIGTERM and SIGHUP from when it is made; make it in the main thread."""

    def __init__(self) -> None:
        self._asked = False
        for number in _NUMBERS:
            signal.signal(number, self._note)

    def _note(self, *_: object) -> None:
        self._asked = True

    def check(self) -> None:
        """Raise :class:`AskedToStop` once a signal came; call it often."""
        if self._asked:
            raise AskedToStop
