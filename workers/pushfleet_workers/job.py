"""One stream entry on its way through a router's batch: what it asks for, and what has been decided so far."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from pushfleet.message import Conversation, OfflineMessage, Recall, Recipient
from pushfleet.wire import part_id, recall_id
from pushfleet_workers.ingress import Raw
from pushfleet_workers.push import Delivery, Parking, Wait

__all__ = ["Group", "Job", "Manner", "ParcelName", "job_for"]

Manner = tuple[str, bool, bool, str | None]
"""How a push is told: language, whether its user is mentioned, whether they hide the text, and the sound they chose."""

Group = tuple[str, str, Manner]
"""Vendor, credential and manner: deliveries that share a push."""

ParcelName = tuple[str, str, bytes]
"""Vendor, credential and the parcel's id in that account's ledger."""


class Job(Struct):
    """One entry on its way through a batch. Its repr does not show what it says."""

    raw: Raw
    message: OfflineMessage
    """Of a recall: the message that it takes back, as far as it is remembered."""

    part: bytes
    recipients: list[Recipient]
    window_s: int = 0
    """How long messages of the app can be taken back; 0: not at all."""

    recall: Recall | None = None
    storms: bool = False
    """Whether its pushes may wait for other messages of the conversation."""

    reads: bool = False
    """Whether it matters how far the recipients have read."""

    repeat: bool = False
    """The part was decided before, by this or another entry: nothing is decided again."""

    recalled: bool = False
    """The message was taken back: nothing of it is put any more."""

    suppressed: dict[str, int] = {}
    """Recipients or devices that get no push, by reason."""

    planned: dict[Group, list[Delivery]] = {}
    texts: dict[tuple[str, bool, bool], tuple[str, str]] = {}
    """Language, whether mentioned and whether hidden to title and text."""

    holds: dict[str, int] = {}
    """Users whose pushes are held: until when."""

    carriers: dict[bytes, int] = {}
    """Deliveries that wait for other messages to tell of: until when."""

    carrying: dict[ParcelName, list[Delivery]] = {}
    """Those by the parcel in which they were given to a ledger."""

    parked: dict[bytes, int] = {}
    """Deliveries to devices in the foreground: when they are looked at first."""

    capped: set[bytes] = set()
    """Deliveries to devices for which the vendor takes only so many a day, and which no other account reaches."""

    capped_until_ms: dict[bytes, int] = {}
    """Those of them that wait, and tell of others then: until when."""

    deliveries: int = 0

    def __repr__(self) -> str:
        return f"Job({self.raw!r}, {self.message!r}, suppressed={self.suppressed}, deliveries={self.deliveries})"

    @property
    def people(self) -> int:
        """How many it is for: recipients, and devices addressed directly."""
        return len(self.recipients) + len(self.message.targets)

    @property
    def planned_deliveries(self) -> int:
        """How many deliveries are planned."""
        return sum(map(len, self.planned.values()))

    @property
    def sent_at_ms(self) -> int:
        """When the message was written, Unix milliseconds."""
        return self.message.sent_at_ms or self.raw.time_ms

    @property
    def expires_at_ms(self) -> int:
        """Until when a push makes sense; one that takes a message back does for the window at least."""
        expires_at_ms = self.sent_at_ms + self.message.effective_ttl_s * 1000
        if self.recall is None:
            return expires_at_ms
        return max(expires_at_ms, self.raw.time_ms + self.window_s * 1000)

    @property
    def replace_key(self) -> str:
        """What its push replaces and is replaced by; empty: only itself."""
        return self.message.effective_replace_key or ""

    @property
    def undecided(self) -> bool:
        """Whether there is anything to decide; where a router died, that includes what it may have put unrecalled."""
        return not self.repeat and (not self.recalled or self.raw.again)

    @property
    def counts(self) -> dict[str, int]:
        """What the books hear of it besides its deliveries."""
        counts = {"recipients": self.people}
        for reason, count in self.suppressed.items():
            counts[f"suppressed:{self.message.app}:{reason}"] = count
        return counts

    def keep_to_what_was_put(self) -> None:
        """Count who gets no push by the decision that holds: that of the first router, which may have died with it.

        What became of users meanwhile changes the second decision and nothing else: whoever was put is not suppressed,
        and of whoever was not, only the dead router knew why.
        """
        put_beyond = self.deliveries - self.planned_deliveries
        if not put_beyond or self.recalled or self.recall is not None:
            return
        if put_beyond < 0:
            self.suppress("decided_before", -put_beyond)
        most_first = sorted(self.suppressed, key=self.suppressed.__getitem__, reverse=True)
        for reason in most_first if put_beyond > 0 else ():
            taken = min(self.suppressed[reason], put_beyond)
            put_beyond -= taken
            self.suppressed[reason] -= taken
            if not self.suppressed[reason]:
                del self.suppressed[reason]

    def suppress(self, reason: str, count: int = 1) -> None:
        """Count recipients or devices that get no push."""
        if count:
            self.suppressed[reason] = self.suppressed.get(reason, 0) + count

    def suppress_everybody(self, reason: str) -> None:
        """Nothing goes out for anybody, and *reason* is why, whatever else was found."""
        self.suppressed.clear()
        self.suppress(reason, self.people)

    def by_wait(self, deliveries: list[Delivery]) -> dict[tuple[int, Wait, Parking], list[Delivery]]:
        """*deliveries* by when they are due (0: at once), why they wait, and whether they are parked."""
        if not (self.holds or self.carriers or self.capped_until_ms or self.parked):
            return {(0, "", ""): deliveries}
        found: dict[tuple[int, Wait, Parking], list[Delivery]] = {}
        for one in deliveries:
            found.setdefault(self._wait_of(one), []).append(one)
        return found

    def _wait_of(self, delivery: Delivery) -> tuple[int, Wait, Parking]:
        """Until the last of its reasons is gone; what tells of others does whatever else."""
        held_ms, stormed_ms = self.holds.get(delivery.user, 0), self.carriers.get(delivery.id, 0)
        capped_ms = self.capped_until_ms.get(delivery.id, 0)
        why: Wait = "storm" if stormed_ms else "cap" if capped_ms else "held" if held_ms else ""
        look_ms = self.parked.get(delivery.id, 0)
        return max(held_ms, stormed_ms, capped_ms, look_ms), why, "parked" if look_ms else ""

    def waits(self, delivery: Delivery) -> bool:
        """Whether it is put for later."""
        return self._wait_of(delivery)[0] > 0

    def absorb(self, deliveries: set[bytes], reason: str = "stormed") -> None:
        """Leave out *deliveries*, for a reason that is one of devices: other pushes tell of the message, mostly."""
        if not deliveries:
            return
        before = self.planned_deliveries
        self.planned = {
            group: left
            for group, some in self.planned.items()
            if (left := [one for one in some if one.id not in deliveries])
        }
        self.suppress(reason, before - self.planned_deliveries)

    def remember(self, parts: Sequence[OfflineMessage]) -> None:
        """Of a recall's message these *parts* are known; whom the recall names wins over whom they went to."""
        assert self.recall is not None
        named = self.recall.recipients
        users = tuple(dict.fromkeys(named or [str(user) for part in parts for user in part.recipients]))
        targets = tuple(dict.fromkeys(target for part in parts for target in part.targets)) if not named else ()
        if parts:
            self.message = replace(parts[0], recipients=users, targets=targets)
        self.recipients = [Recipient(id=user) for user in users]


def job_for(raw: Raw, entry: OfflineMessage | Recall, window_s: int) -> Job:
    """The job that *entry* is; *window_s* is its app's."""
    if isinstance(entry, OfflineMessage):
        return Job(raw, entry, part_id(entry), _recipients(entry), window_s)
    named = [Recipient(id=user) for user in entry.recipients]
    part = recall_id(entry)
    if b"n" in raw.fields:
        # One that the fleet asks for itself, of what was hidden before, repeats none that a backend asked for.
        part = blake2b(raw.fields[b"n"], digest_size=16, key=part).digest()
    return Job(raw, _stand_in(entry), part, named, window_s, entry)


def _recipients(message: OfflineMessage) -> list[Recipient]:
    """Each recipient once; where one is named twice, the first entry counts."""
    if len(message.recipients) == 1:
        (only,) = message.recipients
        return [only if isinstance(only, Recipient) else Recipient(id=only)]
    seen: dict[str, Recipient] = {}
    for one in message.recipients:
        recipient = one if isinstance(one, Recipient) else Recipient(id=one)
        seen.setdefault(recipient.id, recipient)
    return list(seen.values())


def _stand_in(recall: Recall) -> OfflineMessage:
    """The message of *recall* as long as nothing is known of it, of a kind that no vendor takes for a chat."""
    return OfflineMessage(
        id=recall.id,
        app=recall.app,
        kind="system",
        conversation=Conversation(id=recall.conversation) if recall.conversation else None,
        # A message must be for somebody; whom it is taken back from, the job says.
        recipients=recall.recipients or (recall.id,),
        lane="normal",
    )
