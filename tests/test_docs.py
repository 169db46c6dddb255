"""The documents against the code: links, commands, settings, metrics, keys, tests, files, and the snippets that run."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from tests.deploy.support import METRIC, ROOT, each_command, each_setting, metric_names, resolve_command

from pushfleet.message import LANES
from pushfleet.wire import decode_message, ingress_key
from pushfleet_workers import registry
from pushfleet_workers.credentials import Authorization
from pushfleet_workers.death_keeper import keeper_key
from pushfleet_workers.ingress import IngressKeys
from pushfleet_workers.ledger import AccountKeys, VendorKeys
from pushfleet_workers.recall import message_key, screen_key
from pushfleet_workers.reports import ReportKeys
from pushfleet_workers.settings import load
from pushfleet_workers.tokens.death_log import log_key
from pushfleet_workers.tokens.erasures import erasures_key
from pushfleet_workers.tokens.keys import UserKeys
from pushfleet_workers.tokens.ward import ward_key

README = (ROOT / "README.md").read_text(encoding="utf-8")
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
GO_LIVE = (ROOT / "docs" / "go-live.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / name
    for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "docs/design.md", "docs/go-live.md", "docs/credentials.md",
                 "docs/add-a-vendor.md", "docs/dead-letters.md", "docs/dead-tokens.md", "docs/device-caps.md",
                 "docs/devices.md", "docs/erasing.md", "docs/pauses.md", "docs/redis.md", "docs/reliability.md",
                 "docs/sdk.md")
]  # fmt: skip
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)


def code_of(page: str) -> list[str]:
    """What stands in backticks within lines."""
    without_blocks = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", without_blocks)


def shell_lines(page: str) -> list[list[str]]:
    """The commands of all shell blocks, as words."""
    text = "\n".join(blocks(page, "sh")).replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


# ---- every page


def anchors(page: str) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_of_ours(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    spoken = [shlex.split(code) for code in code_of(text) if code.startswith("pushfleet ")]
    written = [words for words in shell_lines(text) if words[0] == "pushfleet"]
    known = {path for path, _ in each_command()}
    for words in (*spoken, *written):
        if tuple(words[1:]) in known:
            continue
        resolve_command(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = page.read_text(encoding="utf-8")
    named = {code.split()[1] for code in code_of(text) if code.startswith("make ")}
    named |= {words[1] for words in shell_lines(text) if words[0] == "make"}
    assert named <= targets


SECTIONS = tuple({name.partition(".")[0] for name in each_setting()} - {"accounts", "apps", "data_dir"})
SETTING = re.compile(rf"(?:{'|'.join(SECTIONS)})\.[a-z_]+")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_is_named_exists(page: Path) -> None:
    known = set(each_setting())
    files = {f"{section}.py" for section in SECTIONS}
    named = {code for code in code_of(page.read_text(encoding="utf-8")) if SETTING.fullmatch(code)} - files
    assert named <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_metric_that_is_named_exists(page: Path) -> None:
    named = {code for code in code_of(page.read_text(encoding="utf-8")) if METRIC.fullmatch(code)}
    assert named - {"pushfleet_workers"} <= set(metric_names())


PATH = re.compile(r"(?:producers|workers|tests|deploy|docs|examples|bench)/[\w./<>*-]*")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_is_named_exists(page: Path) -> None:
    for code in code_of(page.read_text(encoding="utf-8")):
        if PATH.fullmatch(code):
            assert (ROOT / code).exists(), code


# ---- the README


def test_the_table_of_commands_is_complete() -> None:
    shown = re.findall(r"^\| `pushfleet ([a-z ]+)` \|", README, flags=re.MULTILINE)
    assert sorted(shown) == sorted(" ".join(path) for path, _ in each_command())


def test_the_python_example_enqueues(redis_client: redis.Redis, redis_url: str) -> None:
    (program,) = blocks(README, "python")
    assert "redis://127.0.0.1:6379/0" in program
    exec(
        compile(program.replace("redis://127.0.0.1:6379/0", redis_url), "README.md", "exec"), {"print": lambda _: None}
    )
    entries: Any = redis_client.xrange(ingress_key("pushfleet", "normal"))
    ((_, fields),) = entries
    message = decode_message(fields[b"m"])
    assert (message.app, message.recipients) == ("demo", ("bob",))
    assert len(program.strip().splitlines()) <= 14


def test_the_curl_example_is_a_registration_that_the_api_takes() -> None:
    from pushfleet_workers.api.devices import device_routes
    from pushfleet_workers.tokens.changes import Registration

    (command,) = [words for words in shell_lines(README) if words[0] == "curl"]
    method, address, body = command[2], command[3], command[command.index("-d") + 1]
    path = re.sub(r"^http://[^/]+", "", address)
    served: Any = device_routes(None, {}, {}, lambda: 0)  # type: ignore[arg-type]
    templates = [route.path for route in served.routes if method in route.methods]
    assert any(re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) for template in templates)
    given = msgspec.json.decode(body, type=Registration)
    assert given.channels[0].vendor in registry.names()


def test_the_settings_example_loads(tmp_path: Path) -> None:
    (example,) = blocks(README, "toml")
    file = tmp_path / "pushfleet.toml"
    file.write_text(example, encoding="utf-8")
    settings = load(file)
    assert [(vendor, name) for vendor, name, _ in settings.each_account()] == [("apns", "main")]


def test_the_celery_line_names_the_application_and_a_queue_of_a_vendor() -> None:
    (words,) = [words for words in shell_lines(README) if words[0] == "celery"]
    assert words[1:4] == ["-A", "pushfleet_workers.app", "worker"]
    assert words[-1].removeprefix("push.") in registry.names()


def test_figures_of_the_bench_are_ratios_of_its_rows() -> None:
    from bench.__main__ import ROWS

    marks = dict(re.findall(r"<!-- bench:([a-z_/]+) -->(.*?)<!-- /bench -->", README))
    assert {"raw/raw_aioapns", "raw/raw_httpx", "single_chat/naive_aioapns"} <= marks.keys()
    assert {row for mark in marks for row in mark.split("/")} <= ROWS.keys()
    assert all(re.fullmatch(r"\d+(\.\d+)?×", figure) for figure in marks.values())


# ---- the design


def spelled(key: str, root: str, name: str) -> str:
    """*key* as the design writes it, where *root* is called *name*."""
    assert key.startswith(root), key
    return re.sub(rf":ready:({'|'.join(LANES)})$", ":ready:<lane>", name + key.removeprefix(root))


def every_key() -> set[str]:
    """Every key of ingress, ledger and wake-up, as the design writes it."""
    account, vendor, lane = AccountKeys("P", "V", "C"), VendorKeys("P", "V"), IngressKeys("P", "normal")
    names = {"<account>:leased:<owner>", spelled(account.leased("<owner>"), account.root, "<account>")}
    names |= {
        "<account>:marks:<bucket>",
        "<ingress>:marks:<bucket>",
        spelled(account.newest("<place>"), account.root, "<account>"),
    }
    for slot in set(account.__slots__) - {"root", "vendor", "credential"}:
        value = getattr(account, slot)
        names |= {spelled(key, account.root, "<account>") for key in ([value] if isinstance(value, str) else value)}
    names |= {spelled(getattr(vendor, slot), "P:{V}", "<vendor>") for slot in vendor.__slots__}
    names |= {spelled(key, lane.stream, "<ingress>") for key in vars(lane).values()}
    authorization = Authorization(None, None, None, account.root, None, None)  # type: ignore[arg-type]
    return names | {spelled(key, account.root, "<account>") for key in (authorization._key, authorization._lock_key)}


def test_every_key_has_a_row_and_no_other_has() -> None:
    rows = re.findall(r"^\| `(<[^`]+)` \| [A-Za-z]", DESIGN, flags=re.MULTILINE)
    token_state = {row for row in rows if row.startswith(("<user>", "<prefix>"))}
    assert set(rows) - token_state == every_key()
    user = UserKeys("P", "A", "U")
    values = [getattr(user, name) for name, kind in vars(UserKeys).items() if isinstance(kind, property)]
    keys = {spelled(key, user.devices, "<user>") for key in (user.devices, *values) if isinstance(key, str)}
    log = log_key("<prefix>", "<app>")
    keys |= {log, f"{log}:sent", ward_key("<prefix>", "<vendor>", "<credential>"), keeper_key("<prefix>")}
    keys |= set(vars(ReportKeys("<prefix>")).values())
    keys.add(re.sub(r"(?<={m:)[\w-]{16}", "<message>", message_key("<prefix>", "app", "m1")))
    keys.add(re.sub(r"(?<={r:)[\w-]{16}", "<key>", screen_key("<prefix>", "app", "m1", "c1")))
    keys.add(erasures_key("<prefix>"))
    assert keys | {"<prefix>:{t:<bucket>}"} <= token_state


@cache
def names_of_tests() -> set[str]:
    names = set()
    for file in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                names.add(node.name)
    return names


def test_the_tests_that_hold_a_promise_exist() -> None:
    named = [code for code in code_of(DESIGN) if code.startswith("test_")]
    assert len(named) > 15
    assert [name for name in named if name not in names_of_tests()] == []


def test_every_script_of_the_ledger_is_explained() -> None:
    folder = ROOT / "workers" / "pushfleet_workers" / "ledger"
    scripts = {file.name for file in folder.glob("*.lua")} - {"common.lua"}
    assert set(re.findall(r"^\| `([a-z]+\.lua)` \|", DESIGN, flags=re.MULTILINE)) == scripts
    there = {file.name for file in (ROOT / "workers").rglob("*.lua")}
    assert {code for code in code_of(DESIGN) if code.endswith(".lua")} <= there


def test_figures_of_the_design_are_those_of_the_code() -> None:
    from pushfleet_workers.app import VISIBILITY_TIMEOUT_S
    from pushfleet_workers.ledger.keys import MARK_BUCKET_MS
    from pushfleet_workers.ledger.ledger import BEAT_S, LEASE_MS, PERMIT_LIFE_S
    from pushfleet_workers.settings import Settings
    from pushfleet_workers.waiting import AHEAD_MAX, LEAST, LONG_S

    assert f"visibility timeout ({VISIBILITY_TIMEOUT_S} s)" in DESIGN
    assert f"It beats every {BEAT_S:g} s" in DESIGN
    assert f"after {LEASE_MS // 1000} s of silence" in DESIGN
    assert MARK_BUCKET_MS == 600_000, "buckets of ten minutes"
    assert PERMIT_LIFE_S == 0.5, "Life is half a second"
    assert f"claims up to {AHEAD_MAX} requests ahead" in DESIGN
    assert f"waits for more than {LONG_S} s" in DESIGN
    assert LEAST == 6, "down to six"
    assert f"runs out after {Settings().api.foreground_lease_s} seconds" in README
    assert f"{Settings().router.parcel} deliveries (`router.parcel`)" in DESIGN


# ---- dead letters


def test_the_reasons_to_stay_are_those_of_the_code() -> None:
    from pushfleet_workers.dead_letters import LEFT

    page = (ROOT / "docs" / "dead-letters.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \|$", page, flags=re.MULTILINE))
    assert rows == {why.value: sentence for why, sentence in LEFT.items()}


def test_the_reasons_to_die_are_those_of_the_code() -> None:
    from pushfleet_workers.reasons import DEAD

    page = (ROOT / "docs" / "dead-letters.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z_]+)` \| [^|]+ \| [^|]+ \|$", page, flags=re.MULTILINE)) == set(DEAD)


# ---- going live


def test_every_vendor_has_a_section_on_what_to_apply_for_and_for_how_long() -> None:
    sections = dict(re.findall(r"^## [^\n]+ \(`([a-z]+)`\)$(.*?)(?=^## |\Z)", GO_LIVE, flags=re.MULTILINE | re.DOTALL))
    assert set(registry.built_in()) <= sections.keys()
    for name, section in sections.items():
        assert "| what | where | how long |" in section, name
        assert len(re.findall(r"^\| .* \| .* \| .+ \|$", section, flags=re.MULTILINE)) >= 4, name


def test_the_summary_of_going_live_names_each_section_once() -> None:
    summary = re.findall(r"^\| (\w+) \|", GO_LIVE.split("\n## APNs")[0], flags=re.MULTILINE)
    heads = re.findall(r"^## (\w+) \(`", GO_LIVE, flags=re.MULTILINE)
    assert summary[1:] == heads


# ---- the changelog


def test_the_changelog_begins_with_unreleased_and_then_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[([^\]]+)\]", text, flags=re.MULTILINE)
    assert versions[:2] == ["Unreleased", PYPROJECT["project"]["version"]]


def test_the_ci_script_runs_what_make_has() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = script.read_text(encoding="utf-8")
    called = re.findall(r"^within \d+ make ([a-z]+)(?: JOBS=\d+)?$", text, flags=re.MULTILINE)
    assert {"lint", "test", "demo"} <= set(called) <= targets
