"""Fakes of other packages beside ours."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from pushfleet_workers.errors import SettingsError
from pushfleet_workers.fakecloud.meizu import Meizu
from pushfleet_workers.fakecloud.registry import GROUP, VENDORS, with_plug_ins


class Acme(Meizu):
    name = "acme"


class Unfinished:
    name = "unfinished"


def a_point(name: str, fake: str) -> EntryPoint:
    return EntryPoint(name, f"{__name__}:{fake}", GROUP)


def test_a_fake_of_another_package_stands_beside_ours() -> None:
    vendors = with_plug_ins([a_point("acme", "Acme")])
    assert vendors["acme"].name == "acme"
    assert list(vendors)[: len(with_plug_ins([]))] == list(with_plug_ins([]))
    assert "acme" not in with_plug_ins([])


@pytest.mark.parametrize(
    ("name", "fake", "told"),
    [
        ("apns", "Acme", "takes the name of one of ours"),
        ("ajax", "Acme", "calls itself 'acme'"),
        ("unfinished", "Unfinished", "lacks address_bound, answer, deaths, expire_auth, "),
    ],
)
def test_a_fake_that_would_not_work_is_refused(name: str, fake: str, told: str) -> None:
    with pytest.raises(SettingsError, match=f"the fake vendor '{name}' .* {told}"):
        with_plug_ins([a_point(name, fake)])


def test_the_fake_cloud_has_ours_at_least() -> None:
    assert with_plug_ins([]).items() <= VENDORS.items()
