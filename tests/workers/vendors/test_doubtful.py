"""Which codes prove no death by themselves: a live token gets them as well, when the account is the wrong one."""

from __future__ import annotations

from pushfleet_workers import registry
from pushfleet_workers.outcome import Verdict

DOUBTFUL = {
    "apns": {"BadDeviceToken", "DeviceTokenNotForTopic"},
    "fcm": {"SENDER_ID_MISMATCH"},
    "huawei": {"80300007"},
    "harmony": {"noRight"},
    "vivo": {"user 1", "10302"},
    "xiaomi": {"20301"},
}


def test_the_codes_that_may_speak_of_the_account_are_marked_and_no_others() -> None:
    marked = {
        name: {code for code, row in registry.load(name).codes.items() if row.outcome.doubtful}
        for name in registry.built_in()
    }
    assert {name: codes for name, codes in marked.items() if codes} == DOUBTFUL


def test_only_deaths_are_doubted() -> None:
    for name in registry.built_in():
        for code, row in registry.load(name).codes.items():
            assert not row.outcome.doubtful or row.outcome.verdict is Verdict.DROP_TOKEN, code
