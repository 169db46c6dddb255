"""Vendors refuse, each as far as it does: a device, a class of messages, an account for a while or until tomorrow."""

from __future__ import annotations

from itertools import pairwise

from tests.chaos.bystanders import Bystanders
from tests.chaos.processes import until
from tests.chaos.scenario import TRANSPORTS, scenario
from tests.chaos.stage import PREFIX, Stage

from pushfleet_workers.fakecloud.journal import Met

CHATS, MARKETING = "m1-", "m2-"
THROTTLED_USER = "apns-0"
LIMITED = {"rate_per_s": 150, "burst": 150}
HTML = "PGh0bWw+U2VydmljZSBVbmF2YWlsYWJsZTwvaHRtbD4="
HEALTHY = ("oppo", "apns", "huawei")
"""But for one device of apns and one class of huawei."""


@scenario(
    vendors=("apns", "fcm", "huawei", "honor", "xiaomi", "vivo", "meizu", "tpns", "oppo"),
    transports=TRANSPORTS,
    second={"meizu": "tpns"},
    accounts={
        "apns": {"attempts_max": 50},
        "fcm": LIMITED,
        "huawei": {"device_caps.marketing": 0},
        "honor": LIMITED,
        "xiaomi": {"device_caps.public": 0, **LIMITED},
        "vivo": {"attempts_max": 50, **LIMITED},
        "meizu": LIMITED,
        "tpns": LIMITED,
    },
    excused=frozenset({"dropped:expired"}),
)
def vendors_refuse(stage: Stage) -> None:
    """429 for a device, a refused class, Retry-After, 503s, garbage, expired access tokens, a quota spent for today."""
    if stage.short:
        stage.fleet.env = {**stage.fleet.env, "PUSHFLEET_BREAKER__OPEN_FIRST_S": "0.2"}
    pushes = stage.size(full=400, short=40)
    renewals = {vendor: stage.cloud.rule(vendor, "answer", endpoint="auth", delay_s=0.2) for vendor in ("honor", "fcm")}
    stage.fleet.start_all("router", "worker")
    with Bystanders(stage, HEALTHY, lambda met: _is_bystander(stage, met)) as bystanders:
        with stage.load(per_s=stage.size(full=80, short=120)):
            stage.until_taken(stage.size(full=600, short=120))
            bystanders.calm(pushes)
            # What would wait for its class for longer than it lives ends at once.
            marketing = stage.load(per_s=20, vendors=["huawei"], kind="marketing", groups_every=0, ttl_s=20)
            with marketing, bystanders.fault():
                rules = _refuse(stage)
                until(lambda: "open_until" in _gate(stage, "xiaomi"), what="503s open the breaker")
                bystanders.taken(pushes)
                _expect_open(stage)
            for vendor, rule in rules:
                stage.cloud.forget_rule(vendor, rule)
            stage.command("resume", "meizu", "--force")
            before = stage.cloud.stats("meizu")["accepted"]
            until(lambda: stage.cloud.stats("meizu")["accepted"] > before, what="the resumed vendor is sent to")
            stage.healed()
            with bystanders.catching_up():
                stage.until_caught_up(*(vendor for vendor in stage.people.vendors if vendor != "huawei"))
            bystanders.calm(pushes)
        stage.until_idle()
        bystanders.judge()
    for vendor, rule in renewals.items():
        asked = stage.cloud.matches(vendor, rule)
        stage.expect(asked == 2, f"one access token at first and one after it expired: {vendor} was asked for {asked}")
    accounts = stage.audit().accounts
    doubtful = {vendor for vendor in stage.people.vendors if accounts[f"{vendor}:main"].unknown}
    stage.expect(doubtful == {"vivo"}, f"of a success that nobody can read it is unknown what became: {doubtful}")
    _expect_scopes(stage)


def _refuse(stage: Stage) -> list[tuple[str, int]]:
    """All at once; the rules that say so."""
    cloud, wait_s = stage.cloud, stage.size(full=3, short=1)
    for vendor in ("honor", "fcm"):
        cloud.set(vendor, expire_auth=True)
    return [
        ("apns", cloud.rule("apns", "refuse", code="TooManyRequests", token=stage.people.token(THROTTLED_USER))),
        ("huawei", cloud.rule("huawei", "refuse", code="80300011", contains="MARKETING")),
        ("fcm", cloud.rule("fcm", "throttle", code="RESOURCE_EXHAUSTED", retry_after_s=wait_s, after=5, times=2)),
        ("xiaomi", cloud.rule("xiaomi", "raw", status=503, body=HTML)),
        ("vivo", cloud.rule("vivo", "raw", status=200, body=HTML, every=2)),
        ("meizu", cloud.rule("meizu", "refuse", code="110019")),
    ]


def _is_bystander(stage: Stage, met: Met) -> bool:
    return met.message_id.startswith(CHATS) and met.token != stage.people.token(THROTTLED_USER)


def _gate(stage: Stage, vendor: str) -> set[str]:
    """What shuts an account, by the fields of its gate."""
    return {field.decode() for field in stage.client.hkeys(f"{PREFIX}:{{{vendor}:main}}:gate")}


def _expect_open(stage: Stage) -> None:
    for vendor in ("apns", "huawei"):
        shut = _gate(stage, vendor) & {"pause_until", "open_until"}
        stage.expect(not shut, f"a refusal for less than the account shuts no account: {vendor} has {shut}")
    stage.expect("classes" in _gate(stage, "huawei"), "the refused class waits")
    stage.expect("pause_until" in _gate(stage, "meizu"), "a spent quota pauses the account")


def _expect_scopes(stage: Stage) -> None:
    met = sorted(stage.cloud.met(), key=lambda one: one.at_s)
    users = stage.people.tokens
    by_second = [one for one in met if one.vendor == "tpns" and users.get(one.token, "").startswith("meizu-")]
    stage.expect(by_second, "what has no quota until tomorrow goes by the devices' second channel")
    refused = [one for one in met if one.message_id.startswith(MARKETING) and not one.taken]
    stage.measured("refused_of_the_class", len(refused))
    asked = sum(one.accepted for one in stage.told() if one.id.startswith(MARKETING))
    stage.expect(len(refused) <= asked / 4, f"the refused class is left alone: {len(refused)} of {asked} were refused")
    at_fcm = [one.at_s for one in met if one.vendor == "fcm"]
    silence_s = max(later - earlier for earlier, later in pairwise(at_fcm))
    stage.measured("longest_silence_s", silence_s)
    wait_s = stage.size(full=3, short=1)
    stage.expect(
        silence_s > wait_s / 2, f"Retry-After of {wait_s} s is heeded: the longest silence is {silence_s:.1f} s"
    )
