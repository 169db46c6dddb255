"""Words that many device records share, each as one control character: a record is kept for every device in the world.

The list is part of the format: words are only appended, 63 at most.
"""

from __future__ import annotations

__all__ = ["shortened", "spelled", "spellings"]

_WORDS = (
    *("android", "ios", "harmony", "HUAWEI", "HONOR", "Xiaomi", "OPPO", "vivo", "Apple", "samsung"),
    *("apple", "Asia/Shanghai", "zh-CN", "zh-Hans-CN", "en-US", "zh-TW", "zh-Hant-TW", "zh-Hans"),
    *("zh", "en", "en-GB", "zh-HK", "zh-Hant-HK"),
    *("ipados", "huawei", "honor", "xiaomi", "oppo", "meizu", "Redmi", "OnePlus", "realme", "google", "Google"),
    *("ja-JP", "ko-KR", "Asia/Hong_Kong", "Asia/Taipei", "Asia/Singapore", "Asia/Tokyo", "Asia/Seoul", "Asia/Kolkata"),
    *("Asia/Jakarta", "Asia/Bangkok", "Asia/Ho_Chi_Minh", "Asia/Manila", "Asia/Kuala_Lumpur", "Asia/Dubai"),
    *("Asia/Urumqi", "Europe/London", "Europe/Paris", "Europe/Berlin", "Europe/Moscow", "America/New_York"),
    *("America/Chicago", "America/Los_Angeles", "America/Sao_Paulo", "Australia/Sydney", "UTC"),
)  # fmt: skip
# The control characters of ASCII take one byte, the others two.
_CODES = [chr(code) for code in (*range(0x01, 0x20), *range(0x80, 0xA0))]
_SHORT = dict(zip(_WORDS, _CODES, strict=False))
_SPELLED = {code: word for word, code in _SHORT.items()}
_AS_IT_IS = "\0"
_is_code = frozenset(_CODES).__contains__


def shortened(word: str) -> str:
    """*word* as records have it."""
    return _SHORT.get(word) or _unshortened(word)


def spellings(word: str) -> list[str]:
    """*word* and what differs from it in capitals of ASCII alone, as records have them.

    What records do not shorten stands in small letters.
    """
    small = word.encode().lower().decode()
    return [_unshortened(small), *(code for known, code in _SHORT.items() if known.lower() == small)]


def spelled(word: str) -> str:
    """The word of a record."""
    return _SPELLED.get(word) or word.removeprefix(_AS_IT_IS)


def _unshortened(word: str) -> str:
    return _AS_IT_IS + word if _is_code(word) or word.startswith(_AS_IT_IS) else word
