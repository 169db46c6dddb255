"""What the user reads: title and text from the message's elements, in the device's language. Pure.

Elements are joined in order without a separator. A text given in `offline_push` or the message wins over them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from pushfleet.message import Element, OfflineMessage

__all__ = ["CATALOGUE", "compose", "compose_recall", "compose_storm", "language_of"]

CATALOGUE: Mapping[str, Mapping[str, str]] = {
    "en": {
        "image": "[Image]",
        "sound": "[Voice]",
        "video": "[Video]",
        "file": "[File]",
        "location": "[Location]",
        "face": "[Sticker]",
        "merged": "[Chat history]",
        "other": "[New message]",
        "call": "Incoming call",
        "missed_call": "Missed call",
        "call_cancel": "Call ended",
        "mention": "[Mentioned you] ",
        "hidden": "You have a new message",
        "storm_group": "{sender} and {others} others in {title}",
        "storm": "{count} new messages",
        "recall": "A message was recalled",
        "recall_by": "{sender} recalled a message",
    },
    "zh": {
        "image": "[图片]",
        "sound": "[语音]",
        "video": "[视频]",
        "file": "[文件]",
        "location": "[位置]",
        "face": "[表情]",
        "merged": "[聊天记录]",
        "other": "[新消息]",
        "call": "邀请你通话",
        "missed_call": "未接来电",
        "call_cancel": "通话已结束",
        "mention": "[有人@我] ",
        "hidden": "你收到一条新消息",
        "storm_group": "{sender}等{count}条新消息（{title}）",
        "storm": "{count}条新消息",
        "recall": "一条消息已被撤回",
        "recall_by": "{sender}撤回了一条消息",
    },
}
"""Texts by language; a language that is not here reads the app's default."""

_LAST_RESORT = "en"
_ELEMENT_TYPES = frozenset({"image", "sound", "video", "file", "location", "face", "merged"})
_OWN_TEXT_KINDS = frozenset({"call", "missed_call", "call_cancel"})
# Line breaks stay in texts, not in names; other controls and the characters that turn the writing direction would let a
# sender forge a text.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_BREAKS = re.compile("[\t\n\u2028\u2029]+")


@lru_cache(maxsize=4_096)
def language_of(locale: str, default: str) -> str:
    """The catalogue's language for a device's *locale*, such as ``zh-Hans-CN`` or ``en_GB``; else *default*'s."""
    for one in (locale, default):
        language = one.replace("_", "-").partition("-")[0].lower()
        if language in CATALOGUE:
            return language
    return _LAST_RESORT


def compose(
    message: OfflineMessage, language: str, app_name: str, *, mentioned: bool = False, hidden: bool = False
) -> tuple[str, str]:
    """Title and text of the push; an empty text means that nothing is to be pushed.

    The title is the message's, else the group's or the sender's name, else *app_name*. In groups the text begins
    with the sender's name. What is empty once it is cleaned counts as absent. *hidden* tells only that there is a
    message, or a call, under the name of the app.
    """
    language = language_of(language, _LAST_RESORT)
    desc = _clean(message.offline_push.desc or "") if message.offline_push is not None else ""
    text = desc or _text(message, language)
    if not text:
        return "", ""
    if hidden:
        return app_name, CATALOGUE[language][message.kind if message.kind in _OWN_TEXT_KINDS else "hidden"]
    return _title(message, app_name), text if desc else _prefix(message, language, mentioned) + text


def compose_recall(message: OfflineMessage, language: str, app_name: str, *, hidden: bool = False) -> tuple[str, str]:
    """Title and text of the push that replaces *message* where it was shown: the same title, and who took it back."""
    texts = CATALOGUE[language_of(language, _LAST_RESORT)]
    if hidden:
        return app_name, texts["recall"]
    sender = _clean_name(message.sender.name) if message.sender is not None else ""
    # Not by str.format: a name may have braces in it.
    text = texts["recall_by"].replace("{sender}", sender) if sender else texts["recall"]
    return _title(message, app_name), text


def compose_storm(language: str, title: str, sender: str, count: int, *, group: bool, hidden: bool = False) -> str:
    """Text of the push that tells of *count* messages, the latest by *sender*, in the conversation called *title*."""
    texts = CATALOGUE[language_of(language, _LAST_RESORT)]
    sender = _clean_name(sender)
    text = texts["storm_group" if group and sender and not hidden else "storm"]
    for name, value in (("{count}", str(count)), ("{others}", str(count - 1))):
        text = text.replace(name, value)
    # Names last, and in one pass: they may look like places for others.
    before, _, after = text.partition("{title}")
    return title.join([one.replace("{sender}", sender) for one in ((before, after) if "{title}" in text else (text,))])


def _title(message: OfflineMessage, app_name: str) -> str:
    conversation = message.conversation
    candidates = (
        message.offline_push.title if message.offline_push is not None else None,
        message.title,
        conversation.name if conversation is not None and conversation.kind != "single" else None,
        message.sender.name if message.sender is not None else None,
    )
    return next((title for one in candidates if one and (title := _clean_name(one))), app_name)


def _prefix(message: OfflineMessage, language: str, mentioned: bool) -> str:
    mark = CATALOGUE[language]["mention"] if mentioned or message.kind == "mention" else ""
    conversation = message.conversation
    in_group = conversation is not None and conversation.kind != "single"
    sender = _clean_name(message.sender.name) if message.sender is not None else ""
    return f"{mark}{sender}: " if in_group and sender else mark


def _text(message: OfflineMessage, language: str) -> str:
    text = _clean(message.body or "")
    if not text:
        text = _clean("".join([_element(element, language) for element in message.elements]))
    if not text and not message.elements and message.kind in _OWN_TEXT_KINDS:
        text = CATALOGUE[language][message.kind]
    return text


def _element(element: Element, language: str) -> str:
    if element.type == "text":
        return element.text
    if element.type == "custom":
        return element.desc
    texts = CATALOGUE[language]
    return element.desc or texts[element.type if element.type in _ELEMENT_TYPES else "other"]


def _clean(text: str) -> str:
    # What is printable throughout holds nothing unwanted, and knowing it is cheaper than searching.
    return text.strip() if text.isprintable() else _UNWANTED.sub("", text).strip()


def _clean_name(text: str) -> str:
    return text.strip() if text.isprintable() else _BREAKS.sub(" ", _clean(text))
