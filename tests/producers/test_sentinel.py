import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushfleet import AsyncProducer, Producer
from pushfleet.connections import ask_all
from pushfleet.sentinel import (
    Answer,
    NoMaster,
    Place,
    SentinelAddress,
    Sighting,
    is_sentinel_url,
    master_in,
    questions,
    read_sighting,
)

SECRET = "s3cret/with:odd@signs?#%"
HOSTS = (Place("h1", 26379), Place("h2", 26380), Place("h3", 26379))
FLEET = SentinelAddress(HOSTS, "fleet")


# ---- URLs


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis+sentinel://h1,h2:26380,h3/fleet", FLEET),
        ("redis+sentinel://h1:26379,h2:26380,h3:26379/fleet/", FLEET),
        ("Redis+Sentinel://h1,h2:26380,h3/fleet/0", FLEET),
        ("redis+sentinel://h/fleet/3", SentinelAddress((Place("h", 26379),), "fleet", 3)),
        ("redis+sentinel://h/my%2Ffleet", SentinelAddress((Place("h", 26379),), "my/fleet")),
        ("redis+sentinel://[::1]:7000,[fe80::2]/m",
         SentinelAddress((Place("::1", 7000), Place("fe80::2", 26379)), "m")),
        ("redis+sentinel://:pw@h/m", SentinelAddress((Place("h", 26379),), "m", password="pw")),
        ("redis+sentinel://me:p%40%2Fw@h/m/1?sentinel_username=you&sentinel_password=q%26r",
         SentinelAddress((Place("h", 26379),), "m", 1, "me", "p@/w", "you", "q&r")),
        ("rediss+sentinel://h/m?ssl_ca_certs=/etc/ca.pem",
         SentinelAddress((Place("h", 26379),), "m", tls=True, ca_file="/etc/ca.pem")),
    ],
)  # fmt: skip
def test_an_address_is_read_from_its_url(url: str, expected: SentinelAddress) -> None:
    assert is_sentinel_url(url)
    assert SentinelAddress.from_url(url) == expected


@pytest.mark.parametrize(
    ("url", "flaw"),
    [
        ("redis+sentinel://s3cret@h1,h2", "name of the master is missing"),
        ("redis+sentinel://h1,h2/", "name of the master is missing"),
        ("redis+sentinel://:s3cret/x@h1/fleet", "its database is no number"),
        ("redis+sentinel://:s3cret@h1/fleet/one", "its database is no number"),
        ("redis+sentinel://:s3cret@h1/fleet/1/2", "its database is no number"),
        ("redis+sentinel://:s3cret@h1/fleet/99999999999", "its database is no number"),
        ("redis+sentinel:///fleet", "each Sentinel is a host"),
        ("redis+sentinel://h1,,h2/fleet", "each Sentinel is a host"),
        ("redis+sentinel://h1;h2/fleet/0?sentinel_pasword=s3cret", "another option than sentinel_username"),
        ("redis+sentinel://:s3cret@h1:zero/fleet", "no number from 1 to 65535"),
        ("redis+sentinel://:s3cret@h1:0/fleet", "no number from 1 to 65535"),
        ("redis+sentinel://:s3cret@h1:65536/fleet", "no number from 1 to 65535"),
        ("redis+sentinel://::1:26379/fleet", "IPv6 stands in"),
        ("redis+sentinel://[::1]26379/fleet", "stands its port or nothing"),
        ("redis+sentinel://h/fleet?ssl_ca_certs=/ca.pem", r"ssl_ca_certs goes with rediss\+sentinel"),
        ("sentinel://:s3cret@h:26379/0", r"reads redis\+sentinel://user"),
        ("redis-sentinel://:s3cret@h:26379/fleet", r"reads redis\+sentinel://user"),
    ],
)
def test_what_is_none_is_refused_in_a_sentence_that_repeats_no_secret(url: str, flaw: str) -> None:
    assert is_sentinel_url(url)
    with pytest.raises(ValueError, match=flaw) as refusal:
        SentinelAddress.from_url(url)
    assert "s3cret" not in str(refusal.value)
    for kind in (Producer, AsyncProducer):
        with pytest.raises(ValueError, match=flaw):
            kind(url)


@pytest.mark.parametrize("url", ["redis://sentinel.internal/0", "rediss://h/0", "unix:///run/sentinel.sock", "", "x"])
def test_the_url_of_a_server_means_no_sentinels(url: str) -> None:
    assert not is_sentinel_url(url)


names = st.text(min_size=1).filter(lambda name: name.isprintable() and not name.isspace())
hosts = st.from_regex(
    r"[a-z][a-z0-9.-]{0,20}|[0-9]{1,3}(\.[0-9]{1,3}){3}|[0-9a-f:]{0,8}::[0-9a-f]{1,4}", fullmatch=True
)


@given(
    places=st.lists(st.tuples(hosts, st.integers(1, 65_535)), min_size=1, max_size=5),
    master=names,
    database=st.integers(0, 2**31),
    login=st.tuples(st.text(), st.text()),
    sentinel_login=st.tuples(st.text(), st.text()),
)
def test_whatever_is_written_into_a_url_is_read_out_of_it(
    places: list[tuple[str, int]],
    master: str,
    database: int,
    login: tuple[str, str],
    sentinel_login: tuple[str, str],
) -> None:
    user, password, sentinel_user, sentinel_password = (quote(one, safe="") for one in (*login, *sentinel_login))
    url = (
        f"redis+sentinel://{user}:{password}@{','.join(str(Place(*one)) for one in places)}/{quote(master, safe='')}"
        f"/{database}?sentinel_username={sentinel_user}&sentinel_password={sentinel_password}"
    )
    read = SentinelAddress.from_url(url)
    assert read == SentinelAddress(tuple(Place(*one) for one in places), master, database, *login, *sentinel_login)


@given(rest=st.text())
def test_no_text_at_all_does_more_than_be_refused(rest: str) -> None:
    try:
        address = SentinelAddress.from_url("redis+sentinel://" + rest)
    except ValueError:
        return
    assert address.sentinels
    assert address.master


def test_an_address_shows_no_secret() -> None:
    at = quote(SECRET, safe="")
    address = SentinelAddress.from_url(f"redis+sentinel://me:{at}@h1,h2/fleet?sentinel_password={at}")
    assert (address.password, address.sentinel_password) == (SECRET, SECRET)
    assert address.shown == "h1:26379,h2:26379/fleet/0"
    assert SECRET not in repr(address) + str(address)


# ---- what Sentinels say


def seen(port: int, epoch: int = 1, *, down: bool = False) -> Sighting:
    return Sighting(Place("r", port), epoch, down)


def of(*answers: Answer) -> dict[Place, Answer]:
    return dict(zip(HOSTS, answers, strict=True))


@pytest.mark.parametrize(
    ("answers", "port"),
    [
        (of(seen(1), seen(1), seen(1)), 1),
        (of(seen(1), "refused", "no answer in time"), 1),
        (of(None, seen(1), "refused"), 1),
        # Right after a failover one knows of it.
        (of(seen(1, 1), seen(2, 2), seen(1, 1)), 2),
        (of(seen(1, 1, down=True), seen(2, 2), seen(1, 1, down=True)), 2),
        # One alone cannot reach it.
        (of(seen(1, down=True), seen(1), seen(1)), 1),
        # They were set up with different ones, which should not be: then the most count.
        (of(seen(3, 0), seen(1, 0), seen(1, 0)), 1),
    ],
)
def test_the_newest_configuration_counts(answers: dict[Place, Answer], port: int) -> None:
    assert master_in(FLEET, answers).place == Place("r", port)


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        (of(None, None, "refused"),
         ("the Sentinels (h1:26379, h2:26380) watch no master named 'fleet': the URL must have the name behind "
         "`sentinel monitor` in their configuration")),
        (of("refused", "NOAUTH", "no answer in time"),
         ("no Sentinel of 'fleet' answers (h1:26379: refused; h2:26380: NOAUTH; h3:26379: no answer in time): are they "
         "running, and are addresses, user, password and TLS right?")),
        (of(seen(1, down=True), seen(1, down=True), seen(1)),
         "the Sentinels hold r:1, their master 'fleet', for down, and have no other one yet"),
        (of(seen(1, down=True), "refused", "refused"),
         "the Sentinels hold r:1, their master 'fleet', for down, and have no other one yet"),
    ],
)  # fmt: skip
def test_where_no_master_is_named_a_sentence_says_why(answers: dict[Place, Answer], sentence: str) -> None:
    with pytest.raises(NoMaster) as problem:
        master_in(FLEET, answers)
    assert str(problem.value) == sentence


def state(**facts: object) -> list[bytes]:
    told = {"name": "fleet", "ip": "10.0.0.1", "port": 6379, "flags": "master", "config-epoch": 4, **facts}
    return [str(part).encode() for pair in told.items() for part in pair]


def test_a_sentinel_is_understood() -> None:
    assert questions("fleet") == (("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "fleet"), ("SENTINEL", "MASTER", "fleet"))
    here, there = [b"10.0.0.1", b"6379"], [b"10.0.0.2", b"6379"]
    assert read_sighting(here, state()) == Sighting(Place("10.0.0.1", 6379), 4, down=False)
    assert read_sighting(here, state(flags="s_down,master,disconnected")) == Sighting(Place("10.0.0.1", 6379), 4, True)
    # A failover under way: it is not the new master that is down.
    assert read_sighting(there, state(flags="s_down,o_down,master")) == Sighting(Place("10.0.0.2", 6379), 4, down=False)
    assert read_sighting(None, Exception("ERR No such master with that name")) is None


def test_sentinels_are_asked_at_once_and_the_last_is_not_waited_for() -> None:
    async def answers(delays_s: dict[Place, float]) -> dict[Place, Answer]:
        async def ask(place: Place) -> Answer:
            await asyncio.sleep(delays_s[place])
            return seen(1)

        return await asked(ask)

    async def asked(ask: Callable[[Place], Awaitable[Answer]]) -> dict[Place, Answer]:
        return await ask_all(HOSTS, ask)

    began = time.monotonic()
    one, two, three = HOSTS
    assert asyncio.run(answers({one: 0, two: 0, three: 60})) == of(seen(1), seen(1), "no answer in time")
    assert asyncio.run(answers({one: 0.05, two: 0.05, three: 0.1})) == of(seen(1), seen(1), seen(1))
    assert time.monotonic() - began < 10
