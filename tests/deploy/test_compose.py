"""compose.yaml and the Dockerfile against the code."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from tests.deploy.support import DEPLOY, ROOT, read_yaml, resolve_command, setting_of

from pushfleet_workers import redis_server, registry
from pushfleet_workers.settings import Settings, load

COMPOSE = read_yaml(DEPLOY / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FLEET = {name: service for name, service in SERVICES.items() if service["image"] == "pushfleet"}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
SHUTDOWN_MARGIN_S = 15
"""After `worker.shutdown_s`: settling, closing connections, ending the loop."""


def seconds(duration: str) -> float:
    return float(duration.removesuffix("s"))


def grace_of(service: dict[str, Any]) -> float:
    return seconds(service["stop_grace_period"])


@pytest.mark.parametrize("name", FLEET)
def test_every_command_is_one_of_ours(name: str) -> None:
    assert resolve_command(FLEET[name]["command"]).name == name.partition("-")[0]


@pytest.mark.parametrize("name", FLEET)
def test_every_variable_is_a_setting_that_takes_the_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [variable for variable in os.environ if variable.startswith("PUSHFLEET_")]:
        monkeypatch.delenv(variable)
    environment: dict[str, str] = FLEET[name]["environment"]
    for variable, value in environment.items():
        assert setting_of(variable) is not None, variable
        monkeypatch.setenv(variable, value)
    settings = load(ROOT / "pushfleet.example.toml")
    assert settings.redis.queue_url == environment["PUSHFLEET_REDIS__URL"]
    assert (settings.metrics.host, settings.metrics.port) == ("0.0.0.0", 9100)


def test_every_vendor_has_a_worker_and_no_other_has() -> None:
    served = [service["command"][-1] for service in FLEET.values() if service["command"][0] == "worker"]
    assert sorted(served) == list(registry.built_in())
    assert {name for name in FLEET if name.startswith("worker-")} == {f"worker-{vendor}" for vendor in served}


def test_a_vendor_that_the_example_leaves_out_has_a_worker_only_where_it_is_asked_for() -> None:
    left_out = set(registry.built_in()) - set(load(ROOT / "pushfleet.example.toml").accounts)
    assert left_out == {"tpns"}
    profiles = {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service}
    assert profiles == {f"worker-{vendor}": [vendor] for vendor in left_out}


def test_each_container_is_asked_on_the_port_that_it_listens_on() -> None:
    for name, service in FLEET.items():
        port = service["environment"]["PUSHFLEET_API__PORT" if name == "api" else "PUSHFLEET_METRICS__PORT"]
        assert f"127.0.0.1:{port}/readyz" in service["healthcheck"]["test"][-1]


def test_the_grace_period_fits_the_shutdown() -> None:
    for service in FLEET.values():
        assert grace_of(service) >= Settings().worker.shutdown_s + SHUTDOWN_MARGIN_S


def test_services_and_volumes_that_are_named_exist() -> None:
    for name, service in SERVICES.items():
        for needed in service.get("depends_on", ()):
            assert needed in SERVICES, name
        for volume in service.get("volumes", ()):
            source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
            # Settings and credentials are the operator's; everything else is here.
            if source in ("../pushfleet.toml", "../credentials"):
                continue
            assert source in COMPOSE["volumes"] or (DEPLOY / source).is_dir(), f"{name}: {source}"
    hosts = [service["environment"]["PUSHFLEET_REDIS__URL"] for service in FLEET.values()]
    assert set(hosts) == {"redis://redis:6379/0"}


def test_the_mounted_settings_are_those_that_the_image_reads() -> None:
    targets = {volume["source"]: volume["target"] for volume in FLEET["router"]["volumes"]}
    assert f"PUSHFLEET_CONFIG={targets['../pushfleet.toml']}" in DOCKERFILE
    # The example's key files lie in credentials/, beside the settings.
    folder = Path(targets["../pushfleet.toml"]).parent / "credentials"
    assert targets["../credentials"] == str(folder)


def test_redis_keeps_what_it_is_told_as_the_embedded_one_does() -> None:
    command: list[str] = SERVICES["redis"]["command"]
    told = {command[at].removeprefix("--"): command[at + 1] for at in range(1, len(command), 2)}
    for name, value in redis_server._CONFIG.items():
        if name != "loglevel":
            assert told[name] == value, name
    assert "maxmemory" in told, "ingress.memory_mark needs it"


def test_ports_are_published_on_loopback_only() -> None:
    for service in SERVICES.values():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:")


def test_what_the_image_copies_exists_and_is_let_through() -> None:
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, flags=re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignore, source
    build = FLEET["api"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_the_image_runs_as_nobody_special_and_its_entry_point_is_the_command_line() -> None:
    assert 'ENTRYPOINT ["pushfleet"]' in DOCKERFILE
    users = re.findall(r"^USER (.*)$", DOCKERFILE, flags=re.MULTILINE)
    assert users == ["10001:10001"]
    variables = re.findall(r"\b(PUSHFLEET_[A-Z_]+)=", DOCKERFILE)
    assert variables
    for variable in variables:
        assert setting_of(variable) is not None, variable


UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_unit_runs_a_command_of_ours_and_gives_it_time_to_end(unit: Path) -> None:
    text = unit.read_text(encoding="utf-8")
    (command,) = re.findall(r"^ExecStart=(.*)$", text, flags=re.MULTILINE)
    program, *words = shlex.split(command.replace("%i", "apns"))
    assert Path(program).name == "pushfleet"
    assert unit.name.startswith(f"pushfleet-{resolve_command(words).name}")
    (timeout,) = re.findall(r"^TimeoutStopSec=(\d+)$", text, flags=re.MULTILINE)
    assert float(timeout) >= Settings().worker.shutdown_s + SHUTDOWN_MARGIN_S
    for variable in re.findall(r"\b(PUSHFLEET_[A-Z_]+)=", text):
        assert setting_of(variable) is not None, variable
