"""Who gets pushes in a scenario: users with one device each, at a vendor that their name tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

__all__ = ["APP", "DOOMED", "People"]

APP = "demo"
DOOMED = "dead"
"""How tokens begin that die at the vendor before the first message."""

_LIVING = "a11e"
_DOOMED_EVERY = 50


@dataclass(frozen=True)
class People:
    """So many users at each of some vendors; every fiftieth has a token that is dead without the fleet's knowing."""

    vendors: Sequence[str]
    per_vendor: int
    second: Mapping[str, str] = field(default_factory=dict)
    """Vendor to the vendor of the channel that its devices have besides; the token there lives."""

    def user(self, number: int) -> str:
        """The user of that number, counted over all vendors in turn, again and again."""
        vendor = self.vendors[number % len(self.vendors)]
        return f"{vendor}-{number // len(self.vendors) % self.per_vendor}"

    @property
    def users(self) -> list[str]:
        """All of them."""
        return [self.user(number) for number in range(self.per_vendor * len(self.vendors))]

    @property
    def doomed(self) -> frozenset[str]:
        """Those whose token is dead."""
        return frozenset(user for user in self.users if _is_doomed(user))

    @property
    def tokens(self) -> dict[str, str]:
        """Token to user."""
        second = {_second_token(user): user for user in self.users if self._second_of(user)}
        return {_token(user): user for user in self.users} | second

    def token(self, user: str) -> str:
        """The token of the user's first channel."""
        return _token(user)

    def devices(self) -> list[dict[str, Any]]:
        """Their devices as `pushfleet devices import` takes them, all in the background."""
        return [
            {"app": APP, "user": user, "device": "phone", "state": "background",
             "channels": self._channels(user)}
            for user in self.users
        ]  # fmt: skip

    def _channels(self, user: str) -> list[dict[str, str]]:
        second = self._second_of(user)
        further = [{"vendor": second, "token": _second_token(user)}] if second else []
        return [{"vendor": user.rpartition("-")[0], "token": _token(user)}, *further]

    def _second_of(self, user: str) -> str:
        return self.second.get(user.rpartition("-")[0], "")


def _is_doomed(user: str) -> bool:
    return int(user.rpartition("-")[2]) % _DOOMED_EVERY == _DOOMED_EVERY - 1


def _token(user: str) -> str:
    """A possible token of every vendor."""
    return (DOOMED if _is_doomed(user) else _LIVING) + blake2b(user.encode(), digest_size=14).hexdigest()


def _second_token(user: str) -> str:
    return _LIVING + blake2b(f"second {user}".encode(), digest_size=14).hexdigest()
