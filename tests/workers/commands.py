"""The `pushfleet` command as a process, in an environment that holds no settings but those given."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hiredis

NOTHING_LISTENS = "redis://127.0.0.1:1/0"


def environment(**variables: str) -> dict[str, str]:
    """Ours without settings, with *variables*."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith("PUSHFLEET_")}, **variables}


def pushfleet(*words: str, folder: Path, stdin: bytes = b"", **variables: str) -> subprocess.CompletedProcess[str]:
    """What `pushfleet *words` says in *folder*."""
    done = subprocess.run(
        [sys.executable, "-m", "pushfleet", *words],
        cwd=folder, env=environment(**variables), input=stdin, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence with which a command refused; besides it only logs may have been written."""
    assert done.returncode == 2, done
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("pushfleet: ")
    return line.removeprefix("pushfleet: ")


@contextmanager
def started(*words: str, folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """`pushfleet *words` in a session of its own, its output in ``output.log``; killed if still there at the end."""
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "pushfleet", *words],
            cwd=folder, env=environment(**variables), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait until *condition* holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def settings_file(folder: Path, url: str, *more: str, prefix: str = "t") -> Path:
    """A file with that Redis and an app, and *more* lines."""
    file = folder / "pushfleet.toml"
    lines = ['data_dir = "data"', "[redis]", f'url = "{url}"', f'prefix = "{prefix}"', "[apps.demo]", *more]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def apns_account(key_file: str = "k.p8", *more: str) -> tuple[str, ...]:
    """Lines of an APNs account."""
    return (
        "[accounts.apns.main]",
        'app = "demo"',
        'team_id = "A1B2C3D4E5"',
        'key_id = "F6G7H8J9K0"',
        f'key_file = "{key_file}"',
        'topic = "com.example.a"',
        *more,
    )


@contextmanager
def old_redis(info: str) -> Iterator[str]:
    """The URL of a server that says *info* of itself and OK to everything else."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                text = info.encode()
                commands = hiredis.Reader()
                with connection:
                    while asked := connection.recv(65_536):
                        commands.feed(asked)
                        while command := commands.gets():
                            told = b"$%d\r\n%b\r\n" % (len(text), text)
                            connection.sendall(told if command[0] == b"INFO" else b"+OK\r\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)
