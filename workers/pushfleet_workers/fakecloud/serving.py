"""The fake cloud as a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pushfleet_workers.fakecloud.cloud import FakeCloud
from pushfleet_workers.fakecloud.control import credential_fields
from pushfleet_workers.fakecloud.files import write_private

__all__ = ["serve"]


async def serve(
    *,
    credentials: Path,
    host: str = "127.0.0.1",
    ports: Mapping[str, int] | None = None,
    control_port: int = 0,
    ready_file: Path | None = None,
    vendors: Sequence[str] | None = None,
    public_host: str = "",
    keep: int = 10_000,
    journal: Path | None = None,
    on_ready: Callable[[Mapping[str, Any]], None] | None = None,
) -> None:
    """Run the fake cloud until cancelled.

    *credentials* is the folder of certificates and credentials; a vendor that has none there is given one.
    *ready_file* is written once everything listens, and removed at the end: JSON with ``pid``, ``ca_file``,
    ``control_url``, ``vendors`` (name to ``url`` and ``port``) and ``credentials`` (``vendor``, ``id``,
    ``settings``, ``file``). *on_ready* is called with the same. The other options are those of :class:`FakeCloud`.
    """
    async with FakeCloud(
        vendors=vendors,
        host=host,
        ports=ports,
        control_port=control_port,
        folder=credentials,
        public_host=public_host,
        keep=keep,
        journal=journal,
    ) as cloud:
        held = {credential.vendor for credential in cloud.credentials()}
        for name in cloud.vendors:
            if name not in held:
                cloud.credential(name)
        ready = _ready(cloud)
        if on_ready is not None:
            on_ready(ready)
        with _announced(ready_file, ready):
            await asyncio.get_running_loop().create_future()


@contextlib.contextmanager
def _announced(ready_file: Path | None, content: object) -> Iterator[None]:
    if ready_file is None:
        yield
        return
    write_private(ready_file, msgspec.json.format(msgspec.json.encode(content)))
    try:
        yield
    finally:
        ready_file.unlink(missing_ok=True)


def _ready(cloud: FakeCloud) -> dict[str, Any]:
    return {
        "pid": os.getpid(),
        "ca_file": str(cloud.ca_file),
        "control_url": cloud.control_url,
        "vendors": {name: {"url": cloud.url(name), "port": cloud.port(name)} for name in cloud.vendors},
        "credentials": [credential_fields(credential) for credential in cloud.credentials()],
    }
