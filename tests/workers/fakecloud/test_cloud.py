from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

from pushfleet_workers.fakecloud import Credential, FakeCloud, FakeCloudThread, serve
from pushfleet_workers.fakecloud.fcm import GRANT_TYPE

NOW_S = 1_800_000_000


def client_of(cloud: FakeCloud) -> httpx.AsyncClient:
    return httpx.AsyncClient(http2=True, verify=ssl.create_default_context(cafile=cloud.ca_file), timeout=5)


def refuses(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


def provider_token(key: Credential) -> str:
    claims = {"iss": key.settings["team_id"], "iat": NOW_S}
    return jwt.encode(claims, key.file.read_text(), "ES256", headers={"kid": key.settings["key_id"]})


async def push(cloud: FakeCloud, client: httpx.AsyncClient, key: Credential, topic: str) -> int:
    headers = {
        "authorization": f"bearer {provider_token(key)}",
        "apns-topic": topic,
        "apns-push-type": "alert",
    }
    answer = await client.post(f"{cloud.url('apns')}/3/device/00ff", content=b'{"aps":{}}', headers=headers)
    return answer.status_code


async def fcm_token(cloud: FakeCloud, client: httpx.AsyncClient, account: dict[str, str]) -> httpx.Response:
    claims = {
        "iss": account["client_email"],
        "scope": "https://www.googleapis.com/auth/firebase.messaging",
        "aud": account["token_uri"],
        "iat": NOW_S,
        "exp": NOW_S + 3_600,
    }
    grant = jwt.encode(claims, account["private_key"], "RS256", headers={"kid": account["private_key_id"]})
    return await client.post(account["token_uri"], data={"grant_type": GRANT_TYPE, "assertion": grant})


def a_cloud(**options: Any) -> FakeCloud:
    return FakeCloud(wall=lambda: float(NOW_S), **options)


def test_a_closed_cloud_leaves_no_task_no_port_and_no_folder() -> None:
    async def main() -> tuple[list[int], Path]:
        before = asyncio.all_tasks()
        async with a_cloud() as cloud, client_of(cloud) as client:
            key = cloud.credential("apns")
            cloud.rule("apns", "answer", delay_s=60, after=1)
            assert await push(cloud, client, key, "com.example.im") == 200
            waiting = asyncio.create_task(push(cloud, client, key, "com.example.im"))
            while cloud.stats()["vendors"]["apns"]["requests"] < 2:
                await asyncio.sleep(0.001)
            ports, folder = [cloud.port(name) for name in cloud.vendors], cloud.ca_file.parent
            await cloud.__aexit__(None, None, None)
            with pytest.raises(httpx.TransportError):
                await waiting
        assert asyncio.all_tasks() == before
        return ports, folder

    ports, folder = asyncio.run(main())

    assert all(refuses(port) for port in ports)
    assert not folder.exists()


def test_a_blackout_is_complete_when_it_returns() -> None:
    async def main() -> int:
        async with a_cloud(vendors=["apns"]) as cloud, client_of(cloud) as client:
            await push(cloud, client, cloud.credential("apns"), "com.example.im")
            assert cloud.stats()["vendors"]["apns"]["connections"] == 1
            await cloud.blackout("apns")
            return int(cloud.stats()["vendors"]["apns"]["connections"])

    assert asyncio.run(main()) == 0


def test_a_fixed_port_that_is_taken_is_an_error_and_leaves_nothing_open() -> None:
    async def main() -> None:
        async with a_cloud(vendors=["apns"]) as first:
            with pytest.raises(OSError, match="in use"):
                async with a_cloud(vendors=["fcm", "apns"], ports={"apns": first.port("apns")}):
                    pass

    asyncio.run(main())


def test_a_fixed_port_is_used_again_at_once() -> None:
    async def main() -> None:
        async with a_cloud(vendors=["apns"]) as cloud, client_of(cloud) as client:
            port = cloud.port("apns")
            assert await push(cloud, client, cloud.credential("apns"), "com.example.im") == 200
        async with a_cloud(vendors=["apns"], ports={"apns": port}) as cloud:
            assert cloud.url("apns") == f"https://127.0.0.1:{port}"

    asyncio.run(main())


def test_keys_of_several_teams_push_to_their_own_topics() -> None:
    async def main() -> list[int]:
        async with a_cloud(vendors=["apns"]) as cloud:
            one = cloud.credential("apns", team_id="TEAM000001", topics=["com.example.one"])
            two = cloud.credential("apns", team_id="TEAM000002", topics=["com.example.two", "com.example.three"])
            statuses = []
            for key, topic in ((one, "com.example.one"), (two, "com.example.three"), (two, "com.example.one")):
                async with client_of(cloud) as client:
                    statuses.append(await push(cloud, client, key, topic))
            return statuses

    assert asyncio.run(main()) == [200, 200, 400]


def test_a_push_travels_from_the_service_account_file_to_the_book() -> None:
    async def main() -> None:
        async with a_cloud(vendors=["fcm"]) as cloud, client_of(cloud) as client:
            account = json.loads(cloud.credential("fcm").file.read_bytes())
            bearer = (await fcm_token(cloud, client, account)).json()["access_token"]
            url = f"{cloud.url('fcm')}/v1/projects/demo-im/messages:send"
            message = {"message": {"token": "t-1", "data": {"mid": "m-1"}}}
            headers = {"authorization": f"Bearer {bearer}"}

            assert (await client.post(url, json=message, headers=headers)).status_code == 200
            cloud.expire_auth("fcm")
            assert (await client.post(url, json=message, headers=headers)).status_code == 401

            assert [got.message_id for got in cloud.received("fcm", "t-1")] == ["m-1"]
            assert cloud.book.peak("fcm", "demo-im") == 1

    asyncio.run(main())


def test_another_cloud_knows_the_credentials_of_the_same_folder(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_cloud(vendors=["apns"], folder=tmp_path) as cloud:
            key = cloud.credential("apns")
        async with a_cloud(vendors=["apns"], folder=tmp_path) as cloud, client_of(cloud) as client:
            assert cloud.credentials() == [key]
            assert await push(cloud, client, key, "com.example.im") == 200

    asyncio.run(main())


def test_a_service_account_follows_the_fake_to_a_new_port(tmp_path: Path) -> None:
    async def main() -> None:
        async with a_cloud(vendors=["fcm"], folder=tmp_path) as cloud:
            file = cloud.credential("fcm").file
            old_port = cloud.port("fcm")
        with socket.create_server(("127.0.0.1", old_port)):
            async with a_cloud(vendors=["fcm"], folder=tmp_path) as cloud, client_of(cloud) as client:
                account = json.loads(file.read_bytes())
                assert account["token_uri"] == f"{cloud.url('fcm')}/token"
                assert (await fcm_token(cloud, client, account)).status_code == 200
                assert len(cloud.credentials()) == 1

    asyncio.run(main())


def test_secrets_lie_in_files_for_the_owner_only_and_not_in_the_registry(tmp_path: Path) -> None:
    async def main() -> list[Credential]:
        async with a_cloud(folder=tmp_path) as cloud:
            return [cloud.credential(name) for name in cloud.vendors]

    made = asyncio.run(main())

    registry = (tmp_path / "registry.json").read_text()
    assert "PRIVATE" not in registry
    for credential in made:
        assert credential.file.stat().st_mode & 0o777 == 0o600
        assert credential.file.read_text() not in registry


def test_an_unknown_vendor_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no vendor 'acme': apns, fcm, huawei"):
        FakeCloud(vendors=["apns", "acme"])
    with pytest.raises(ValueError, match="no vendor 'fcm'"):
        FakeCloud(vendors=["apns"], ports={"fcm": 1})


def test_a_thread_ends_with_its_cloud_and_reports_a_failed_start() -> None:
    before = set(threading.enumerate())
    with FakeCloudThread(vendors=["apns"]) as cloud:
        port = cloud.port("apns")
        assert cloud.ask(lambda inner: inner.book.pages["apns"].requests) == 0
        with pytest.raises(OSError, match="in use"), FakeCloudThread(vendors=["apns"], ports={"apns": port}):
            pass

    assert refuses(port)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("uvloop", [False, True])
def test_both_event_loops_serve_go_dark_and_come_back(uvloop: bool) -> None:
    with FakeCloudThread(uvloop=uvloop, vendors=["fcm"]) as cloud:
        options: dict[str, Any] = {"base_url": cloud.url("fcm"), "timeout": 5}
        trust = ssl.create_default_context(cafile=cloud.ca_file)
        with httpx.Client(http2=True, verify=trust, **options) as two, httpx.Client(verify=trust, **options) as one:
            assert [client.post("/token").http_version for client in (one, two)] == ["HTTP/1.1", "HTTP/2"]
            assert cloud.stats()["vendors"]["fcm"]["connections"] == 2
            cloud.blackout("fcm")
            for client in (one, two, one, two):
                with pytest.raises(httpx.TransportError):
                    client.post("/token")
            cloud.heal("fcm")
            assert [client.post("/token").status_code for client in (one, two)] == [400, 400]


def test_a_process_announces_itself_and_takes_the_announcement_back(tmp_path: Path) -> None:
    ready_file = tmp_path / "run" / "ready.json"

    async def main() -> dict[str, Any]:
        server = serve(credentials=tmp_path / "held", ready_file=ready_file, vendors=["apns", "huawei"])
        serving = asyncio.create_task(server)
        while not ready_file.exists():
            await asyncio.sleep(0.005)
        ready: dict[str, Any] = json.loads(ready_file.read_bytes())
        async with httpx.AsyncClient() as client:
            assert set((await client.get(f"{ready['control_url']}/stats")).json()["vendors"]) == {"apns", "huawei"}
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        return ready

    ready = asyncio.run(main())

    assert set(ready) == {"pid", "ca_file", "control_url", "vendors", "credentials"}
    assert [held["vendor"] for held in ready["credentials"]] == ["apns", "huawei"]
    assert all(Path(held["file"]).is_file() for held in ready["credentials"])
    assert Path(ready["ca_file"]).is_file()
    assert not ready_file.exists()
    assert refuses(ready["vendors"]["apns"]["port"])
