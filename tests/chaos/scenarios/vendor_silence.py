"""Vendors answer late or not at all, each in its own way, while others go on."""

from __future__ import annotations

import time

from tests.chaos.bystanders import Bystanders
from tests.chaos.processes import until
from tests.chaos.scenario import TRANSPORTS, scenario
from tests.chaos.stage import PREFIX, Stage

QUIET = ("xiaomi", "oppo", "meizu")
IMPATIENT = ("fcm", "honor")
"""What is not answered in time is an unknown outcome of theirs."""

LIMITED = {"rate_per_s": 150, "burst": 150}
"""Whoever catches up leaves room for others, on two cores that all share."""

HURRIED = {
    "PUSHFLEET_ACCOUNTS__FCM__MAIN__TIMEOUT_S": "0.5",
    "PUSHFLEET_ACCOUNTS__HONOR__MAIN__TIMEOUT_S": "0.5",
    "PUSHFLEET_BREAKER__OPEN_FIRST_S": "0.2",
}
"""In the short form nobody has the time for more."""

GATE = PREFIX + ":{apns:main}:gate"


@scenario(
    vendors=("apns", "fcm", "huawei", "honor", *QUIET),
    transports=TRANSPORTS,
    accounts={
        "apns": LIMITED,
        "fcm": {"timeout_s": 5, **LIMITED},
        "huawei": {"timeout_s": 60, **LIMITED},
        "honor": {"timeout_s": 5, **LIMITED},
        # Whoever waits for the next day is no measure of anything.
        "xiaomi": {"device_caps.public": 0},
    },
)
def vendors_fall_silent(stage: Stage) -> None:
    """One vendor is dark for 60 s, two answer after 30 s, and one takes pushes and never answers."""
    first = stage.pace == 1
    slow_s, dark_s = stage.size(full=30 if first else 6, short=1), stage.size(full=60 if first else 12, short=2)
    if stage.short:
        stage.fleet.env = {**stage.fleet.env, **HURRIED}
    pushes = stage.size(full=800, short=20)
    stage.fleet.start_all("router", "worker")
    with Bystanders(stage, QUIET) as bystanders:
        with stage.load(per_s=120):
            stage.until_taken(stage.size(full=600, short=100))
            bystanders.calm(pushes)
            with bystanders.fault():
                began = stage.now()
                stage.cloud.set("apns", blackout=True)
                rules = _slow_and_silent(stage, slow_s)
                until(lambda: stage.client.hexists(GATE, "open_until"), what="the breaker of the dark vendor opens")
                # So long that some have waited for an answer of full length.
                time.sleep(max(0.0, began + slow_s * 1.2 - stage.now()))
                until(lambda: all(_unknown(stage, *IMPATIENT).values()), what="somebody waited in vain for each")
            for vendor, rule in rules.items():
                stage.cloud.forget_rule(vendor, rule)
            with bystanders.catching_up():
                stage.until_caught_up(*rules)
            with bystanders.fault():
                time.sleep(max(0.0, began + dark_s - stage.now()))
            stage.cloud.set("apns", blackout=False)
            stage.healed()
            with bystanders.catching_up():
                stage.until_caught_up()
            bystanders.calm(pushes)
        stage.until_idle()
        bystanders.judge()
    stage.expect(
        not any(_unknown(stage, "huawei", *QUIET).values()),
        "whoever has the time to wait, and whoever answers, leaves no outcome unknown",
    )


def _unknown(stage: Stage, *vendors: str) -> dict[str, int]:
    """How many outcomes are unknown so far, by vendor."""
    accounts = stage.audit().accounts
    return {vendor: accounts[f"{vendor}:main"].unknown for vendor in vendors}


def _slow_and_silent(stage: Stage, slow_s: float) -> dict[str, int]:
    """Rules, by vendor."""
    return {
        "fcm": stage.cloud.rule("fcm", "answer", delay_s=slow_s),
        "huawei": stage.cloud.rule("huawei", "answer", delay_s=slow_s),
        "honor": stage.cloud.rule("honor", "silent"),
    }
