"""Where things lie and which way they may depend on each other."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SDK = ROOT / "producers" / "pushfleet"
FLEET = ROOT / "workers" / "pushfleet_workers"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

SDK_PACKAGES = {"msgspec", "pushfleet", "redis"}
"""What an IM backend gets along with the SDK: the dependencies of the base install."""

IMPURE = {
    "aioapns", "asyncio", "concurrent", "http", "httpx", "logging", "multiprocessing", "prometheus_client",
    "pyreqwest", "random", "redis", "requests", "secrets", "selectors", "socket", "ssl", "structlog", "subprocess",
    "threading", "time", "urllib.request", "uvloop",
}  # fmt: skip
"""Clocks, sockets, logs, chance: a vendor module has none of them."""


def python_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*.py") if "__pycache__" not in file.parts)


def imports(file: Path) -> Iterator[str]:
    """The modules that *file* imports, wherever in it; relative ones and those for annotations alone left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for block in [one for one in ast.walk(tree) if isinstance(one, ast.If)]:
        if ast.unparse(block.test) == "TYPE_CHECKING":
            block.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            yield node.module


def test_the_source_roots_and_the_tests_are_no_packages() -> None:
    for folder in ("producers", "workers"):
        assert not (ROOT / folder / "__init__.py").exists(), "then `import workers...` would give a second copy"
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_both_packages_are_typed() -> None:
    for package in (SDK, FLEET):
        assert (package / "py.typed").is_file()


@pytest.mark.parametrize("file", python_files(SDK), ids=lambda file: file.name)
def test_the_sdk_needs_nothing_of_the_fleet(file: Path) -> None:
    allowed = SDK_PACKAGES | set(sys.stdlib_module_names)
    assert {name for name in imports(file) if name.partition(".")[0] not in allowed} == set()


def test_importing_the_sdk_brings_no_package_of_the_fleet() -> None:
    program = "import sys, pushfleet; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"pushfleet_workers", "celery", "kombu", "httpx", "aioapns", "pydantic", "click"} & set(loaded) == set()


@pytest.mark.parametrize("file", python_files(FLEET / "vendors"), ids=lambda file: file.name)
def test_a_vendor_has_no_clock_socket_log_or_chance(file: Path) -> None:
    used = {name for name in imports(file) if name in IMPURE or name.partition(".")[0] in IMPURE}
    assert used == set()


@pytest.mark.parametrize("file", python_files(FLEET / "vendors"), ids=lambda file: file.name)
def test_a_vendor_asks_no_clock_by_another_door(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    asked = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert asked & {"now", "utcnow", "today", "fromtimestamp", "localtime", "gmtime"} == set()


@pytest.mark.parametrize("file", python_files(FLEET / "vendors"), ids=lambda file: file.name)
def test_a_vendor_knows_nothing_of_ledger_transports_and_processes(file: Path) -> None:
    known = {"account", "errors", "outcome", "push", "vendor", "vendors"}
    ours = {name.split(".")[1] for name in imports(file) if name.startswith("pushfleet_workers.")}
    assert ours <= known


def test_scripts_and_marker_files_are_packaged_with_their_modules() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {ROOT / package for package in wheel["packages"]} == {SDK, FLEET}
    outside = [file for file in ROOT.glob("*/**/*.lua") if ".venv" not in file.parts and not _inside(file, SDK, FLEET)]
    assert outside == []


def _inside(file: Path, *folders: Path) -> bool:
    return any(folder in file.parents for folder in folders)
