"""Where secret files of stored credentials lie while a process runs: vendors read keys by their path.

In memory where the system has such a place (`/dev/shm`), else below the data folder: a folder of mode 0700 with files
of mode 0600. It goes with its owner; what a killed process left behind goes with the next one that starts.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

__all__ = ["SecretFile", "SecretFolder"]

MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
_PREFIX = f"pushfleet-credentials-{os.getuid()}-"
_NAME_LENGTH_MAX = 100
_no_file_name = re.compile(r"[^A-Za-z0-9._-]")


class SecretFile(Struct, frozen=True):
    """A file as it was given."""

    name: str
    content: bytes

    def __repr__(self) -> str:
        return f"SecretFile({self.name!r}, {len(self.content)} bytes)"


class SecretFolder:
    """A private folder of this process, made when it is first needed.

    * **home** - where it is made when there is no folder in memory.
    """

    def __init__(self, home: Path) -> None:
        self._home = MEMORY if os.access(MEMORY, os.W_OK | os.X_OK) else home
        self._folder: Path | None = None
        self._lock = -1

    def put(self, files: Mapping[str, SecretFile]) -> dict[str, Path]:
        """Write *files* into a folder of their own; gives the path of each. They keep their names."""
        if not files:
            return {}
        folder = Path(tempfile.mkdtemp(dir=self._made()))
        paths = {}
        for number, (setting, file) in enumerate(files.items()):
            path = folder / str(number) / _file_name(file.name, setting)
            path.parent.mkdir(mode=0o700)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as writer:
                writer.write(file.content)
            paths[setting] = path
        return paths

    def drop(self, paths: Mapping[str, Path]) -> None:
        """Remove what one :meth:`put` wrote."""
        for path in paths.values():
            shutil.rmtree(path.parents[1], ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            os.close(self._lock)
            self._folder = None
            atexit.unregister(self.close)

    def _made(self) -> Path:
        if self._folder is None:
            self._home.mkdir(parents=True, exist_ok=True)
            _sweep(self._home)
            while self._folder is None:
                folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._home))
                lock = _locked(folder)
                if lock is not None:
                    self._folder, self._lock = folder, lock
            atexit.register(self.close)
        return self._folder


def _sweep(home: Path) -> None:
    """Remove the folders of processes that are gone: nobody holds their locks any more."""
    for folder in home.glob(f"{_PREFIX}*"):
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A lock on *folder* that ends with the process; None where another has it, or has removed the folder."""
    with contextlib.suppress(OSError):
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(folder)):
                return lock
        except OSError:
            pass
        os.close(lock)
    return None


def _file_name(given: str, setting: str) -> str:
    """*given* without anything that could lead elsewhere; vendors read key ids in the names of downloads."""
    name = _no_file_name.sub("_", given.rpartition("/")[2])[-_NAME_LENGTH_MAX:].lstrip(".")
    return name or setting
