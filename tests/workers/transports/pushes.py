"""Pushes that every engine is asked to send, and what became of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

import pytest

from pushfleet_workers.errors import NoAnswer
from pushfleet_workers.transports import Transport
from pushfleet_workers.vendor import Request, Response

TOKEN = "5ec2e7" * 10
JWT = "bearer aaa.jwt-of-the-test.zzz"
TEXT = "See you at eight?"

OpenTransport = Callable[..., Any]


def a_push(peer: Any, number: int = 0, body: bytes = b"", **headers: str) -> Request:
    return Request(
        url=f"{peer.url}/3/device/{TOKEN}{number:04x}",
        headers={
            "authorization": JWT,
            "apns-id": str(UUID(int=number)),
            "apns-topic": "com.example.im",
            "apns-push-type": "alert",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        },
        body=body or json.dumps({"aps": {"alert": TEXT}}).encode(),
    )


async def outcomes(transport: Transport, requests: Iterable[Request]) -> list[Response | NoAnswer]:
    results = await asyncio.gather(*(transport.send(request) for request in requests), return_exceptions=True)
    for result in results:
        assert isinstance(result, Response | NoAnswer), result
    return results  # type: ignore[return-value]


async def no_answer(transport: Transport, request: Request) -> NoAnswer:
    with pytest.raises(NoAnswer) as caught:
        await transport.send(request)
    return caught.value


def answered(results: list[Response | NoAnswer]) -> int:
    return sum(isinstance(result, Response) and result.status == 200 for result in results)


def unknown(results: list[Response | NoAnswer]) -> int:
    return sum(isinstance(result, NoAnswer) and result.maybe_delivered for result in results)
