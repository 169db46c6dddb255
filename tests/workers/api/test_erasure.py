"""Erasing a user over HTTP."""

from __future__ import annotations

from typing import Any

from tests.workers.api.support import ACCOUNTS, NOW_MS, USER, Api, a_body, served

from pushfleet_workers.api.erasure import erasure_routes, erasure_schemas
from pushfleet_workers.erasure import EraseDesk, ErasureKeeper
from pushfleet_workers.redis_link import Link
from pushfleet_workers.settings import AppSettings, DeathsSettings, Settings


def test_a_user_is_erased_at_once_and_it_is_told_when_all_of_it_is_done(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        await api.put(f"{USER}/devices/d1", a_body())
        answer = await api.client.delete(USER)
        assert answer.status_code == 202
        told = answer.json()
        assert (told["known"], (await api.get(USER))) == (
            True,
            {"devices": {}, "receive_options": {}, "erasing_since_ms": told["since_ms"]},
        )
        again = await api.client.delete(USER)
        assert (again.status_code, again.json()["known"]) == (202, False)
        # Who is back in the meantime stays.
        await api.put(f"{USER}/devices/d2", a_body("another-token"))
        sections: dict[str, Any] = {"apps": {"demo": {}, "lite": {}}, "redis": {"url": redis_url, "prefix": "t"}}
        settings = Settings(**sections, worker={"recheck_s": 0})
        keeper = ErasureKeeper(link, link, settings, ACCOUNTS, desk, api.store)
        while (await api.get(USER))["erasing_since_ms"]:
            await keeper.look()
        assert list((await api.get(USER))["devices"]) == ["d2"]
        await link.close()

    link = Link(redis_url)
    desk = EraseDesk(link, link, "t", DeathsSettings(), lambda: NOW_MS)
    served(redis_url, scenario, routers=[erasure_routes(desk, {"demo": AppSettings(), "lite": AppSettings()})])


def test_another_app_is_refused_and_the_shape_is_documented(redis_url: str) -> None:
    async def scenario(api: Api) -> None:
        answer = await api.client.delete("/v1/apps/none/users/ann")
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_app")
        too_long = await api.client.delete(f"/v1/apps/demo/users/{'x' * 257}")
        assert (too_long.status_code, too_long.json()["field"]) == (422, "user")
        assert "delete" in (await api.get("/openapi.json"))["paths"]["/v1/apps/{app}/users/{user}"]
        assert set(erasure_schemas()) == {"Erasing"}
        await link.close()

    link = Link(redis_url)
    desk = EraseDesk(link, link, "t", DeathsSettings(), lambda: NOW_MS)
    served(redis_url, scenario, routers=[erasure_routes(desk, {"demo": AppSettings(), "lite": AppSettings()})])
