"""The texts that the fleet puts into pushes, by language; settings add languages and change texts. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

__all__ = ["BUILT_IN", "LAST_RESORT", "STANDARD", "Catalogue", "flaws"]

LAST_RESORT = "en"

BUILT_IN: Mapping[str, Mapping[str, str]] = {
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
        "storm_chats": "{count} new messages in {chats} chats",
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
        "storm_chats": "{chats}个会话有{count}条新消息",
        "recall": "一条消息已被撤回",
        "recall_by": "{sender}撤回了一条消息",
    },
}
"""What there is without settings; every language has every text."""

TEXT_CHARS_MAX = 256
_PLACE = re.compile(r"\{([^{}]*)\}")
_is_language = re.compile(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*").fullmatch
_PLACES = {
    key: frozenset(place for texts in BUILT_IN.values() for place in _PLACE.findall(texts[key]))
    for key in BUILT_IN[LAST_RESORT]
}


def _wider(language: str) -> Iterator[str]:
    """*language*, then without its last part, and so on: ``zh-hant-tw``, ``zh-hant``, ``zh``."""
    while language:
        yield language
        language = language.rpartition("-")[0]


class Catalogue:
    """The texts of every language: those built in, and *more*, which wins.

    A text that a language lacks is that of the wider one (``zh-Hant`` of ``zh``), at last the English one.
    """

    def __init__(self, more: Mapping[str, Mapping[str, str]] | None = None) -> None:
        given = {language: dict(texts) for language, texts in BUILT_IN.items()}
        for language, texts in (more or {}).items():
            given.setdefault(language.lower(), {}).update(texts)
        self._languages = {
            language: {
                key: text
                for wider in (LAST_RESORT, *reversed(list(_wider(language))))
                for key, text in given.get(wider, {}).items()
            }
            for language in given
        }
        self._found: dict[tuple[str, str], str] = {}

    def __getitem__(self, language: str) -> Mapping[str, str]:
        """The texts of one of its languages; of another one those of the nearest."""
        return self._languages.get(language) or self._languages[self.language_of(language, LAST_RESORT)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._languages)

    def language_of(self, locale: str, default: str) -> str:
        """The language here for a device's *locale*, such as ``zh-Hans-CN`` or ``en_GB``; else *default*'s."""
        found = self._found.get((locale, default))
        if found is None:
            found = self._find(locale, default)
            # Devices report what they like.
            if len(self._found) < 4_096:
                self._found[locale, default] = found
        return found

    def _find(self, locale: str, default: str) -> str:
        candidates = (language for one in (locale, default) for language in _wider(one.replace("_", "-").lower()))
        return next((language for language in candidates if language in self._languages), LAST_RESORT)


STANDARD = Catalogue()
"""What is built in."""


def flaws(more: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """What is wrong with further texts, by language: one sentence each, its place first."""
    for language, texts in more.items():
        if not _is_language(language):
            yield f"{language} is no language: write it as fr, zh-Hant or pt-BR"
            continue
        for key, text in texts.items():
            where = f"{language}.{key}"
            if key not in _PLACES:
                close = difflib.get_close_matches(key, _PLACES, n=1, cutoff=0.5)
                yield f"{where} is no text{f': did you mean {close[0]}?' if close else ''}"
            elif not 0 < len(text.strip()) <= TEXT_CHARS_MAX:
                yield f"{where} must have 1 to {TEXT_CHARS_MAX} characters"
            elif unknown := sorted(set(_PLACE.findall(text)) - _PLACES[key]):
                known = ", ".join(f"{{{place}}}" for place in sorted(_PLACES[key])) or "none"
                yield f"{where} has {{{unknown[0]}}}, which nothing fills; it may have: {known}"
