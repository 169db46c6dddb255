"""What the user reads: title and text from the message's elements, in the device's language. Pure.

Elements are joined in order without a separator. A text given in `offline_push` or the message wins over them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pushfleet.message import Element, OfflineMessage

__all__ = ["CATALOGUE", "compose", "language_of"]

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
    },
}
"""Texts by language; a language that is not here reads the app's default."""

_OWN_TEXT_KINDS = frozenset({"call", "missed_call", "call_cancel"})
# Line breaks stay; other controls and the characters that turn the writing direction would let a sender forge a text.
_UNWANTED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def language_of(locale: str, default: str) -> str:
    """The catalogue's language for a device's *locale*, such as ``zh-Hans-CN`` or ``en_GB``."""
    language = locale.replace("_", "-").partition("-")[0].lower()
    return language if language in CATALOGUE else default


def compose(message: OfflineMessage, language: str, app_name: str, *, mentioned: bool = False) -> tuple[str, str]:
    """Title and text of the push; an empty text means that nothing is to be pushed.

    The title is the message's, else the group's or the sender's name, else *app_name*. In groups the text begins
    with the sender's name.
    """
    text = _text(message, language)
    if not text:
        return "", ""
    return _title(message, app_name), _prefix(message, language, mentioned) + text


def _title(message: OfflineMessage, app_name: str) -> str:
    given = (message.offline_push.title if message.offline_push is not None else None) or message.title
    if given:
        return _clean(given)
    conversation = message.conversation
    if conversation is not None and conversation.kind != "single" and conversation.name:
        return _clean(conversation.name)
    if message.sender is not None and message.sender.name:
        return _clean(message.sender.name)
    return app_name


def _prefix(message: OfflineMessage, language: str, mentioned: bool) -> str:
    if message.offline_push is not None and message.offline_push.desc:
        return ""
    mark = CATALOGUE[language]["mention"] if mentioned or message.kind == "mention" else ""
    conversation = message.conversation
    in_group = conversation is not None and conversation.kind != "single"
    if in_group and message.sender is not None and message.sender.name:
        return f"{mark}{_clean(message.sender.name)}: "
    return mark


def _text(message: OfflineMessage, language: str) -> str:
    if message.offline_push is not None and message.offline_push.desc:
        return _clean(message.offline_push.desc)
    if message.body:
        return _clean(message.body)
    if message.elements:
        return _clean("".join([_element(element, language) for element in message.elements]))
    if message.kind in _OWN_TEXT_KINDS:
        return CATALOGUE[language][message.kind]
    return ""


def _element(element: Element, language: str) -> str:
    if element.type == "text":
        return element.text
    if element.type == "custom":
        return element.desc
    texts = CATALOGUE[language]
    return element.desc or texts.get(element.type, texts["other"])


def _clean(text: str) -> str:
    return _UNWANTED.sub("", text).strip()
