from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from tests.workers.cli.conftest import Cli
from tests.workers.commands import environment, settings_file

from pushfleet.wire import decode

STREAM = "t:{ingress:normal}"


def line(identity: str = "m1", **fields: object) -> str:
    return json.dumps({"id": identity, "app": "demo", "recipients": ["bob"], "body": "a secret", **fields})


def enqueued(client: redis.Redis) -> list[str]:
    entries: Any = client.xrange(STREAM)
    return [decode(fields[b"m"]).id for _, fields in entries]


@pytest.mark.usefixtures("fleet_file")
def test_the_messages_of_a_file_are_enqueued_in_order(cli: Cli, tmp_path: Path, redis_client: redis.Redis) -> None:
    file = tmp_path / "messages.jsonl"
    names = [f"m{number}" for number in range(1_201)]
    file.write_text("\n".join(map(line, names)))
    said = cli("enqueue", file)
    assert (said.code, said.out, said.err) == (0, "1201 accepted, 0 refused\n", "")
    assert enqueued(redis_client) == names


@pytest.mark.usefixtures("fleet_file")
def test_it_waits_for_as_many_replicas_as_the_settings_say(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "messages.jsonl"
    file.write_text(line())
    monkeypatch.setenv("PUSHFLEET_INGRESS__WAIT_REPLICAS", "1")
    monkeypatch.setenv("PUSHFLEET_INGRESS__WAIT_TIMEOUT_MS", "20")
    said = cli("enqueue", file)
    assert said.code != 0
    assert "0 of 1 replicas confirmed within 20 ms" in said.err


@pytest.mark.usefixtures("fleet_file")
@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
def test_whoever_looks_sees_a_bar_with_the_bytes_read(tmp_path: Path) -> None:
    file = tmp_path / "messages.jsonl"
    file.write_text("\n".join(line(f"m{number}") for number in range(300)))
    ours, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "pushfleet", "enqueue", str(file)],
        cwd=tmp_path, env=environment(TERM="xterm"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs,
        timeout=60, check=False,
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 65_536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert done.stdout == b"300 accepted, 0 refused\n"
    assert re.search(r"kB|bytes", shown)
    assert "━" in shown


@pytest.mark.usefixtures("fleet_file")
def test_bad_lines_are_told_by_number_and_left_out(cli: Cli, redis_client: redis.Redis) -> None:
    lines = [line("m1"), "", "{", line("m2"), line("m3", kind="rumour"), "   ", line("m4"), line("m5", id="")]
    said = cli("enqueue", "-", "--json", stdin="\r\n".join(lines).encode() + b"\n\xff\xfe\n")
    assert said.code == 1
    assert json.loads(said.out) == {"accepted": 3, "refused": 4}
    assert [told.partition(":")[0] for told in said.err.splitlines()] == ["line 3", "line 5", "line 8", "line 9"]
    assert "kind" in said.err
    assert "a secret" not in said.err
    assert enqueued(redis_client) == ["m1", "m2", "m4"]


@pytest.mark.usefixtures("fleet_file")
def test_what_only_the_producer_finds_wrong_is_told_by_number_as_well(cli: Cli, redis_client: redis.Redis) -> None:
    # Each keeps every field's limit, and cannot be cut small enough.
    many = [{"type": "text", "text": "x" * 16_000}] * 70
    lines = [
        line("m1"),
        line("m2", elements=many),
        line("m3"),
        line("m4", part=7, recipients=[f"u{n}" for n in range(501)]),
    ]
    said = cli("enqueue", "-", stdin="\n".join([*lines, line("m5")]).encode())
    assert (said.code, said.out) == (1, "3 accepted, 2 refused\n")
    second, fourth = said.err.splitlines()
    assert second.startswith("line 2: ")
    assert "1048576" in second
    assert fourth.startswith("line 4: ")
    assert enqueued(redis_client) == ["m1", "m3", "m5"]


def test_when_the_fleet_is_behind_it_says_how_far_it_came(
    cli: Cli, tmp_path: Path, redis_url: str, redis_client: redis.Redis
) -> None:
    settings_file(tmp_path, redis_url, "[ingress]", "length_max = 600")
    said = cli("enqueue", "-", stdin="\n".join(line(f"m{number}") for number in range(1_000)).encode())
    assert (said.code, said.out) == (2, "")
    far, sentence = said.err.splitlines()
    accepted = len(enqueued(redis_client))
    assert 500 <= accepted <= 600
    assert far.startswith(f"{accepted} accepted")
    assert sentence.startswith("pushfleet: t:{ingress:normal} holds ")


@pytest.mark.usefixtures("fleet_file")
def test_an_empty_file_is_nothing_to_do(cli: Cli) -> None:
    said = cli("enqueue", "-")
    assert (said.code, said.out) == (0, "0 accepted, 0 refused\n")


@pytest.mark.usefixtures("fleet_file")
def test_a_file_that_is_not_there_is_refused(cli: Cli) -> None:
    said = cli("enqueue", "nothing.jsonl")
    assert said.code == 2
    assert "nothing.jsonl" in said.err


@pytest.mark.usefixtures("fleet_file")
def test_a_message_that_waits_for_room_goes_to_the_fleets_prefix(cli: Cli, redis_client: redis.Redis) -> None:
    cli("enqueue", "-", stdin=line("m1", kind="call").encode())
    assert redis_client.keys() == [b"t:{ingress:urgent}"]
