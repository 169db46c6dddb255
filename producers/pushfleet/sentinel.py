"""Redis behind Sentinels, without touching Redis: what a URL of it says, and what the answers of Sentinels mean.

    redis+sentinel://[user:password@]host[:26379][,host[:26379] …]/master[/database][?option=value&…]

``rediss+sentinel://`` is the same with TLS, to the Sentinels and to Redis. User and password are those of Redis.

================================================ =============================================================
``sentinel_username``, ``sentinel_password``     those of the Sentinels, where they ask for any
``ssl_ca_certs``                                 with TLS: file with the authorities to trust; else the system's
================================================ =============================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

__all__ = [
    "Answer",
    "NoMaster",
    "Place",
    "SentinelAddress",
    "Sighting",
    "is_sentinel_url",
    "master_in",
    "questions",
    "read_facts",
    "read_sighting",
]

PORT = 26379

_SCHEMES = {"redis+sentinel": False, "rediss+sentinel": True}
_OPTIONS = ("sentinel_username", "sentinel_password", "ssl_ca_certs")
_FORM = (
    "a URL of Redis behind Sentinels reads redis+sentinel://user:password@host:26379,host:26379/master/database "
    "(TLS: rediss+sentinel://; in passwords @ / ? # are %40 %2F %3F %23)"
)


class NoMaster(Exception):
    """The Sentinels name no master; the text says why and how to mend it."""


class Place(NamedTuple):
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Sighting(NamedTuple):
    """Whom one Sentinel takes for the master."""

    place: Place
    epoch: int
    """Of its configuration: every failover makes a higher one."""

    down: bool
    """Whether the Sentinel cannot reach it."""


Answer = Sighting | str | None
"""What a Sentinel says: None where it knows no master of that name, a text where it did not answer."""


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Where the Sentinels of a Redis are, and how to get in there and here; read from a URL."""

    sentinels: tuple[Place, ...]
    master: str
    """The name that the Sentinels have for it."""

    database: int = 0
    username: str = ""
    password: str = field(default="", repr=False)
    sentinel_username: str = ""
    sentinel_password: str = field(default="", repr=False)
    tls: bool = False
    ca_file: str = ""

    @classmethod
    def from_url(cls, url: str) -> SentinelAddress:
        """The address in *url*; raises ``ValueError`` with one sentence that repeats nothing of it."""
        scheme, _, rest = url.partition("://")
        if scheme.lower() not in _SCHEMES:
            raise ValueError(_FORM)
        before, _, query = rest.partition("#")[0].partition("?")
        authority, _, path = before.partition("/")
        login, _, hosts = authority.rpartition("@")
        username, _, password = login.partition(":")
        master, _, database = path.strip("/").partition("/")
        options = _options(query)
        if not master:
            raise _flaw("the name of the master is missing, the one behind `sentinel monitor`")
        if not _is_number(database or "0", most=2**31):
            raise _flaw("its database is no number")
        tls = _SCHEMES[scheme.lower()]
        if options.get("ssl_ca_certs") and not tls:
            raise _flaw("ssl_ca_certs goes with rediss+sentinel://")
        return cls(
            sentinels=tuple(_place(host) for host in hosts.split(",")),
            master=unquote(master),
            database=int(database or 0),
            username=unquote(username),
            password=unquote(password),
            sentinel_username=options.get("sentinel_username", ""),
            sentinel_password=options.get("sentinel_password", ""),
            tls=tls,
            ca_file=options.get("ssl_ca_certs", ""),
        )

    @property
    def shown(self) -> str:
        """The address without secrets, for error texts."""
        return f"{','.join(map(str, self.sentinels))}/{self.master}/{self.database}"


def is_sentinel_url(url: str) -> bool:
    """Whether *url* means to name Sentinels, rightly spelled or not."""
    return "sentinel" in url.partition("://")[0].lower() and "://" in url


def questions(master: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The commands to ask a Sentinel with; their replies are for :func:`read_sighting`."""
    # The first alone says whom a failover under way has made the master, the second alone which epoch it is.
    return ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", master), ("SENTINEL", "MASTER", master)


def read_sighting(where: Any, state: Any) -> Sighting | None:
    """What a Sentinel says, from its replies as RESP2 has them; None where it knows no master of that name."""
    if where is None or not isinstance(state, list):
        return None
    facts = read_facts(state)
    place = Place(_text(where[0]), int(where[1]))
    watched = Place(facts.get("ip", ""), int(facts.get("port", 0)))
    down = place == watched and bool({"s_down", "o_down"} & set(facts.get("flags", "").split(",")))
    return Sighting(place, int(facts.get("config-epoch", 0)), down)


def read_facts(state: Any) -> dict[str, str]:
    """The fields of a reply to `SENTINEL MASTER`; none in any other reply."""
    return dict(zip(map(_text, state[::2]), map(_text, state[1::2]), strict=False)) if isinstance(state, list) else {}


def master_in(address: SentinelAddress, answers: Mapping[Place, Answer]) -> Sighting:
    """Whom to take for the master, by what each Sentinel answered.

    The newest configuration counts, not the most frequent one: right after a failover only one Sentinel has it.
    Raises :class:`NoMaster`.
    """
    sightings = [answer for answer in answers.values() if isinstance(answer, Sighting)]
    if sightings:
        places = [(one.epoch, one.place) for one in sightings]
        epoch, place = max(places, key=lambda one: (one[0], places.count(one)))
        down = [one.down for one in sightings if (one.epoch, one.place) == (epoch, place)]
        if sum(down) * 2 > len(down):
            raise NoMaster(
                f"the Sentinels hold {place}, their master {address.master!r}, for down, and have no other one yet"
            )
        return Sighting(place, epoch, down=False)
    if any(answer is None for answer in answers.values()):
        strangers = _listed(place for place, answer in answers.items() if answer is None)
        raise NoMaster(
            f"the Sentinels ({strangers}) watch no master named {address.master!r}: the URL must have the name behind "
            f"`sentinel monitor` in their configuration"
        )
    said = "; ".join(f"{place}: {answer}" for place, answer in answers.items())
    raise NoMaster(
        f"no Sentinel of {address.master!r} answers ({said}): are they running, and are addresses, user, password and "
        f"TLS right?"
    )


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _listed(places: Iterable[Place]) -> str:
    return ", ".join(map(str, places))


def _flaw(flaw: str) -> ValueError:
    return ValueError(f"{_FORM}: {flaw}")


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not options.keys() <= set(_OPTIONS):
        raise _flaw(f"it has another option than {', '.join(_OPTIONS)}")
    return options


def _place(text: str) -> Place:
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        if port and not port.startswith(":"):
            raise _flaw("behind an IPv6 address in [] stands its port or nothing")
        port = port[1:]
    elif ":" in text:
        host, _, port = text.rpartition(":")
    if not host or (":" in host and not text.startswith("[")):
        raise _flaw("each Sentinel is a host, or a host and its port, with a comma between two; IPv6 stands in []")
    if port and not (_is_number(port, most=65_535) and int(port)):
        raise _flaw("a port is no number from 1 to 65535")
    return Place(unquote(host), int(port or PORT))


def _is_number(text: str, *, most: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 11 and int(text) <= most
