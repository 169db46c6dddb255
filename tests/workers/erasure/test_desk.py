"""What goes at once as a user is erased."""

from __future__ import annotations

from tests.workers.tokens.deaths_support import DATED, DOUBTFUL, Hall, in_hall
from tests.workers.tokens.support import APP, PREFIX

from pushfleet_workers.erasure import EraseDesk


def test_an_erased_user_leaves_nothing_in_the_token_state(redis_url: str) -> None:
    async def scenario(hall: Hall) -> None:
        for user in ("ann", "bob"):
            await hall.register(user, f"{user}-1", f"{user}-2", f"{user}-3")
            await hall.store.set_receive_option(APP, user, "room", "none")
            await hall.answer((user, f"{user}-1", DATED), (user, f"{user}-2", DOUBTFUL))
        desk = EraseDesk(hall.link, hall.link, PREFIX, hall.limits, lambda: hall.now_ms)
        assert (await desk.erase(APP, "ann")).known
        assert not (await desk.erase(APP, "ann")).known
        assert await hall.link.call("KEYS", f"{PREFIX}:{{u:{APP}:ann}}*") == []
        assert [await hall.owner(f"ann-{number}") for number in (1, 2, 3)] == [None] * 3
        assert [grave.user for grave in await hall.deaths.ward.oldest("apns", "main", 10)] == ["bob"]
        assert (await hall.tokens("bob"), await hall.owner("bob-3")) == (["bob-2", "bob-3"], "bob")

    in_hall(redis_url, scenario)
