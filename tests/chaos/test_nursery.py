"""The nursery bears processes that do what their command does."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from tests.chaos.nursery import spawn
from tests.chaos.processes import until


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(
    ("command", "code", "told"), [(["json.tool", "--help"], 0, "usage:"), (["json.tool", "--wrong"], 2, "--wrong")]
)
def test_a_child_runs_its_module_to_its_end(
    tmp_path: Path, fresh: bool, command: list[str], code: int, told: str
) -> None:
    output = tmp_path / "output"
    child = spawn(command, output, fresh=fresh)
    assert child.wait(60) == child.poll() == child.returncode == code
    assert told in output.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_child_ends_by_a_signal_and_its_like_live_on(tmp_path: Path, number: signal.Signals) -> None:
    names = ("first", "second")
    first, second = (spawn(["http.server", "0", "--bind", "127.0.0.1"], tmp_path / name) for name in names)
    try:
        until(lambda: all("Serving" in (tmp_path / name).read_text() for name in names), what="both serve")
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(0.01)
        first.send_signal(number)
        assert first.wait(10) == -number
        assert second.poll() is None
        first.kill()
    finally:
        second.kill()
    assert second.wait(10) == -signal.SIGKILL


def test_a_child_has_the_variables_that_it_was_given(tmp_path: Path) -> None:
    output = tmp_path / "output"
    child = spawn(["pushfleet", "router"], output, PUSHFLEET_CONFIG=str(tmp_path / "absent.toml"))
    assert child.wait(30) == 2
    assert "absent.toml" in output.read_text()
