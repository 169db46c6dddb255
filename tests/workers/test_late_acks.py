"""A trigger that is acknowledged after its connection broke ends no worker."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from pushfleet_workers.app import make_app
from pushfleet_workers.late_acks import forgive_late_acks
from pushfleet_workers.settings import Settings
from pushfleet_workers.tasks import publish_drain

UNACKED = "t:celery:unacked"


@pytest.fixture
def taken(redis_url: str) -> Iterator[Any]:
    """A trigger as a worker has it that has not acknowledged it yet."""
    app = make_app(Settings(redis={"url": redis_url, "prefix": "t"}, apps={"demo": {}}))
    with app.connection() as connection:
        publish_drain(app, "apns")
        channel = connection.channel()
        yield channel.basic_get("push.apns")


def close(channel: Any) -> None:
    """As it is left where Redis went and came back several times while the drain ran."""
    channel.close()
    channel._disconnect_pools()


def test_without_it_celery_sees_an_error_that_ends_the_worker(taken: Any) -> None:
    close(taken.channel)
    with pytest.raises(AttributeError):
        taken.ack_log_error(logging.getLogger(), (ConnectionError,))


@pytest.mark.parametrize("how", ["ack_log_error", "reject_log_error"])
def test_over_a_closed_channel_nothing_is_acknowledged(taken: Any, redis_client: redis.Redis, how: str) -> None:
    forgive_late_acks(taken.channel)
    close(taken.channel)
    getattr(taken, how)(logging.getLogger(), (ConnectionError,))
    assert redis_client.llen("t:celery:push.apns") == 1, "it went back when the channel was closed"


@pytest.mark.parametrize("how", ["ack_log_error", "reject_log_error"])
def test_over_an_open_one_it_is(taken: Any, redis_client: redis.Redis, how: str) -> None:
    forgive_late_acks(taken.channel)
    assert redis_client.hlen(UNACKED) == 1
    getattr(taken, how)(logging.getLogger(), (ConnectionError,))
    assert redis_client.hlen(UNACKED) == 0
    assert taken.acknowledged
