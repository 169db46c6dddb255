"""What the user reads: title and text from the message's elements, in the device's language. Pure.

Elements are joined in order without a separator. A text given in `offline_push` or the message wins over them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pushfleet.message import Element, OfflineMessage
from pushfleet_workers.catalogue import STANDARD, Catalogue

__all__ = ["compose", "compose_chats", "compose_hidden", "compose_recall", "compose_storm"]

_ELEMENT_TYPES = frozenset({"image", "sound", "video", "file", "location", "face", "merged"})
_OWN_TEXT_KINDS = frozenset({"call", "missed_call", "call_cancel"})
_CHAT_KINDS = frozenset({"chat", "mention"})
_PLACE = re.compile(r"\{([a-z]+)\}")
# Line breaks stay in texts, not in names; other controls and the characters that turn the writing direction would let a
# sender forge a text.
_UNWANTED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_BREAKS = re.compile("[\t\n\u2028\u2029]+")


def compose(
    message: OfflineMessage,
    language: str,
    app_name: str,
    *,
    mentioned: bool = False,
    hidden: bool = False,
    catalogue: Catalogue = STANDARD,
) -> tuple[str, str]:
    """Title and text of the push; an empty text means that nothing is to be pushed.

    The title is the message's, else the group's or the sender's name, else *app_name*. The text begins with the
    sender's name in groups, and in chats with whatever the message's own title keeps back of sender and group. What is
    empty once it is cleaned counts as absent. *hidden* tells only that there is a message, or a call, under the name
    of the app.
    """
    texts = catalogue[language]
    desc = _clean(message.offline_push.desc or "") if message.offline_push is not None else ""
    text = desc or _text(message, texts)
    if not text:
        return "", ""
    if hidden:
        return compose_hidden(message.kind, language, app_name, catalogue=catalogue)
    title = _title(message, app_name)
    return title, text if desc else _prefix(message, title, texts, mentioned) + text


def compose_hidden(
    kind: str, language: str, app_name: str, *, recall: bool = False, catalogue: Catalogue = STANDARD
) -> tuple[str, str]:
    """Title and text for users who hide what messages say: that there is one, or a call, or that one was taken back."""
    own = kind if kind in _OWN_TEXT_KINDS else "hidden"
    return app_name, catalogue[language]["recall" if recall else own]


def compose_recall(
    message: OfflineMessage, language: str, app_name: str, *, hidden: bool = False, catalogue: Catalogue = STANDARD
) -> tuple[str, str]:
    """Title and text of the push that replaces *message* where it was shown: the same title, and who took it back."""
    if hidden:
        return compose_hidden(message.kind, language, app_name, recall=True, catalogue=catalogue)
    texts = catalogue[language]
    sender = _sender(message)
    text = _fill(texts["recall_by"], {"sender": sender}) if sender else texts["recall"]
    return _title(message, app_name), text


def compose_storm(
    language: str,
    title: str,
    sender: str,
    count: int,
    *,
    group: bool,
    hidden: bool = False,
    catalogue: Catalogue = STANDARD,
) -> str:
    """Text of the push that tells of *count* messages, the latest by *sender*, in the conversation called *title*.

    Of a single one it says that there is one: what is in it, the push that tells of it does not know.
    """
    if count < 2:
        return catalogue[language]["hidden"]
    sender = _clean_name(sender)
    text = catalogue[language]["storm_group" if group and sender and not hidden else "storm"]
    return _fill(text, {"title": title, "sender": sender, "count": str(count), "others": str(count - 1)})


def compose_chats(language: str, count: int, chats: int, *, catalogue: Catalogue = STANDARD) -> str:
    """Text of the push that tells of *count* messages in so many conversations, or in nobody knows how many (0)."""
    if not chats:
        return _fill(catalogue[language]["storm"], {"count": str(count)})
    return _fill(catalogue[language]["storm_chats"], {"count": str(count), "chats": str(chats)})


def _fill(text: str, values: Mapping[str, str]) -> str:
    """*text* with its places filled, in one pass: what fills them may look like a place itself."""
    return _PLACE.sub(lambda place: values[place[1]], text)


def _title(message: OfflineMessage, app_name: str) -> str:
    conversation = message.conversation
    candidates = (
        message.offline_push.title if message.offline_push is not None else None,
        message.title,
        conversation.name if conversation is not None and conversation.kind != "single" else None,
        message.sender.name if message.sender is not None else None,
    )
    for one in candidates:
        if one and (title := _clean_name(one)):
            return title
    return app_name


def _prefix(message: OfflineMessage, title: str, texts: Mapping[str, str], mentioned: bool) -> str:
    """What stands before the text: that the user is mentioned, and who wrote it, as far as *title* does not say so."""
    mark = texts["mention"] if mentioned or message.kind == "mention" else ""
    conversation = message.conversation
    in_group = conversation is not None and conversation.kind != "single"
    is_chat = message.kind in _CHAT_KINDS
    who = _sender(message)
    if not in_group and (not is_chat or who == title):
        who = ""
    group = _clean_name(conversation.name) if conversation is not None and in_group else ""
    if is_chat and group and group != title:
        who = f"{who}({group})"
    return f"{mark}{who}: " if who else mark


def _sender(message: OfflineMessage) -> str:
    return _clean_name(message.sender.name) if message.sender is not None else ""


def _text(message: OfflineMessage, texts: Mapping[str, str]) -> str:
    text = _clean(message.body or "")
    if not text:
        text = _clean("".join([_element(element, texts) for element in message.elements]))
    if not text and not message.elements and message.kind in _OWN_TEXT_KINDS:
        text = texts[message.kind]
    return text


def _element(element: Element, texts: Mapping[str, str]) -> str:
    if element.type == "text":
        return element.text
    if element.type == "custom":
        return element.desc
    return element.desc or texts[element.type if element.type in _ELEMENT_TYPES else "other"]


def _clean(text: str) -> str:
    # What is printable throughout holds nothing unwanted, and knowing it is cheaper than searching.
    return text.strip() if text.isprintable() else _UNWANTED.sub("", text).strip()


def _clean_name(text: str) -> str:
    return text.strip() if text.isprintable() else _BREAKS.sub(" ", _clean(text))
