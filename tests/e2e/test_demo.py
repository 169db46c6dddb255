"""`make demo` can be broken off at any moment and leaves nothing behind."""

from __future__ import annotations

import importlib
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.e2e.conftest import Command, Run, direct
from tests.e2e.processes import marked, until

from pushfleet_workers.audit import AccountBook, Books, LaneBook

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALLER = """
import sys, demo, im_hour
im_hour.USERS, im_hour.MESSAGES = 600, 2_000
sys.exit(demo.main())
"""


def test_the_last_line_counts_and_the_exit_code_is_its_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    demo = importlib.import_module("demo")
    lane = LaneBook(
        added=5, present=0, routed=5, malformed=0, repeated=0, deliveries=4, recipients=5, oldest_ms=0,
        suppressed={"demo:muted": 1},
    )  # fmt: skip
    account = AccountBook(
        put=4, ready=0, leased=0, delayed=0, ended=4, unknown=0, dead_letters=1, oldest_ms=0, open=False,
        pause_reason="", ends={"normal:sent:": 3, "normal:dead:bad_payload": 1}, recounted=(0, 0, 0),
    )  # fmt: skip
    done = demo.summary(Books(lanes={"normal": lane}, accounts={"apns:main": account}), 5, 1.23)
    promised = {"accepted", "routed", "deliveries", "sent", "suppressed", "dropped", "dead", "pending", "duration_s"}
    assert promised <= done.keys()
    assert (done["accepted"], done["routed"], done["deliveries"], done["sent"], done["dead"]) == (5, 5, 4, 3, 1)
    assert demo.exit_code(done) == 0
    assert demo.exit_code(done | {"pending": 1}) == 1
    assert demo.exit_code(done | {"balanced": False}) == 1


def test_the_hour_has_a_storm_sleepers_and_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    im_hour = importlib.import_module("im_hour")
    hour = im_hour.make_hour()
    assert len(hour.messages) == im_hour.MESSAGES
    middle = hour.messages[len(hour.messages) // 2 :][: im_hour.STORM]
    assert len({message["conversation"]["id"] for message in middle}) == 1
    assert all(message.get("kind", "chat") == "chat" for message in middle)
    assert len(hour.preferences) == im_hour.USERS // 25
    assert len(hour.reads) == im_hour.READ


def test_what_users_were_spared_is_counted_before_and_after_routing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    demo = importlib.import_module("demo")
    lane = LaneBook(
        added=5, present=0, routed=5, malformed=0, repeated=0, deliveries=4, recipients=5, oldest_ms=0,
        suppressed={"demo:muted": 2, "lite:muted": 1, "demo:stormed": 4, "demo:no_device": 9},
    )  # fmt: skip
    account = AccountBook(
        put=4, ready=0, leased=0, delayed=0, ended=4, unknown=0, dead_letters=0, oldest_ms=0, open=False,
        pause_reason="", ends={"normal:sent:": 3, "normal:suppressed:stormed": 1}, recounted=(0, 0, 0),
    )  # fmt: skip
    table = demo.peace(Books(lanes={"normal": lane}, accounts={"apns:main": account}))
    reasons, counts = (list(column.cells) for column in table.columns[:2])
    assert dict(zip(reasons, counts, strict=True)) == {
        "stormed": "5", "read": "0", "muted": "3", "mentions_only": "0", "do_not_disturb": "0",
    }  # fmt: skip


def test_make_run_stays_up_until_it_is_broken_off(tmp_path: Path, demo: Callable[..., Command]) -> None:
    running = demo("--stay")
    until(lambda: "Ctrl-C ends it." in running.said(), 90, what="the fleet")
    api = running.told("API docs").removesuffix("/docs")
    with direct.open(api + "/healthz", timeout=5) as answer:
        assert answer.status == 200
    assert running.ends(signal.SIGINT) == 0, running.said()
    assert running.left() == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "Traceback" not in running.said()


def sooner_or_later(folder: Path, command: Command, moment: str) -> bool:
    """Whether the demo in *folder* has come to *moment*."""
    if moment == "fake cloud":
        return bool(marked(command.mark, "fakecloud"))
    if moment == "workers":
        return bool(marked(command.mark, "worker"))
    ready = next(folder.glob("pushfleet-demo-*/fakecloud.json"), None)
    if ready is None:
        return False
    with direct.open(json.loads(ready.read_text())["control_url"] + "/stats", timeout=5) as answer:
        vendors = json.loads(answer.read())["vendors"]
    return bool(sum(page["accepted"] for page in vendors.values()) > 100)


@pytest.fixture
def demo(tmp_path: Path, run: Run) -> Callable[..., Command]:
    (tmp_path / "tmp").mkdir()
    # Somebody's own settings, and a proxy that leads nowhere: neither has anything to do with a demo.
    strange = {"PUSHFLEET_REDIS__URL": "redis://127.0.0.1:1/0", "http_proxy": "http://127.0.0.1:1"}
    return lambda *words: run("-c", SMALLER, *words, TMPDIR=str(tmp_path / "tmp"), PYTHONPATH=str(EXAMPLES), **strange)


@pytest.mark.parametrize(
    ("moment", "number", "twice"),
    [
        ("fake cloud", signal.SIGINT, False),
        ("workers", signal.SIGTERM, False),
        ("pushes", signal.SIGINT, True),
    ],
)
def test_broken_off_it_leaves_nothing(
    tmp_path: Path, demo: Callable[..., Command], moment: str, number: signal.Signals, twice: bool
) -> None:
    running = demo()
    until(lambda: sooner_or_later(tmp_path / "tmp", running, moment), 60, what=moment)
    before = len(marked(running.mark))
    running.process.send_signal(number)
    if twice:
        until(lambda: len(marked(running.mark)) < before, what="the first signal to be heeded")
        running.process.send_signal(number)
    assert running.process.wait(30) == 130, running.said()
    assert running.left() == []
    assert list((tmp_path / "tmp").iterdir()) == []
    assert "Traceback" not in running.said()
