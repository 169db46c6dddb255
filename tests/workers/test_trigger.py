import threading
import time

import pytest

from pushfleet_workers.trigger import Publisher


def test_triggers_are_published_in_order_by_a_thread_of_their_own() -> None:
    published: list[tuple[str, str]] = []
    publisher = Publisher(lambda vendor: published.append((vendor, threading.current_thread().name)))
    for vendor in ("apns", "fcm", "huawei"):
        publisher.trigger(vendor)
    publisher.close()
    assert published == [(vendor, "pushfleet-trigger") for vendor in ("apns", "fcm", "huawei")]


def test_who_triggers_does_not_wait_for_the_broker() -> None:
    may_go = threading.Event()
    publisher = Publisher(lambda vendor: bool(may_go.wait(5)))
    started = time.monotonic()
    for _ in range(100):
        publisher.trigger("apns")
    assert time.monotonic() - started < 1
    may_go.set()
    publisher.close()


def test_a_broker_that_fails_costs_that_trigger_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    published: list[str] = []

    def publish(vendor: str) -> None:
        if vendor == "fcm":
            raise ConnectionError("redis://:password@broker")
        published.append(vendor)

    publisher = Publisher(publish)
    for vendor in ("apns", "fcm", "huawei"):
        publisher.trigger(vendor)
    publisher.close()
    assert published == ["apns", "huawei"]
    assert "the trigger for fcm was not published: ConnectionError" in caplog.text
    assert "password" not in caplog.text


def test_closing_ends_the_thread() -> None:
    publisher = Publisher(lambda vendor: None)
    publisher.close()
    publisher.trigger("apns")
    publisher.close()
    assert not any(thread.name == "pushfleet-trigger" for thread in threading.enumerate())
