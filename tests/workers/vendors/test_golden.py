"""Requests as files that can be reviewed: golden/<vendor>/<push>.json.

PUSHFLEET_REWRITE=1 pytest tests/workers/vendors writes them anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tests.workers.vendors.samples import AUTH, HERE, NOW_MS, REWRITE, a_delivery, an_account, content, golden_pushes

from pushfleet_workers import registry
from pushfleet_workers.vendor import Request


def as_file(request: Request) -> dict[str, Any]:
    return {
        "method": request.method,
        "url": request.url,
        "headers": dict(request.headers),
        "body": content(request),
    }


@pytest.mark.parametrize("name", registry.built_in())
@pytest.mark.parametrize("case", golden_pushes())
def test_the_request_is_the_golden_one(name: str, case: str, keys: Path) -> None:
    vendor, account, push = registry.load(name), an_account(name, keys), golden_pushes()[case]
    deliveries = [a_delivery(number) for number in range(min(vendor.batch_size, 2))]
    ahead = vendor.stage(account, push, deliveries, AUTH, NOW_MS)
    if ahead is None:
        shown = as_file(vendor.build(account, push, deliveries, AUTH, NOW_MS))
    else:
        after = vendor.build_staged(account, push, deliveries, AUTH, NOW_MS, "staged-1")
        alone = vendor.build(account, push, deliveries[:1], AUTH, NOW_MS)
        shown = {"alone": as_file(alone), "ahead": as_file(ahead), "after": as_file(after)}
    file = HERE / "golden" / name / f"{case}.json"
    if os.environ.get(REWRITE):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(shown, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    assert shown == json.loads(file.read_text(encoding="utf-8"))


def test_there_is_no_golden_file_without_a_push() -> None:
    known = {f"{name}/{case}.json" for name in registry.built_in() for case in golden_pushes()}
    found = {path.relative_to(HERE / "golden").as_posix() for path in (HERE / "golden").rglob("*.json")}
    assert found <= known
