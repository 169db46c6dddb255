"""Commands that run a role of the fleet."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from pushfleet_workers import registry
from pushfleet_workers.cli.context import Context, console, pass_context, require_redis
from pushfleet_workers.errors import FleetError, SettingsError
from pushfleet_workers.redis_address import read_url

__all__ = ["api", "fakecloud", "router", "up", "worker"]

_PORT_MAX = 65_535


def _shown(url: str) -> str:
    address = read_url(url)
    return f"{url.partition(':')[0]}://{address.shown}"


def run_until_signal(start: Callable[[asyncio.Event], Awaitable[None]]) -> None:
    """Run *start*, whose argument is set when SIGTERM or SIGINT asks to end."""
    import uvloop

    async def run() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await start(stop)

    uvloop.run(run())


@click.command()
@pass_context
def router(context: Context) -> None:
    """Read the ingress streams, decide, and put deliveries into the ledgers."""
    from pushfleet_workers.hooks.logs import configure_logs
    from pushfleet_workers.router_process import run_router

    settings = context.settings
    require_redis(settings)
    configure_logs(settings.log)
    run_until_signal(lambda stop: run_router(settings, stop))


@click.command()
@click.option(
    "--vendor",
    "vendors",
    multiple=True,
    help="A vendor to serve; repeat for more. Default: all with accounts; with a master key all there are.",
)
@pass_context
def worker(context: Context, vendors: tuple[str, ...]) -> None:
    """Drain the queues of vendors: a Celery worker, as `celery -A pushfleet_workers.app worker -Q push.NAME`."""
    from pushfleet_workers.app import make_app
    from pushfleet_workers.up import celery_worker_argv, vendors_to_serve

    settings = context.settings
    require_redis(settings)
    for vendor in vendors:
        registry.load(vendor)
        if vendor not in settings.accounts and not settings.credentials.may_come:
            raise SettingsError(
                f"vendor {vendor} has no account: add [accounts.{vendor}.<credential>] to pushfleet.toml"
            )
    chosen = tuple(dict.fromkeys(vendors)) or vendors_to_serve(settings)
    if not chosen:
        raise SettingsError("no vendor account is configured: add [accounts.<vendor>.<credential>] to pushfleet.toml")
    make_app(settings).worker_main(celery_worker_argv(chosen, "-".join(chosen), settings.log.level))


@click.command()
@pass_context
def api(context: Context) -> None:
    """Serve the HTTP API: devices, states, preferences, metrics."""
    from pushfleet_workers.api_process import run_api
    from pushfleet_workers.hooks.logs import configure_logs

    settings = context.settings
    require_redis(settings)
    configure_logs(settings.log)
    run_until_signal(lambda stop: run_api(settings, stop))


@click.command()
@click.option("--credentials", type=click.Path(path_type=Path, file_okay=False), default=Path(".pushfleet/fakecloud"),
              show_default=True, help="Folder for its certificates and throw-away credentials.")  # fmt: skip
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", "ports", multiple=True, metavar="VENDOR=PORT", help="A fixed port for a vendor; default: free ones."
)
@click.option(
    "--control-port", type=click.IntRange(0, _PORT_MAX), default=0, help="Port of /stats and /rules; 0: a free one."
)
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Written with all addresses once it listens, in place of showing them.",
)
@click.option("--vendor", "vendors", multiple=True, help="A vendor to play; repeat for more. Default: all.")
@click.option(
    "--journal",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file to which each token of each request is appended, with time, message id and whether it was taken.",
)
def fakecloud(
    credentials: Path,
    host: str,
    ports: tuple[str, ...],
    control_port: int,
    ready_file: Path | None,
    vendors: tuple[str, ...],
    journal: Path | None,
) -> None:
    """Play all vendors on this machine: strict, scriptable, for development and tests."""
    from pushfleet_workers.fakecloud import serve
    from pushfleet_workers.fakecloud.registry import VENDORS

    played = tuple(dict.fromkeys(vendors)) or tuple(VENDORS)
    for vendor in played:
        if vendor not in VENDORS:
            raise SettingsError(f"--vendor {vendor}: the fake cloud has only {', '.join(VENDORS)}")
    fixed: dict[str, int] = {}
    for pair in ports:
        vendor, _, port = pair.partition("=")
        if not port.isdecimal() or int(port) > _PORT_MAX:
            raise SettingsError(f"--port takes VENDOR=PORT, not {pair!r}")
        if vendor not in played:
            raise SettingsError(f"--port {pair}: the fake cloud has no vendor {vendor!r}, only {', '.join(played)}")
        fixed[vendor] = int(port)

    async def run(stop: asyncio.Event) -> None:
        serving = asyncio.ensure_future(
            serve(
                credentials=credentials,
                host=host,
                ports=fixed,
                control_port=control_port,
                ready_file=ready_file,
                vendors=played,
                journal=journal,
                on_ready=partial(_show_fake_cloud, credentials) if ready_file is None else None,
            )
        )
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        serving.cancel()
        try:
            await serving
        except asyncio.CancelledError:
            pass
        except OSError as problem:
            given = ", ".join([*ports, f"control-port={control_port}"])
            raise FleetError(f"the fake cloud cannot listen on {host}, {given}: {problem}") from problem

    run_until_signal(run)


def _show_fake_cloud(folder: Path, ready: Mapping[str, Any]) -> None:
    """For people: where it listens, and how to point an account at it."""
    from pushfleet_workers.cli.fake_accounts import accounts_toml

    accounts = folder / "accounts.toml"
    accounts.write_text(accounts_toml(ready), encoding="utf-8")
    rows = [(name, address["url"]) for name, address in ready["vendors"].items()]
    rows += [("control", f"{ready['control_url']}/stats"), ("folder", f"{folder}  (throw-away credentials, ca.pem)")]
    for what, where in rows:
        console.print(f"{what:8} {where}", markup=False, highlight=False, soft_wrap=True)
    told = f"To send through it, copy an account from {accounts} into pushfleet.toml. Ctrl-C ends it."
    console.print(told, markup=False, highlight=False, soft_wrap=True)


@click.command()
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Routers, and workers for each group of vendors.",
)
@pass_context
def up(context: Context, processes: int) -> None:
    """Run everything on this machine until Ctrl-C: Redis if none is configured, API, router, workers."""
    from pushfleet_workers.stop_signals import AskedToStop, StopSignals
    from pushfleet_workers.up import Fleet

    settings = context.configured
    if not settings.accounts and not settings.credentials.may_come:
        raise SettingsError(
            "no vendor account is configured: copy pushfleet.example.toml to pushfleet.toml and fill it in, "
            "or see everything at work without one: make demo"
        )
    stop = StopSignals()
    with contextlib.suppress(AskedToStop), Fleet(settings, context.file, processes, tick=stop.check) as fleet:
        rows = [("redis", _shown(fleet.redis_url)), ("api", f"{fleet.api_url}/docs")]
        rows += [("metrics", f"{url}  ({name})") for name, url in fleet.metrics_urls.items()]
        rows += [("logs", str(fleet.folder / "logs"))]
        for what, where in rows:
            console.print(f"{what:8} {where}", markup=False, highlight=False, soft_wrap=True)
        console.print("Ctrl-C ends it.")
        while True:
            stop.check()
            fleet.supervisor.watch()
            time.sleep(0.2)
