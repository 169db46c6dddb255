"""What a push carries: the text in its user's manner, the options that vendors read, the sound. Pure."""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter

from pushfleet.message import OfflinePush
from pushfleet_workers.job import Job, Manner
from pushfleet_workers.overrides import without_texts
from pushfleet_workers.push import Push
from pushfleet_workers.recall import overrides_of_recall
from pushfleet_workers.tokens.preferences import Preferences

__all__ = ["name_of", "push_of", "sound_of"]

_SOUNDS_LIKE_A_CHAT = frozenset({"chat", "mention", "summary"})
_SECTIONS = ("apns", "android", "huawei", "honor", "xiaomi", "oppo", "vivo", "meizu", "harmony", "fcm")
_sections_of = attrgetter(*_SECTIONS)
_NO_SECTIONS = (None,) * len(_SECTIONS)


def push_of(job: Job, manner: Manner, title: str, body: str) -> Push:
    """What the deliveries of *job* share that are told in this *manner*, with these texts."""
    message = job.message
    _, _, hidden, sound = manner
    conversation = message.conversation
    recall = job.recall is not None
    options = overrides_of_recall(message.offline_push) if recall else message.offline_push
    if hidden and options is not None:
        options = without_texts(options)
    return Push(
        app=message.app,
        message_id=message.id,
        kind=message.kind,
        lane=message.effective_lane,
        title=title,
        body=body,
        expires_at_ms=job.expires_at_ms,
        sent_at_ms=job.sent_at_ms,
        enqueued_at_ms=job.raw.time_ms,
        conversation_id=conversation.id if conversation is not None else "",
        replace_key=job.replace_key,
        ext=(options.ext or "") if options is not None else "",
        options=_overrides(options),
        group=conversation is not None and conversation.kind != "single",
        sender_name=message.sender.name if message.sender is not None and not hidden else "",
        revision=int(recall),
        recall=recall,
        hidden=hidden,
        sound=sound,
    )


def _overrides(push: OfflinePush | None) -> OfflinePush | None:
    """What vendors read of the options; the rest has been composed, and would lie in Redis twice."""
    if push is None:
        return None
    sections = _sections_of(push)
    if sections == _NO_SECTIONS:
        return None
    return OfflinePush(**dict(zip(_SECTIONS, sections, strict=True)))


def sound_of(job: Job, preferences: Preferences) -> str | None:
    """What the user chose for messages such as the job's; calls ring as the account says, and recalls are no news."""
    if job.recall is not None or job.message.kind not in _SOUNDS_LIKE_A_CHAT:
        return None
    conversation = job.message.conversation
    return preferences.sound_in(group=conversation is not None and conversation.kind != "single")


@lru_cache(maxsize=1024)
def name_of(manner: Manner) -> bytes:
    """What tells the parcels of a part apart, beside their number."""
    language, mentioned, hidden, sound = manner
    chosen = f":{hidden}:{sound!r}" if hidden or sound is not None else ""
    return f"{language}:{mentioned}{chosen}".encode()
