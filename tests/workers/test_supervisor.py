import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pushfleet_workers import supervisor as supervisor_module
from pushfleet_workers.errors import FleetError
from pushfleet_workers.redis_server import free_port
from pushfleet_workers.supervisor import Child, Supervisor

IDLE = "import time, sys; print('started', flush=True); time.sleep(60)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True))
print('started', flush=True)
while True: time.sleep(1)
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def a_child(name: str = "child", code: str = IDLE, **options: object) -> Child:
    return Child(name, python(code), **options)  # type: ignore[arg-type]


def until(condition, timeout_s: float = 8.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def wait_for_text(path: Path, text: str, times: int = 1) -> None:
    until(lambda: path.exists() and path.read_text().count(text) >= times)


def alive(pid: int) -> bool:
    """Whether the process runs; one that ended and that nobody asked about does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def pid_of(child: Child) -> int:
    assert child.process is not None
    return child.process.pid


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts without long waits."""
    monkeypatch.setattr(supervisor_module, "_RESTART_FIRST_S", 0.01)


@pytest.fixture
def ready_url() -> Iterator[str]:
    """Answers 503 first, then 200."""
    answers = [503, 503, 200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/readyz"
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_a_child_says_goes_to_its_log_and_its_settings_come_from_us(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        code = "import os, sys; print(os.environ['MINE'], os.environ['PATH'] != '', file=sys.stderr)"
        supervisor.start(a_child("speaker", code, env={"MINE": "yes"}))
        wait_for_text(tmp_path / "speaker.log", "yes True")


@pytest.mark.usefixtures("quick")
def test_a_child_that_was_killed_is_started_again(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(a_child("one"))
        supervisor.start(a_child("two"))
        killed, other = pid_of(supervisor.child("one")), pid_of(supervisor.child("two"))
        wait_for_text(tmp_path / "one.log", "started")
        os.kill(killed, signal.SIGKILL)

        def restarted() -> bool:
            supervisor.watch()
            process = supervisor.child("one").process
            return process is not None and process.pid != killed

        until(restarted)
        wait_for_text(tmp_path / "one.log", "started", times=2)
        assert pid_of(supervisor.child("two")) == other


def test_a_child_that_keeps_ending_is_started_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(supervisor_module, "time", SimpleNamespace(monotonic=lambda: now))
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(a_child("broken", "raise SystemExit(3)"))
        child = supervisor.child("broken")
        waits = []
        for _ in range(8):
            assert child.process is not None
            child.process.wait()
            supervisor.watch()
            assert child.process is None
            waits.append(child.restart_at - now)
            now = child.restart_at - 0.01
            supervisor.watch()
            assert child.process is None, "not before it is due"
            now = child.restart_at
            supervisor.watch()
            assert child.process is not None
        assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
        now += 61
        child.process.wait()
        supervisor.watch()
        assert child.restart_at - now == 0.5, "one that ran for long starts quickly again"


def test_a_child_may_end_any_number_of_times(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(a_child("broken", "raise SystemExit(3)"))
        child = supervisor.child("broken")
        child.failures = 5_000
        assert child.process is not None
        child.process.wait()
        supervisor.watch()
        assert child.restart_at > 0


def test_close_ends_all_of_them_and_starts_none_again(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    for number in range(3):
        supervisor.start(a_child(f"c{number}"))
    children = [supervisor.child(f"c{number}") for number in range(3)]
    for number in range(3):
        wait_for_text(tmp_path / f"c{number}.log", "started")
    supervisor.close()
    assert [child.process.returncode for child in children if child.process] == [-signal.SIGTERM] * 3
    pids = [pid_of(child) for child in children]
    supervisor.watch()
    assert [child.process for child in children if child.process is not None and child.process.poll() is None] == []
    assert not any(alive(pid) for pid in pids)
    supervisor.close()


def test_a_child_that_will_not_go_is_killed_and_delays_the_others_little(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    supervisor.start(a_child("stubborn", STUBBORN, stop_timeout_s=0.2))
    supervisor.start(a_child("willing"))
    for name in ("stubborn", "willing"):
        wait_for_text(tmp_path / f"{name}.log", "started")
    started = time.monotonic()
    supervisor.close()
    assert time.monotonic() - started < 3
    stubborn = supervisor.child("stubborn").process
    assert stubborn is not None
    assert stubborn.returncode == -signal.SIGKILL
    assert "no" in (tmp_path / "stubborn.log").read_text(), "it was asked first"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_children_do_not_outlive_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from types import SimpleNamespace
from pushfleet_workers.supervisor import Child, Supervisor
supervisor = Supervisor(Path({str(tmp_path)!r}))
supervisor.start(Child("child", {python(IDLE)!r}))
print(supervisor.child("child").process.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen(python(code), stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        wait_for_text(tmp_path / "child.log", "started")
        parent.kill()
        until(lambda: not alive(pid))


def test_children_are_in_sessions_of_their_own(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(a_child())
        pid = pid_of(supervisor.child("child"))
        assert os.getsid(pid) == pid, "Ctrl-C reaches only us"


def test_it_waits_until_all_are_ready(tmp_path: Path, ready_url: str) -> None:
    ticks: list[int] = []
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(a_child("unasked"))
        supervisor.start(a_child("asked", ready_url=ready_url))
        supervisor.wait_ready(5, lambda: ticks.append(1))
    assert len(ticks) == 2


def test_a_child_that_ends_at_the_start_is_shown_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        code = "print('x' * 2000); print('there is no settings file'); raise SystemExit(2)"
        supervisor.start(a_child("router", code, ready_url=f"http://127.0.0.1:{free_port()}/readyz"))
        with pytest.raises(FleetError, match=r"(?s)^router ended: x+\n?.*there is no settings file$") as failure:
            supervisor.wait_ready(5)
        assert len(str(failure.value)) < 900


def test_a_child_that_is_not_ready_in_time_is_named(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        code = "import time; time.sleep(60)"
        supervisor.start(a_child("api", code, ready_url=f"http://127.0.0.1:{free_port()}/readyz"))
        with pytest.raises(FleetError, match=r"api was not ready within 0 s: .*api\.log is empty"):
            supervisor.wait_ready(0.2)
