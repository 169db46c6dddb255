"""The page on the SDK: its examples run, its numbers are the code's."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.workers.api.process import KEY, SETTINGS, started

from pushfleet import AsyncTokenState, TokenState, calls

PAGE = (Path(__file__).parents[2] / "docs" / "sdk.md").read_text(encoding="utf-8")
ALL_ON = SETTINGS.replace(
    "[apps.demo]\n", '[apps.demo]\nrecall_window_s = 120\nreads = true\nforeground_ack = "park"\n'
)
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def test_every_example_runs(
    redis_client: redis.Redis, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert redis_client.dbsize() == 0
    names: dict[str, Any] = {}
    with started(tmp_path, redis_url, ALL_ON) as api:
        for block in BLOCKS:
            program = block.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{api.port}")
            exec(compile(program, "sdk.md", "exec"), names)
        names["tokens"].close()
    said = capsys.readouterr().out
    assert "1 0 1\n" in said, "of two reports one is of no device"
    assert "1 0 0\n" in said, "the confirmation was news"
    assert "bobs-phone killed False mentions_only the receiver wants only mentions" in said
    assert "422 unknown_account channels[0].credential registering device" in said
    assert "True DoNotDisturb(daily=(QuietHours(start='22:00', end='07:00', duration_s=None),)" in said
    assert "User(devices={'bobs-phone'" in said


def test_the_key_of_the_examples_is_the_one_of_the_tests() -> None:
    assert f'key="{KEY}"' in PAGE


@pytest.mark.parametrize("block", BLOCKS)
def test_every_example_is_short(block: str) -> None:
    assert len([line for line in block.splitlines() if line]) <= 10


def test_every_number_is_the_one_of_the_code() -> None:
    text = " ".join(PAGE.split())
    assert f"sends {calls.MANY:,} in a request" in text
    assert f"grows to {calls.PAUSE_S_MAX:g} seconds at most" in text
    assert f"what `Retry-After` says, up to {calls.RETRY_AFTER_S_MAX:g}." in text
    defaults = inspect.signature(TokenState).parameters
    attempts, timeout_s = defaults["attempts"].default, defaults["timeout_s"].default
    assert f"up to `attempts` times ({attempts})" in text
    assert f"`timeout_s` ({timeout_s:g})" in text
    longest = attempts * timeout_s + sum(calls.PAUSE_S * 2**number for number in range(attempts - 1))
    assert f"ends after about {longest:.0f} seconds" in text


def test_every_method_is_on_the_page() -> None:
    methods = {name for name in vars(TokenState) if not name.startswith("_")} - {"close"}
    assert {name for name in methods if not re.search(rf"\b{name}\b", PAGE)} == set()
    assert methods == {name for name in vars(AsyncTokenState) if not name.startswith("_")} - {"aclose"}
