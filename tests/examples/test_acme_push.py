"""A vendor of another package: found by its entry points, held to the contract suite, served by the commands.

The example is not installed: its entry points lie in a folder that only the processes of these tests look into.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "acme_push"
PROJECT = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SUITES = ("tests/workers/vendors/test_contract.py", "tests/workers/vendors/test_docs.py", "examples/acme_push/tests")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process for which the example is installed."""
    folder = tmp_path_factory.mktemp("site")
    lines = [f"Metadata-Version: 2.1\nName: {PROJECT['name']}\nVersion: {PROJECT['version']}\n"]
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in points.items()), ""])
        for group, points in PROJECT["entry-points"].items()
    ]
    info = folder / f"acme_push-{PROJECT['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("".join(lines), encoding="utf-8")
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
    ours = {name: value for name, value in os.environ.items() if not name.startswith("PUSHFLEET_")}
    return ours | {"PYTHONPATH": f"{folder}{os.pathsep}{EXAMPLE / 'src'}"}


def run(environment: dict[str, str], *words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip


def test_the_example_keeps_the_contract(installed: dict[str, str]) -> None:
    done = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "acme", *SUITES)
    assert done.returncode == 0, done.stdout[-4_000:]
    counted = re.search(r"(\d+) passed", done.stdout)
    assert counted is not None
    assert int(counted[1]) > 40, "the suites cover it"


def test_the_page_leads_to_a_push(installed: dict[str, str], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "add-a-vendor.md").read_text(encoding="utf-8")
    (settings,) = re.findall(r"^```toml\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    (serve,) = re.findall(r"^pushfleet (fakecloud .*)$", page, flags=re.MULTILINE)
    (send,) = re.findall(r"^pushfleet (send .*)$", page, flags=re.MULTILINE)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    # The port on the page may be taken on this machine.
    assert "9443" in serve
    (tmp_path / "pushfleet.toml").write_text(settings.replace("9443", port), encoding="utf-8")
    words = [sys.executable, "-m", "pushfleet", *serve.replace("9443", port).split()]
    with subprocess.Popen(words, cwd=tmp_path, env=installed, stdout=subprocess.PIPE, text=True) as cloud:
        try:
            assert cloud.stdout is not None
            assert any("Ctrl-C ends it." in line for line in cloud.stdout)
            for command in ("check", send):
                done = run(installed, "-m", "pushfleet", *command.split(), folder=tmp_path)
                assert done.returncode == 0, (command, done.stdout, done.stderr)
            assert done.stdout.startswith("acme took the push to token ")
        finally:
            cloud.kill()


def test_the_commands_know_it(installed: dict[str, str], tmp_path: Path) -> None:
    done = run(installed, "-m", "pushfleet", "vendors", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "acme" in [vendor["name"] for vendor in json.loads(done.stdout)["vendors"]]
    done = run(installed, "-m", "pushfleet", "fakecloud", "--port", "nobody=1", folder=tmp_path)
    assert done.stderr.rstrip().endswith("acme")
