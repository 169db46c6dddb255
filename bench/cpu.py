"""CPU-seconds of running processes, all threads, from the scheduler's own accounts (Linux); what all of it ran on."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from pushfleet_workers.redis_server import find_server


def cpu_s(pids: Iterable[int]) -> float:
    """CPU-seconds that these processes have used so far."""
    return sum(_cpu_ns(pid) for pid in pids) / 1e9


def _cpu_ns(pid: int) -> int:
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            continue
    return total


def server() -> str:
    """The Redis server that the rows use, as it calls itself: a byte more or less of a record depends on it."""
    said = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=True).stdout
    return said.partition(" sha=")[0].strip()


def machine() -> str:
    """The processors, in a line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0] if names else 'unknown CPU'}"
