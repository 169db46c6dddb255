"""The door to the SDK: what it exports, what it drags along, what it raises, what it says without the fleet."""

import importlib
import inspect
import json
import pickle
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import pushfleet
from pushfleet import __main__ as command
from pushfleet import errors


def test_everything_exported_is_there_sorted_and_nothing_else_is_public() -> None:
    assert pushfleet.__all__ == sorted(pushfleet.__all__)
    exported = {name for name in vars(pushfleet) if inspect.isclass(getattr(pushfleet, name))}
    assert exported == set(pushfleet.__all__)


def test_importing_the_sdk_imports_nothing_of_the_fleet() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import json, sys, pushfleet; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        check=True,
        timeout=20,
    )
    roots = {name.split(".")[0] for name in json.loads(told.stdout)}
    assert {"pushfleet", "msgspec", "redis"} <= roots
    heavy = {"aioapns", "celery", "click", "fastapi", "httpx", "kombu", "prometheus_client", "pushfleet_workers"}
    assert not roots & {*heavy, "pydantic", "pyreqwest", "rich", "structlog", "uvloop"}


@pytest.mark.parametrize("name", errors.__all__)
def test_an_error_survives_pickling_with_all_it_carries(name: str) -> None:
    kind = getattr(errors, name)
    problems = [kind("it broke")]
    if issubclass(kind, errors.EnqueueError):
        problems.append(kind("it broke", ("m1", "m2")))
    if kind is errors.InvalidMessage:
        problems.append(kind("it broke", 3, ("m1",)))
    for problem in problems:
        again = pickle.loads(pickle.dumps(problem))
        assert (type(again), str(again), vars(again)) == (kind, str(problem), vars(problem))


def test_all_errors_have_one_root_and_are_exported() -> None:
    found = {name for name, one in vars(errors).items() if inspect.isclass(one) and issubclass(one, Exception)}
    assert found == set(errors.__all__) <= set(pushfleet.__all__)
    assert all(issubclass(getattr(errors, name), pushfleet.PushfleetError) for name in found)


def test_without_the_fleet_the_command_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'click'", name="click")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SystemExit) as leaving:
        command.main()
    assert leaving.value.code == 2
    said = capsys.readouterr().err
    assert said == "The pushfleet command needs the fleet: pip install 'pushfleet[fleet]' (No module named 'click').\n"


def test_a_fault_within_the_fleet_is_not_mistaken_for_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> ModuleType:
        raise ModuleNotFoundError("No module named 'pushfleet_workers.typo'", name="pushfleet_workers.typo")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="typo"):
        command.main()


def test_with_the_fleet_the_command_is_the_fleets(monkeypatch: pytest.MonkeyPatch) -> None:
    imported: list[str] = []

    def fleet(name: str) -> object:
        imported.append(name)
        return SimpleNamespace(main=lambda: 7)

    monkeypatch.setattr(importlib, "import_module", fleet)
    assert command.main() == 7
    assert imported == ["pushfleet_workers.cli"]
