"""How Celery is told of the broker: the same URL as everywhere, in kombu's words."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import quote

from pushfleet.sentinel import Place, SentinelAddress
from pushfleet_workers.redis_address import RedisAddress, read_url

__all__ = ["broker_settings"]

_ANSWER_S = 1.0


def broker_settings(url: str) -> dict[str, Any]:
    """What of Celery's settings says where the broker is and how to get in; an empty *url*: nowhere.

    Raises :class:`RedisUnusable` for what is no URL of a Redis, without repeating what it says.
    """
    if not url:
        return {"broker_url": "", "broker_transport_options": {}}
    address = read_url(url)
    options = {}
    if isinstance(address, RedisAddress):
        broker_url = _server_url(address)
    else:
        broker_url = ";".join(_sentinel_url(address, place) for place in address.sentinels)
        options = {"master_name": address.master, "sentinel_kwargs": _to_sentinel(address)}
    trust = {"broker_use_ssl": _trust(address)} if address.tls else {}
    return {"broker_url": broker_url, "broker_transport_options": options, **trust}


def _server_url(address: RedisAddress) -> str:
    if address.path:
        return f"redis+socket://{_login(address)}{quote(address.path)}?virtual_host={address.database}"
    place = Place(address.host, address.port)
    return f"{'rediss' if address.tls else 'redis'}://{_login(address)}{place}/{address.database}"


def _sentinel_url(address: SentinelAddress, place: Place) -> str:
    # The login is that of Redis; kombu takes whichever of the URLs it happens to be at.
    return f"sentinel://{_login(address)}{place}/{address.database}"


def _to_sentinel(address: SentinelAddress) -> dict[str, Any]:
    return {
        "socket_timeout": _ANSWER_S,
        "socket_connect_timeout": _ANSWER_S,
        "username": address.sentinel_username or None,
        "password": address.sentinel_password or None,
        **({"ssl": True, **_trust(address)} if address.tls else {}),
    }


def _trust(address: RedisAddress | SentinelAddress) -> dict[str, Any]:
    """Without it kombu would take any certificate."""
    trusted = {"ssl_ca_certs": address.ca_file} if address.ca_file else {}
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, **trusted}


def _login(address: RedisAddress | SentinelAddress) -> str:
    if not address.password:
        return ""
    return f"{quote(address.username, safe='')}:{quote(address.password, safe='')}@"
