"""One transport alone, as fast as it goes: the limit of everything above it. Prints `ready`, then one line of JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import uvloop
from bench.cpu import cpu_s

from pushfleet_workers.transports import open_transport
from pushfleet_workers.transports.base import TransportOptions
from pushfleet_workers.vendor import Request

BODY = b'{"aps":{"alert":{"title":"Ann","body":"See you at eight?"},"badge":3,"sound":"default"},"mid":"m-1"}'


async def main(engine: str, url: str, ca_file: str, count: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    in_flight = 100 if engine == "httpx" else 200
    options = TransportOptions(http2=True, ca_bundle=Path(ca_file), in_flight_max=in_flight, timeout_s=60)
    transport = open_transport(engine, options)
    numbers = iter(range(count))

    def request(number: int) -> Request:
        headers = {
            "authorization": "bearer " + "x" * 180,
            "apns-topic": "com.example.bench",
            "apns-push-type": "alert",
            "apns-priority": "10",
            "apns-expiration": "1900000000",
            "apns-id": f"00000000-0000-4000-8000-{number:012x}",
        }
        return Request(f"{url}/3/device/{number:064x}", headers, BODY)

    async def worker() -> None:
        for number in numbers:
            response = await transport.send(request(number))
            if response.status != 200 or response.http_version != "HTTP/2.0":
                raise RuntimeError(f"unexpected answer {response.status} over {response.http_version}")

    await transport.send(request(0))
    started, cpu = time.perf_counter(), cpu_s([os.getpid()])
    await asyncio.gather(*(worker() for _ in range(in_flight)))
    spent_s, cpu = time.perf_counter() - started, cpu_s([os.getpid()]) - cpu
    print(json.dumps({"per_s": count / spent_s, "per_cpu_s": count / cpu}))
    await transport.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
