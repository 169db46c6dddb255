"""HTTP engines behind one protocol; each is imported only where it is chosen."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from pushfleet_workers.errors import SettingsError
from pushfleet_workers.transports.base import Transport, TransportOptions

__all__ = ["ENGINES", "Transport", "TransportOptions", "open_transport"]

ENGINES = {
    "pyreqwest": "pushfleet_workers.transports.pyreqwest_engine:PyreqwestTransport",
    "httpx": "pushfleet_workers.transports.httpx_engine:HttpxTransport",
    "aioapns": "pushfleet_workers.transports.aioapns_engine:AioapnsTransport",
}


def open_transport(name: str, options: TransportOptions) -> Transport:
    """A transport by the engine called *name*; it connects when it is first used.

    Raises :class:`SettingsError` when there is no such engine, when it cannot be imported here, or when *options*
    ask for what it cannot do.
    """
    if name not in ENGINES:
        raise SettingsError(f"there is no transport {name!r}: known are {', '.join(sorted(ENGINES))}")
    module_name, _, class_name = ENGINES[name].partition(":")
    try:
        engine = getattr(import_module(module_name), class_name)
    except ImportError as problem:
        raise SettingsError(f"the transport {name!r} needs a package that is not installed: {problem.name}") from None
    return cast("Transport", engine(options))
