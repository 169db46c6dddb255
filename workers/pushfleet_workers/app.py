"""The Celery application: `celery -A pushfleet_workers.app worker -Q push.apns`.

Celery wakes and scales the queues of the vendors; what must not be lost, limited or repeated lives in the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import Celery

from pushfleet_workers import registry
from pushfleet_workers.broker import broker_settings
from pushfleet_workers.late_acks import LateAcks
from pushfleet_workers.settings import Settings, load
from pushfleet_workers.tasks import register_tasks
from pushfleet_workers.topology import queues
from pushfleet_workers.trigger_sieve import sieve_step
from pushfleet_workers.worker_process import attach

if TYPE_CHECKING:
    app: Celery

__all__ = ["make_app"]

VISIBILITY_TIMEOUT_S = 120
SLOTS = 8


def make_app(settings: Settings, *, broker_url: str = "") -> Celery:
    """The Celery application for *settings*; *broker_url* wins over the one in them."""
    made = Celery("pushfleet", set_as_current=False)
    made.conf.update(celery_settings(settings, broker_url or settings.redis.broker_url))
    register_tasks(made)
    made.steps["consumer"].add(sieve_step(settings))
    made.steps["consumer"].add(LateAcks)
    attach(made, settings)
    return made


def celery_settings(settings: Settings, broker_url: str) -> dict[str, Any]:
    """What Celery is told, and nothing that costs Redis a command without need."""
    vendors = registry.names()
    broker = broker_settings(broker_url)
    prefix = f"{settings.redis.prefix}:celery:"
    return {
        **broker,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A demoted master answers READONLY, which is a channel error: survive the failover.
        "broker_channel_error_retry": True,
        "broker_transport_options": {
            **broker["broker_transport_options"],
            "global_keyprefix": prefix,
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "priority_steps": [0],
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 5,
        },
        "task_queues": queues(vendors),
        "task_default_queue": "unrouted",
        "task_create_missing_queues": False,
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_send_sent_event": False,
        "worker_pool": "threads",
        "worker_concurrency": max(SLOTS, len(vendors) + 2),
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,
        "worker_disable_rate_limits": True,
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "imports": (),
    }


def __getattr__(name: str) -> Any:
    # `celery -A pushfleet_workers.app` asks for the attribute; importing the module must not read any settings.
    if name in ("app", "celery"):
        made = globals()["app"] = make_app(load())
        return made
    raise AttributeError(name)
