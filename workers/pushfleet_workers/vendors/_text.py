"""Cutting texts to a number of bytes or characters without splitting what people see as one character.

Bytes are always those of the text inside a JSON string (UTF-8; quotes, backslashes and controls escaped):
that is what vendors count. Characters are counted as Java does, what lies beyond U+FFFF (most emoji) as two: a vendor
that counts otherwise counts fewer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from unicodedata import category, combining

import msgspec

__all__ = [
    "BARE",
    "ELLIPSIS",
    "FULL",
    "NO_EXT",
    "char_count",
    "clip",
    "clip_chars",
    "encode",
    "fit",
    "json_size",
    "within",
]

ELLIPSIS = "…"

FULL, NO_EXT, BARE = range(3)
"""How much goes along with the texts: everything, all but ``ext``, or only what no push can do without."""

encode = msgspec.json.Encoder().encode
"""Compact JSON in UTF-8."""

_ELLIPSIS_BYTES = len(ELLIPSIS.encode())
_CHARACTER_BYTES_MAX = 6
_TEXT_BYTES_MIN = 160
"""What the texts need at least before extras have to go: a name and a short line of Chinese."""

_ZWNJ, _ZWJ = "\u200c", "\u200d"
_MARKS = frozenset({"Mn", "Mc", "Me"})
_VIRAMA = 9
# Characters that belong to the one before them although they are no marks (Unicode annex 29, Extend and
# SpacingMark; Hangul vowels and finals): Thai and Lao AM, jamo, half-width voicing marks, skin tones, flag tags.
_TAILS = (
    ("\u0e33", "\u0e33"),
    ("\u0eb3", "\u0eb3"),
    ("\u1160", "\u11ff"),
    (_ZWNJ, _ZWJ),
    ("\ud7b0", "\ud7fb"),
    ("\uff9e", "\uff9f"),
    ("\U0001f3fb", "\U0001f3ff"),
    ("\U000e0020", "\U000e007f"),
)
# Characters that belong to the one after them (Prepend; Hangul initials): Arabic and Syriac number signs, jamo.
_HEADS = (
    ("\u0600", "\u0605"),
    ("\u06dd", "\u06dd"),
    ("\u070f", "\u070f"),
    ("\u1100", "\u115f"),
    (_ZWJ, _ZWJ),
    ("\ua960", "\ua97c"),
)


def json_size(text: str) -> int:
    """The bytes that *text* takes inside a JSON string, quotes not counted."""
    return len(encode(text)) - 2


def clip(text: str, budget: int) -> str:
    """*text*, or its beginning and an ellipsis, within *budget* bytes; empty where not even that fits."""
    if len(text) * _CHARACTER_BYTES_MAX <= budget:
        return text
    # A character takes at least one byte, so one more than the budget decides whether all of it fits.
    head = encode(text[: max(budget, 0) + 1])[1:-1]
    if len(head) <= budget:
        return text
    if budget < _ELLIPSIS_BYTES:
        return ""
    cut = len(_whole(head, budget - _ELLIPSIS_BYTES))
    while cut and _joined(text, cut):
        cut -= 1
    return text[:cut] + ELLIPSIS


def char_count(text: str) -> int:
    """The characters of *text*, those beyond U+FFFF counted as two."""
    return len(text) + sum(character > "\uffff" for character in text)


def clip_chars(text: str, limit: int, *, wide: bool = False, halve: bool = False) -> str:
    """*text*, or its beginning and an ellipsis, within *limit* characters; empty where not even that fits.

    *wide* counts all that lies beyond ASCII as two, for limits that mean columns. *halve* cuts to half of what would
    be left; a text of which that would be the ellipsis alone stays whole.
    """
    if len(text) * 2 <= limit and not halve:
        return text
    dots, last_narrow = (2, "\x7f") if wide else (1, "\uffff")
    # One character more than the limit decides whether all of it fits.
    ends = list(accumulate(2 if character > last_narrow else 1 for character in text[: max(limit, dots) + 1]))
    most = min(limit, ends[-1] if ends else 0) // 2 if halve else limit
    if not ends or ends[-1] <= most:
        return text
    cut = bisect_right(ends, most - dots)
    while cut and _joined(text, cut):
        cut -= 1
    if halve and not cut:
        return clip_chars(text, limit, wide=wide)
    return text[:cut] + ELLIPSIS if most >= dots else ""


def fit(title: str, body: str, room: int) -> tuple[str, str]:
    """Both texts within *room* bytes: the body is cut first, the title only above half of the room."""
    body_size = json_size(body)
    if json_size(title) + body_size <= room:
        return title, body
    title = clip(title, max(room // 2, room - body_size))
    return title, clip(body, room - json_size(title))


def within(
    limit: int, title: str, body: str, halve: bool, form: Callable[[str, str, int], bytes], copies: int = 1
) -> bytes:
    """The payload that *form* makes of (title, body, detail), within *limit* bytes.

    Texts are cut first. Where they would have to go below a readable line, ``ext`` is left out, then everything but
    the bare push: cutting an ``ext`` would break it, and a payload above the limit would reach nobody. *halve* cuts
    the texts to half of what they would have; *copies* says how often *form* writes them.
    """
    need = copies * (json_size(title) + json_size(body))
    # One letter stands for each text, since a form may leave out the field of an empty one.
    probe = "x" if title else "", "x" if body else ""
    room = 0
    for detail in (FULL, NO_EXT, BARE):
        room = limit - len(form(*probe, detail)) + copies * len("".join(probe))
        if room >= min(need, _TEXT_BYTES_MIN * copies):
            break
    room = min(room, need) // copies
    return form(*fit(title, body, room // 2 if halve else room), detail)


def _whole(head: bytes, size: int) -> str:
    """The text of the first *size* bytes of a JSON string's inside, a split character or escape left out."""
    while True:
        try:
            return msgspec.json.decode(b'"' + head[:size] + b'"', type=str)
        except (msgspec.DecodeError, UnicodeDecodeError):
            size -= 1


def _joined(text: str, cut: int) -> bool:
    """Whether the characters on both sides of *cut* show as one (Unicode annex 29, on the careful side)."""
    left, right = text[cut - 1], text[cut]
    if left.isascii() and right.isascii():
        return left == "\r" and right == "\n"
    if _among(_HEADS, left) or _among(_TAILS, right) or category(right) in _MARKS:
        return True
    if combining(left) == _VIRAMA:
        return right.isalpha()
    return _is_flag_half(right) and _flag_halves_before(text, cut) % 2 == 1


def _among(ranges: tuple[tuple[str, str], ...], character: str) -> bool:
    return any(first <= character <= last for first, last in ranges)


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"


def _flag_halves_before(text: str, cut: int) -> int:
    start = cut
    while start and _is_flag_half(text[start - 1]):
        start -= 1
    return cut - start
