"""What every long-lived process of the fleet does to itself when it starts."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
from collections.abc import Callable

__all__ = ["calm_the_collector", "die_with_parent", "keep_to_core"]

_PR_SET_PDEATHSIG = 1


def calm_the_collector() -> None:
    """Let the garbage collector look less often, and never at what was loaded at the start.

    Batches of messages make many short-lived containers and no cycles; with the default threshold a quarter of a
    router's time goes into looking for them.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


def keep_to_core(number: int) -> None:
    """Keep this thread and those that it starts from now on to one core, where the system can.

    *number* counts, from 0 and round and round, the cores that the process may use.
    """
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})


def die_with_parent() -> Callable[[], None] | None:
    """What a child does before it becomes its program (`preexec_fn`): ask to be ended when its parent dies.

    None where the system cannot do that; only Linux can.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask
