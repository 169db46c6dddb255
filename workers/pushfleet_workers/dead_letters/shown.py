"""What operators are told of a letter: everything that helps, and no token and no text of the message. Pure."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct

from pushfleet_workers.dead_letters.letter import INGRESS, Letter, overrides_of
from pushfleet_workers.dead_letters.renewal import LEFT, Left
from pushfleet_workers.dead_letters.shelf import Back
from pushfleet_workers.outcome import Row
from pushfleet_workers.push import Delivery, fingerprint
from pushfleet_workers.reasons import DEAD, REFUSED_ENTRIES

__all__ = ["DeliveryShown", "LetterDetail", "LetterShown", "show_detail", "show_letter"]


class LetterShown(Struct, frozen=True, kw_only=True):
    """A dead letter, or a refused entry."""

    letter: Annotated[str, Meta(description="Its name: vendor, credential and place.")]
    vendor: Annotated[str, Meta(description="`ingress` for an entry that routers refused.")]
    credential: Annotated[str, Meta(description="For a refused entry its lane.")]
    at_ms: Annotated[int, Meta(description="Since when it lies there.")]
    app: str
    lane: str
    reason: str
    code: Annotated[str, Meta(description="The vendor's own code; empty where there is none.")]
    attempts: Annotated[int, Meta(description="After how many it was given up.")]
    deliveries: Annotated[int, Meta(description="How many it holds; 0 for a refused entry, which was never decided.")]
    message_id: Annotated[str, Meta(description="Empty where it cannot be read; so is what follows.")]
    kind: str
    conversation_id: str
    sent_at_ms: int
    expires_at_ms: int


class DeliveryShown(Struct, frozen=True, kw_only=True):
    """One delivery of a dead letter."""

    id: Annotated[str, Meta(description="As a UUID: the vendor's message id.")]
    user: Annotated[str, Meta(description="Empty for a device that was addressed directly; so is `device`.")]
    device: str
    token_fingerprint: Annotated[str, Meta(description="As the devices' channels show it, and logs.")]
    token_kind: str
    attempts: Annotated[int, Meta(description="Answers and failures that count.")]
    requests: Annotated[int, Meta(description="That left before the last one, as far as is known.")]
    unknown: Annotated[int, Meta(description="Attempts of which nobody knows whether they got through.")]


class LetterDetail(LetterShown, frozen=True, kw_only=True):
    """All that is told of a letter; neither tokens nor texts."""

    meaning: Annotated[str, Meta(description="The reason as a sentence.")]
    code_meaning: Annotated[str, Meta(description="What the vendor's table says of the code, with the mend.")]
    problem: Annotated[str, Meta(description="Of a refused entry: what is wrong with it.")]
    replay: Annotated[str, Meta(description="What a replay would do with it now.")]
    payload_bytes: Annotated[int, Meta(description="Title, text and data of the push, or the refused entry as kept.")]
    overrides: Annotated[list[str], Meta(description="Names of what the message sets for its push itself.")]
    parcel: Annotated[list[DeliveryShown], Meta(description="Its deliveries.")]


def show_letter(letter: Letter) -> LetterShown:
    """*letter* in short."""
    return LetterShown(**_short(letter))


def show_detail(letter: Letter, codes: Mapping[str, Row], back: Back | Left) -> LetterDetail:
    """*letter* in full.

    * **codes** - the vendor's table.
    * **back** - what a replay would make of it now.
    """
    push = letter.parcel.parcel.push if letter.parcel is not None else None
    deliveries = letter.parcel.parcel.deliveries if letter.parcel is not None else []
    texts = (push.title, push.body, push.ext) if push is not None else ()
    row = codes.get(letter.code)
    told = DEAD | REFUSED_ENTRIES
    return LetterDetail(
        **_short(letter),
        meaning=told[letter.reason].sentence if letter.reason in told else "",
        code_meaning=row.meaning if row is not None else "",
        problem=letter.problem,
        replay=_replay(letter, back),
        payload_bytes=sum(len(text.encode(errors="surrogatepass")) for text in texts)
        or len(letter.refused.payload if letter.refused is not None else b""),
        overrides=overrides_of(push.options if push is not None else None),
        parcel=[_show_delivery(one) for one in deliveries],
    )


def _replay(letter: Letter, back: Back | Left) -> str:
    if isinstance(back, Left):
        return f"A replay would leave it where it is: {LEFT[back]}."
    if letter.name.vendor == INGRESS:
        return "A replay would let a router decide on it."
    alone = ", with nothing else in the hand of the worker that takes it" if letter.reason == "poison" else ""
    return f"A replay would decide on it anew and send it{alone}."


def _short(letter: Letter) -> dict[str, Any]:
    about = letter.about
    return {
        "letter": str(letter.name),
        "vendor": letter.name.vendor,
        "credential": letter.name.credential,
        "at_ms": letter.name.at_ms,
        "app": about.app,
        "lane": letter.lane,
        "reason": letter.reason,
        "code": letter.code,
        "attempts": letter.attempts,
        "deliveries": letter.deliveries,
        "message_id": about.message_id,
        "kind": about.kind,
        "conversation_id": about.conversation_id,
        "sent_at_ms": about.sent_at_ms,
        "expires_at_ms": about.expires_at_ms,
    }


def _show_delivery(delivery: Delivery) -> DeliveryShown:
    return DeliveryShown(
        id=str(uuid.UUID(bytes=delivery.id)),
        user=delivery.user,
        device=delivery.device,
        token_fingerprint=fingerprint(delivery.token),
        token_kind=delivery.token_kind,
        attempts=delivery.attempt,
        requests=delivery.tries,
        unknown=delivery.unknown,
    )
