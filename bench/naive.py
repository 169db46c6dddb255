"""The obvious alternative: one Celery task per push, aioapns in a loop thread. Written as its authors would.

JSON, no results, no events, no prefetch surprises, one connection pool a process, 16 slots. It sends what the fleet
does for the same message, headers included. No state look-up, no limits, no retries: less than what it is compared
with.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from pathlib import Path
from typing import Any

from aioapns import APNs, NotificationRequest, PushType
from aioapns.connection import APNsProductionClientProtocol
from celery import Celery, signals

QUEUE = "naive"
app = Celery("naive", broker=os.environ.get("NAIVE_BROKER", ""))
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    task_default_queue=QUEUE,
)
_loop = asyncio.new_event_loop()
_client: list[APNs] = []


@signals.worker_init.connect(weak=False)
def open_client(**_: Any) -> None:
    """One client for the process, its loop in a thread."""
    threading.Thread(target=_loop.run_forever, daemon=True).start()

    key = Path(os.environ["NAIVE_KEY"]).read_text()

    async def make() -> APNs:
        context = ssl.create_default_context(cafile=os.environ["NAIVE_CA"])
        context.set_alpn_protocols(["h2"])
        return APNs(
            key=key,
            key_id="KEY0000001",
            team_id="TEAM000001",
            topic="com.example.bench",
            ssl_context=context,
            max_connections=2,
        )

    # The library has no argument for the address.
    APNsProductionClientProtocol.APNS_SERVER = "localhost"
    APNsProductionClientProtocol.APNS_PORT = int(os.environ["NAIVE_PORT"])
    _client.append(asyncio.run_coroutine_threadsafe(make(), _loop).result())


@app.task(name="naive.push")
def push(token: str, title: str, body: str, message_id: str, conversation_id: str, ext: str) -> None:
    """Send one push and wait for the answer."""
    alert = {"title": title, "body": body}
    request = NotificationRequest(
        token,
        {
            "aps": {"alert": alert, "badge": 1, "sound": "default", "thread-id": conversation_id},
            "mid": message_id,
            "cid": conversation_id,
            "ext": ext,
        },
        time_to_live=86_400,
        priority=10,
        collapse_key=conversation_id,
        push_type=PushType.ALERT,
    )
    result = asyncio.run_coroutine_threadsafe(_client[0].send_notification(request), _loop).result(30)
    if not result.is_successful:
        raise RuntimeError(result.description)
