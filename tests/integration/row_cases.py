"""A row of a vendor's table with the account, the users and the messages that are only its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from tests.integration.fates import Fate, fate, shuts, ttl_s
from tests.integration.provocations import Provocation, provocation

from pushfleet import Conversation, Element, OfflineMessage, Sender
from pushfleet.message import Kind
from pushfleet_workers import registry
from pushfleet_workers.fakecloud import FakeCloudThread
from pushfleet_workers.outcome import Outcome, Verdict

__all__ = ["RowCase", "message", "token"]


@dataclass(frozen=True)
class RowCase:
    """One row of one vendor's table."""

    vendor: str
    row: str
    credential: str
    known_as: str
    """By what id the vendor knows the credential."""

    def __str__(self) -> str:
        return f"{self.vendor} {self.row!r} ({self.credential})"

    @property
    def account(self) -> str:
        return f"{self.vendor}:{self.credential}"

    @cached_property
    def provocation(self) -> Provocation:
        return provocation(self.vendor, self.row)

    @cached_property
    def outcome(self) -> Outcome:
        return registry.load(self.vendor).codes[self.row].outcome

    @cached_property
    def fates(self) -> list[Fate]:
        """Of each delivery, in the order of its users."""
        codes = registry.load(self.vendor).codes
        return [fate(codes[row].outcome) for row in self.provocation.rows]

    @cached_property
    def users(self) -> list[str]:
        return [f"{self.vendor}-{self.credential}-{number}" for number in range(len(self.provocation.rows))]

    @property
    def other_user(self) -> str:
        """Has a device in the same account, and gets messages of another class."""
        return f"{self.vendor}-{self.credential}-other"

    def script(self, cloud: FakeCloudThread) -> None:
        """Have the fake vendor answer with the row: once, or again and again where it speaks of the account."""
        rule = self.provocation.rule
        if not rule:
            return
        named = rule.get("endpoint") not in ("auth", "stage")
        whom = {"token": token(self.users[0])} if named else {"account": self.known_as}
        cloud.rule(self.vendor, **rule, **whom, times=0 if shuts(self.outcome) else 1)

    @property
    def ends(self) -> Counter[str]:
        """How many deliveries end how, as ``end:reason``; those of the message that is taken back were sent before."""
        ends = Counter(fate.end for fate in self.fates)
        if self.provocation.recalled:
            ends["sent:"] += len(self.users)
        return ends

    def receptions(self, number: int) -> int:
        """How often the vendor takes a push to the user of that number."""
        if self.provocation.recalled:
            return 1
        made_up = self.outcome.verdict is Verdict.OK and self.provocation.is_made_up
        return int(self.fates[number].end == "sent:" and not made_up)

    def messages(self) -> list[OfflineMessage]:
        """What provokes it."""
        groups = [[user] for user in self.users] if self.provocation.mixed else [self.users]
        return [message(group, ttl_s(self.outcome)) for group in groups]


def token(user: str) -> str:
    """A possible token of every vendor."""
    return blake2b(user.encode(), digest_size=16).hexdigest()


def message(users: Sequence[str], lives_s: int = 300, kind: Kind = "chat") -> OfflineMessage:
    """A line of text, named after its first user."""
    return OfflineMessage(
        id=f"m-{users[0]}",
        app="demo",
        kind=kind,
        sender=Sender(id="ann", name="Ann"),
        conversation=Conversation(id=f"c-{users[0]}"),
        recipients=tuple(users),
        elements=(Element(type="text", text="See you at eight"),),
        ttl_s=lives_s,
    )
