"""What happens when a Celery worker of the fleet starts and stops."""

from __future__ import annotations

import logging
import sys
from typing import Any

from celery import Celery, signals
from celery.concurrency.thread import TaskPool as ThreadPool

from pushfleet_workers.checks import check_accounts, refuse_unusable_redis
from pushfleet_workers.errors import FleetError
from pushfleet_workers.hooks.logs import configure_logs
from pushfleet_workers.hooks.probes import ProbeServer, open_probes
from pushfleet_workers.process import calm_the_collector, keep_to_core
from pushfleet_workers.runtime import FleetRuntime
from pushfleet_workers.settings import Settings
from pushfleet_workers.tasks import publish_drain, serve_drains
from pushfleet_workers.topology import vendor_of
from pushfleet_workers.trigger import Publisher

__all__ = ["attach"]

log = logging.getLogger(__name__)


def attach(app: Celery, settings: Settings) -> None:
    """Let a worker of *app* run the fleet's drains; other applications in the process are left alone."""
    process = _WorkerProcess(app, settings)

    # Celery keeps weak references to receivers unless told otherwise.
    @signals.setup_logging.connect(weak=False)
    def on_logging(**_: Any) -> None:
        configure_logs(settings.log)

    @signals.worker_init.connect(weak=False)
    def on_init(sender: Any = None, **_: Any) -> None:
        if sender.app is app:
            process.check(sender)

    @signals.worker_ready.connect(weak=False)
    def on_ready(sender: Any = None, **_: Any) -> None:
        if sender.app is app:
            process.start(list(app.amqp.queues.consume_from))

    @signals.worker_shutting_down.connect(weak=False)
    def on_shutting_down(**_: Any) -> None:
        process.stop()

    @signals.worker_shutdown.connect(weak=False)
    def on_shutdown(sender: Any = None, **_: Any) -> None:
        if sender.app is app:
            process.close()


class _WorkerProcess:
    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._runtime: FleetRuntime | None = None
        self._probes: ProbeServer | None = None
        self._publisher: Publisher | None = None
        self._draining = False

    def check(self, worker: Any) -> None:
        """Refuse to start where the fleet could not run."""
        pool = worker.pool_cls
        if not (isinstance(pool, type) and issubclass(pool, ThreadPool)):
            name = pool if isinstance(pool, str) else pool.__module__.rpartition(".")[2]
            _refuse(
                f"the fleet runs on Celery's threads pool, not on {name}: leave -P away, or say -P threads. "
                f"More processes, not another pool, carry more"
            )
        if not self._settings.accounts and not self._settings.credentials.may_come:
            _refuse("no vendor account is configured: add [accounts.<vendor>.<credential>] to pushfleet.toml")
        try:
            refuse_unusable_redis(self._settings.redis)
            self._probes = open_probes(self._settings.metrics, role="worker", ready=lambda: self._draining)
        except FleetError as problem:
            _refuse(str(problem))

    def start(self, queues: list[str]) -> None:
        may_come = self._settings.credentials.may_come
        named = [vendor for queue in queues if (vendor := vendor_of(queue))]
        vendors = [vendor for vendor in named if may_come or vendor in self._settings.accounts]
        for finding in check_accounts(self._settings):
            # One account's missing file is no reason to hold up the others: its work waits until it is mended.
            if finding.wrong and finding.about.split(".")[1:2] in [[vendor] for vendor in vendors]:
                log.error("%s: %s", finding.about, finding.sentence)
        calm_the_collector()
        core = self._settings.worker.core
        if isinstance(core, int):
            keep_to_core(core)
        self._publisher = Publisher(lambda vendor: publish_drain(self._app, vendor))
        self._runtime = FleetRuntime(self._settings, self._publisher.trigger)
        try:
            self._runtime.start(vendors)
        except FleetError as problem:
            _refuse(str(problem))
        serve_drains(self._app, self._runtime.drain)
        self._draining = True
        log.info("worker drains %s", ", ".join(vendors) or "no configured vendor")

    def stop(self) -> None:
        self._draining = False
        if self._runtime is not None:
            self._runtime.stop()

    def close(self) -> None:
        if self._runtime is not None:
            self._runtime.close()
        if self._publisher is not None:
            self._publisher.close()
        if self._probes is not None:
            self._probes.close()


def _refuse(sentence: str) -> None:
    # Celery's signals swallow exceptions; only leaving ends the start.
    sys.stderr.write(f"pushfleet: {sentence}\n")
    raise SystemExit(2)
