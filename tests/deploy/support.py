"""What the deployment and the documents may refer to, read from the code: commands, settings, metrics."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any

import click
import yaml
from prometheus_client import Counter, Gauge, Histogram
from pydantic import BaseModel

from pushfleet_workers import registry, stock
from pushfleet_workers.account import AccountSettings, kind_settings
from pushfleet_workers.cli.main import cli
from pushfleet_workers.hooks import metrics
from pushfleet_workers.settings import CONFIG_VARIABLE, AppSettings, Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# ---- commands


def resolve_command(words: Sequence[str]) -> click.Command:
    """The command that `pushfleet` with *words* would run, its options parsed and nothing run.

    Raises what click raises for a command or an option that there is not.
    """
    words = [*words]
    command: click.Command = cli
    context = cli.make_context("pushfleet", words)
    while isinstance(command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None
        assert name is not None
        command = found
        context = command.make_context(name, rest, parent=context)
    return command


def each_command(
    group: click.Group = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with its words; groups are only walked through."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from each_command(command, (*path, name))
        else:
            yield (*path, name), command


# ---- settings


def each_setting(model: type[BaseModel] = Settings, path: str = "") -> Iterator[str]:
    """Every setting by its dotted name; `apps.*` and `accounts.*` stand for what is named freely."""
    for name, field in model.model_fields.items():
        here = f"{path}{name}"
        inner = _section(field.annotation)
        if here == "apps":
            yield from each_setting(AppSettings, "apps.*.")
        elif here == "accounts":
            for vendor in registry.built_in():
                yield from each_setting(registry.load(vendor).account_type, f"accounts.{vendor}.*.")
        elif inner is not None:
            yield from each_setting(inner, f"{here}.")
        elif name == "kinds" and issubclass(model, AccountSettings):
            yield from each_setting(_kind_settings(model), f"{here}.*.")
        else:
            yield here


def _kind_settings(account_type: type[AccountSettings]) -> type[BaseModel]:
    found = kind_settings(account_type)
    assert found is not None
    return found


def own_fields(account_type: type[BaseModel]) -> list[str]:
    """The settings that *account_type* declares itself, those included whose default it replaces."""
    return [name for name in account_type.__annotations__ if name in account_type.model_fields]


def _section(annotation: Any) -> type[BaseModel] | None:
    options = typing.get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    models = [one for one in options if isinstance(one, type) and one is not NoneType and issubclass(one, BaseModel)]
    return models[0] if models else None


def setting_of(variable: str) -> str | None:
    """The setting that an environment variable sets; None when there is none."""
    if variable == CONFIG_VARIABLE:
        return "(the settings file)"
    words = variable.removeprefix("PUSHFLEET_").lower().split("__")
    if words[0] == "apps" and len(words) == 3:
        words[1] = "*"
    if words[0] == "accounts" and len(words) in (4, 6):
        words[2] = "*"
        words[4:5] = ["*"] if words[3] == "kinds" else words[4:5]
    name = ".".join(words)
    return name if variable.startswith("PUSHFLEET_") and name in set(each_setting()) else None


# ---- metrics


@cache
def metric_names() -> dict[str, tuple[str, ...]]:
    """Every series that the processes export, by the name that queries use, with its labels."""
    from pushfleet_workers import death_webhook
    from pushfleet_workers.api import app as api_app
    from pushfleet_workers.api import vendor_receipts
    from pushfleet_workers.erasure import keeper
    from pushfleet_workers.reports import consumer

    found = {name: labels for name, (_, _, labels) in stock.METRICS.items()}
    for module in (metrics, api_app, vendor_receipts, death_webhook, consumer, keeper):
        found.update(_series_of(module))
    return found


def _series_of(module: ModuleType) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for value in vars(module).values():
        if not isinstance(value, Counter | Gauge | Histogram):
            continue
        name, labels = value._name, tuple(value._labelnames)
        if isinstance(value, Counter):
            found[f"{name}_total"] = labels
        elif isinstance(value, Histogram):
            found |= {f"{name}_bucket": (*labels, "le"), f"{name}_sum": labels, f"{name}_count": labels}
        else:
            found[name] = labels
    return found


METRIC = re.compile(r"pushfleet_[a-z_]+")
_SELECTOR = re.compile(r"(pushfleet_[a-z_]+)\s*(?:\{([^}]*)\})?")
_LABEL = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)\s*\"")
_BY = re.compile(r"by\s*\(([^)]*)\)")


def faults_of(query: str) -> list[str]:
    """What a PromQL query names that no process exports: metrics, labels in selectors, labels in `by`."""
    known = metric_names()
    faults = []
    labels: set[str] = set()
    for name, selector in _SELECTOR.findall(query):
        if name not in known:
            faults.append(f"no metric {name}")
            continue
        labels |= set(known[name])
        faults += [f"{name} has no label {label}" for label in _LABEL.findall(selector) if label not in known[name]]
    for grouped in _BY.findall(query):
        wanted = {label.strip() for label in grouped.split(",")}
        faults += [f"nothing in the query has label {label}" for label in sorted(wanted - labels)]
    return faults
