"""Connections to vendors break in every way that they can, one after the other, while other vendors go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tests.chaos.bystanders import Bystanders
from tests.chaos.processes import until
from tests.chaos.scenario import TRANSPORTS, scenario
from tests.chaos.stage import PREFIX, Stage

BROKEN = ("apns", "fcm", "huawei")
MULTIPLEXED = {"apns": 1_000, "fcm": 100}
"""Those that speak HTTP/2, and how many streams they grant."""

QUIET = ("oppo", "meizu")
FRAIL = {"timeout_s": 3, "rate_per_s": 80, "burst": 80}
"""They catch up slowly enough to leave others a share of the one process that sends for all."""

RULES: Mapping[str, Mapping[str, Any]] = {
    "GOAWAY, and it was not taken": {"action": "goaway"},
    "GOAWAY, and it was taken": {"action": "goaway", "accepts": True},
    "RST_STREAM, and it was taken": {"action": "reset", "accepts": True},
    "RST_STREAM, refused": {"action": "reset", "h2_error": 7},
    "broken off": {"action": "drop", "accepts": True},
    "half-closed": {"action": "half_close"},
    "no answer": {"action": "silent"},
    "an answer that comes too late": {"action": "answer", "delay_s": 4},
    "a body of garbage": {"action": "raw", "status": 502, "body": "PGh0bWw+AP8="},
}
TLS = ("untrusted", "absent", "hanging")


@scenario(vendors=(*BROKEN, *QUIET), transports=TRANSPORTS, accounts=dict.fromkeys(BROKEN, FRAIL))
def connections_break(stage: Stage) -> None:
    """GOAWAY, RST_STREAM, half-closed and broken connections, failing TLS, one stream at a time, silence, garbage."""
    if stage.short:
        stage.fleet.env = {**stage.fleet.env, "PUSHFLEET_BREAKER__OPEN_FIRST_S": "0.2"}
    pushes = stage.size(full=540, short=20)
    stage.fleet.start_all("router", "worker")
    with Bystanders(stage, QUIET) as bystanders:
        with stage.load(per_s=stage.size(full=100, short=120)):
            stage.until_taken(stage.size(full=400, short=100))
            bystanders.calm(pushes)
            for name, fault in _faults(stage).items():
                with bystanders.fault():
                    heal = fault()
                heal()
                with bystanders.catching_up():
                    _taken_again(stage, name)
            stage.healed()
            stage.until_caught_up()
            bystanders.calm(pushes)
        stage.until_idle()
        bystanders.judge()
    unknown = {vendor: stage.audit().accounts[f"{vendor}:main"].unknown for vendor in stage.people.vendors}
    stage.expect(not any(unknown[vendor] for vendor in QUIET), "bystanders leave no outcome unknown")


Fault = Callable[[], Callable[[], None]]
"""Breaks something, returns once that was felt, with what heals it."""


def _faults(stage: Stage) -> dict[str, Fault]:
    chosen = ("GOAWAY, and it was taken", "RST_STREAM, and it was taken", "half-closed") if stage.short else RULES
    faults: dict[str, Fault] = {name: lambda fields=RULES[name]: _scripted(stage, fields) for name in chosen}  # type: ignore[misc]
    for tls in TLS[:1] if stage.short else TLS:
        faults[f"TLS is {tls}"] = lambda tls=tls: _without_tls(stage, tls)  # type: ignore[misc]
    return {**faults, "one stream at a time": lambda: _one_stream(stage)}


def _scripted(stage: Stage, fields: Mapping[str, Any]) -> Callable[[], None]:
    """Every third request has that fate, and half of the others are on their way meanwhile."""
    times = stage.size(full=8, short=2)
    rules = [(vendor, stage.cloud.rule(vendor, every=3, times=times, **fields)) for vendor in BROKEN]
    rules += [(vendor, stage.cloud.rule(vendor, "answer", every=2, delay_s=0.1)) for vendor in BROKEN]
    until(
        lambda: all(stage.cloud.matches(vendor, number) >= 3 * times for vendor, number in rules[: len(BROKEN)]),
        what=f"{fields} has befallen {times} requests of each",
    )

    def heal() -> None:
        for vendor, number in rules:
            stage.cloud.forget_rule(vendor, number)

    return heal


def _without_tls(stage: Stage, tls: str) -> Callable[[], None]:
    for vendor in BROKEN:
        stage.cloud.set(vendor, tls=tls)
    for vendor in BROKEN:
        gate = f"{PREFIX}:{{{vendor}:main}}:gate"
        until(lambda gate=gate: stage.client.hexists(gate, "open_until"), what=f"the breaker of {vendor} opens")  # type: ignore[misc]

    def heal() -> None:
        for vendor in BROKEN:
            stage.cloud.set(vendor, tls="sound")

    return heal


def _one_stream(stage: Stage) -> Callable[[], None]:
    for vendor in MULTIPLEXED:
        stage.cloud.set(vendor, max_streams=1)
    _take(stage, tuple(MULTIPLEXED), stage.size(full=60, short=10), "with one stream")

    def heal() -> None:
        for vendor, streams in MULTIPLEXED.items():
            stage.cloud.set(vendor, max_streams=streams)

    return heal


def _taken_again(stage: Stage, after: str) -> None:
    _take(stage, BROKEN, 10, f"after {after}")
    stage.until_caught_up(*BROKEN)


def _take(stage: Stage, vendors: tuple[str, ...], pushes: int, when: str) -> None:
    enough = {vendor: stage.cloud.stats(vendor)["accepted"] + pushes for vendor in vendors}
    until(
        lambda: all(stage.cloud.stats(vendor)["accepted"] >= enough[vendor] for vendor in vendors),
        what=f"{pushes} pushes are taken {when} by each of {', '.join(vendors)}",
    )
