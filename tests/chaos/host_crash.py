"""What is left of a Redis server's data when it is killed, and when its whole machine dies.

After a kill the kernel still writes what the process had written. After a power failure only what had been synced is
there, and with `appendfsync everysec` that may end a second before. So a power failure is to kill the server and to cut
its file to what it was a second ago: the worst that a disk which keeps up can do.
"""

from __future__ import annotations

import re
import time
from collections import deque
from pathlib import Path

from tests.chaos.forgetting import EVERY_S, MARK, Forgotten, Marks

from pushfleet_workers.redis_server import EmbeddedRedis

__all__ = ["EVERYSEC", "CrashingHost"]

EVERYSEC = {"appendfsync": "everysec", "auto-aof-rewrite-percentage": "0"}
"""For a server that is to crash: its file must keep its beginning, and the marks."""

_UNSYNCED_S = 1.0
"""How much of the past `everysec` leaves to the kernel."""

_AWAY_S = 1.0
"""No machine starts anew in less."""

_MARKED = re.compile(rb"%b\r\n\$\d+\r\n(\d+)\r\n" % MARK.encode())


class CrashingHost(Marks):
    """The machine of *server*, which appends to one file, see :data:`EVERYSEC`; a context manager."""

    def __init__(self, server: EmbeddedRedis) -> None:
        super().__init__(server.url, self._note_size)
        self._server = server
        self._sizes: deque[tuple[float, int]] = deque(maxlen=int(5 * _UNSYNCED_S / EVERY_S))

    @property
    def can_fail(self) -> bool:
        """Whether the server has run for long enough to lose what it may lose."""
        return bool(self._sizes) and time.time() - self._sizes[0][0] > 1.5 * _UNSYNCED_S

    def kill_server(self) -> Forgotten:
        """Only the process dies, and starts again; its file stays as it is."""
        self._server.kill()
        return self._start_anew(time.time(), away_s=0.0)

    def power_off(self) -> Forgotten:
        """All of it dies, and starts again: of the file there is left what it was a second ago."""
        self._server.kill()
        died_s = time.time()
        synced = (size for then_s, size in self._sizes if then_s <= died_s - _UNSYNCED_S)
        with self._file.open("r+b") as file:
            file.truncate(max([0, *synced]))
        return self._start_anew(died_s, away_s=_AWAY_S)

    def _start_anew(self, died_s: float, *, away_s: float) -> Forgotten:
        marks = _MARKED.findall(self._file.read_bytes())
        self._sizes.clear()
        time.sleep(away_s)
        back_s = time.time()
        self._server.start()
        return Forgotten(self.sent_at_s(marks[-1] if marks else None), died_s, back_s)

    def _note_size(self) -> None:
        self._sizes.append((time.time(), self._file.stat().st_size))

    @property
    def _file(self) -> Path:
        """What the server appends to."""
        (file,) = (self._server.folder / "appendonlydir").glob("*.incr.aof")
        return file
