"""How a process speaks to vendors: connections and authorizations, shared by accounts that are the same caller."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from pushfleet_workers.account import AccountSettings
from pushfleet_workers.clock import FleetClock
from pushfleet_workers.credentials import Authorization
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.ledger import AccountKeys
from pushfleet_workers.redis_link import Link
from pushfleet_workers.transports import Transport, TransportOptions, open_transport
from pushfleet_workers.transports.certified import CertifiedTransport
from pushfleet_workers.vendor import Identity, Vendor

__all__ = ["Caller", "Callers", "caller_root"]


@dataclass(slots=True)
class Caller:
    """One way to speak to a vendor: its connections, and what it shows to be let in."""

    transport: Transport
    authorization: Authorization
    auth_transport: Transport
    users: int = 0

    async def close(self) -> None:
        """Close all connections."""
        await self.transport.close()
        await self.auth_transport.close()


class Callers:
    """The callers of this process; accounts with the same :meth:`Vendor.same_caller` get the same one.

    A vendor that ties a connection to a key would take two accounts of one key on two sets of connections, each with
    an authorization of its own, for a sender that cannot make up its mind.

    * **link** - where the fleet keeps its authorizations; None: they stay in this process.
    """

    def __init__(self, link: Link | None, prefix: str, clock: FleetClock) -> None:
        self._link = link
        self._prefix = prefix
        self._clock = clock
        self._callers: dict[str, Caller] = {}

    def enter(self, vendor: Vendor, credential: str, account: AccountSettings) -> Caller:
        """The caller of an account; made when its first account asks. Raises :class:`SettingsError`."""
        root = caller_root(self._prefix, vendor, credential, account)
        caller = self._callers.get(root)
        if caller is None:
            caller = self._callers[root] = self._make(vendor, account, root)
        caller.users += 1
        return caller

    async def leave(self, caller: Caller) -> None:
        """An account is done with *caller*; the last one closes it."""
        caller.users -= 1
        if caller.users == 0:
            self._callers = {root: one for root, one in self._callers.items() if one is not caller}
            await caller.close()

    def _make(self, vendor: Vendor, account: AccountSettings, root: str) -> Caller:
        plain = TransportOptions(timeout_s=account.timeout_s, ca_bundle=account.ca_bundle, proxy=account.proxy)
        auth_transport = open_transport("httpx", plain)
        options = replace(
            plain, http2=vendor.http2, connections=account.connections, in_flight_max=account.in_flight_max
        )
        authorization = Authorization(vendor, account, self._link, root, self._clock, auth_transport.send)
        return Caller(_open(vendor, account, options), authorization, auth_transport)


def caller_root(prefix: str, vendor: Vendor, credential: str, account: AccountSettings) -> str:
    """What the keys in Redis of an account's caller begin with, which names it as well."""
    same = vendor.same_caller(account)
    if not same:
        return AccountKeys(prefix, vendor.name, credential).root
    return f"{prefix}:{{{vendor.name}}}:caller:{blake2b(same.encode(), digest_size=12).hexdigest()}"


def _open(vendor: Vendor, account: Any, options: TransportOptions) -> Transport:
    try:
        certified = vendor.identity(account) is not None
    except CredentialError:
        # The certificate cannot be read yet: its account waits, and nothing else does.
        certified = True
    if not certified:
        return open_transport(account.transport, options)

    def identity() -> Identity:
        found = vendor.identity(account)
        if found is None:
            raise CredentialError(f"{vendor.name} shows no certificate any more")
        return found

    return CertifiedTransport(
        lambda shown: open_transport(account.transport, replace(options, identity=shown)), identity
    )
