from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pushfleet_workers.vendors._text import (
    BARE,
    ELLIPSIS,
    FULL,
    NO_EXT,
    char_count,
    clip,
    clip_chars,
    encode,
    fit,
    json_size,
    within,
)

# What people see as one character, in many scripts.
CLUSTERS = [
    *"aZ9 字漢…",
    '"',
    "\\",
    "\n",
    "\r\n",
    "\x01",
    "e\u0301",
    "a\u0323\u0308\u0332",
    "👍🏽",
    "❤️",
    "1️⃣",
    "🇨🇳",
    "🇩🇪",
    "👨‍👩‍👧‍👦",
    "🏳️‍🌈",
    "👩🏾‍🚀",
    "🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    "क्षि",
    "ท\u0e33",
    "\u1112\u1161\u11ab",
    "\u0628\u064e\u0651",
    "\u1112\u1112\u1161",
    "\u06007",
    "ｶ\uff9e",
    "葛\U000e0100",
]
texts = st.lists(st.sampled_from(CLUSTERS), max_size=60)


@settings(deadline=None)
@given(texts, st.integers(0, 200))
def test_no_visible_character_is_split(clusters: list[str], budget: int) -> None:
    text = "".join(clusters)
    clipped = clip(text, budget)
    assert json_size(clipped) <= budget
    if clipped != text:
        assert json_size(text) > budget
        beginnings = {"".join(clusters[:count]) + ELLIPSIS for count in range(len(clusters))} | {""}
        assert clipped in beginnings


@settings(deadline=None)
@given(texts, st.integers(0, 60))
def test_no_visible_character_is_split_when_characters_are_counted(clusters: list[str], limit: int) -> None:
    text = "".join(clusters)
    clipped = clip_chars(text, limit)
    assert char_count(clipped) <= limit
    if clipped != text:
        assert char_count(text) > limit
        beginnings = {"".join(clusters[:count]) + ELLIPSIS for count in range(len(clusters))} | {""}
        assert clipped in beginnings


@given(st.text(max_size=300))
def test_characters_are_counted_as_java_counts_them(text: str) -> None:
    assert char_count(text) == len(text.encode("utf-16-le")) // 2


@pytest.mark.parametrize(
    ("text", "limit", "clipped"),
    [
        ("", 0, ""),
        ("今晚八点", 4, "今晚八点"),
        ("今晚八点见", 4, "今晚八…"),
        ("😀😀", 4, "😀😀"),
        ("😀😀😀", 4, "😀…"),
        ("👍🏽a", 4, "…"),
        ("ab", 1, "…"),
        ("ab", 0, ""),
        ("ab", -1, ""),
    ],
)
def test_a_text_is_cut_to_characters(text: str, limit: int, clipped: str) -> None:
    assert clip_chars(text, limit) == clipped


@settings(deadline=None)
@given(texts, st.integers(0, 80), st.booleans(), st.booleans())
def test_wide_or_halved_texts_keep_whole_characters(clusters: list[str], limit: int, wide: bool, halve: bool) -> None:
    def size(text: str) -> int:
        return len(text) + sum(not character.isascii() for character in text) if wide else char_count(text)

    text = "".join(clusters)
    half = min(limit, size(text)) // 2
    # Where half of it would not even be its first character, it is left as it is.
    allowed = half if halve and size(clusters[0] if clusters else "") + size(ELLIPSIS) <= half else limit
    clipped = clip_chars(text, limit, wide=wide, halve=halve)
    assert size(clipped) <= allowed
    if size(text) <= allowed:
        assert clipped == text
    else:
        assert clipped in {"".join(clusters[:count]) + ELLIPSIS for count in range(len(clusters))} | {""}


def test_columns_and_halves() -> None:
    assert clip_chars("今晚八点见 abc", 10, wide=True) == "今晚八点…"
    assert clip_chars("abcdefghij", 10, wide=True) == "abcdefghij"
    assert clip_chars("今晚八点见", 50, halve=True) == "今…"
    assert clip_chars("abcdefgh" * 10, 50, halve=True) == "abcdefgh" * 3 + "…"
    assert clip_chars("ab", 50, halve=True) == "ab"
    assert clip_chars("a", 50, halve=True) == "a"
    assert clip_chars("Ann", 40, wide=True, halve=True) == "Ann"
    assert clip_chars("\U0001f468\u200d\U0001f469 abc", 50, halve=True) == "\U0001f468\u200d\U0001f469 abc"


@settings(deadline=None)
@given(st.text(max_size=300), st.integers(-5, 400))
def test_any_text_is_cut_within_the_budget(text: str, budget: int) -> None:
    clipped = clip(text, budget)
    assert json_size(clipped) <= max(budget, 0)
    assert clipped == text or clipped == "" or text.startswith(clipped.removesuffix(ELLIPSIS))


def test_as_much_is_kept_as_fits() -> None:
    assert clip("今晚八点见", 15) == "今晚八点见"
    assert clip("今晚八点见", 14) == "今晚八…"
    assert clip("今晚八点见", 3) == "…"
    assert clip("今晚八点见", 2) == ""
    assert clip('""""', 7) == '""…'


@pytest.mark.parametrize("text", ["🇨🇳🇨🇳🇨🇳", "👨‍👩‍👧‍👦👨‍👩‍👧‍👦", "e\u0301" * 9])
def test_every_budget_leaves_whole_clusters(text: str) -> None:
    for budget in range(json_size(text)):
        kept = clip(text, budget).removesuffix(ELLIPSIS)
        assert len(kept) % {"🇨": 2, "👨": 7, "e": 2}[text[0]] == 0


@settings(deadline=None)
@given(st.text(max_size=80), st.text(max_size=80), st.integers(0, 300))
def test_title_and_body_share_the_room(title: str, body: str, room: int) -> None:
    short_title, short_body = fit(title, body, room)
    assert json_size(short_title) + json_size(short_body) <= room
    if json_size(title) <= room // 2:
        assert short_title == title


def test_the_body_is_cut_before_the_title() -> None:
    assert fit("Li Lei", "b" * 100, 20) == ("Li Lei", "b" * 11 + ELLIPSIS)
    assert fit("t" * 100, "short", 20) == ("t" * 12 + ELLIPSIS, "short")
    assert fit("t" * 100, "b" * 100, 20) == ("t" * 7 + ELLIPSIS, "b" * 7 + ELLIPSIS)


def form(ext: str) -> object:
    def make(title: str, body: str, detail: int) -> bytes:
        payload = {"body": body, "detail": detail}
        if title:
            payload["title"] = title
        if detail == FULL:
            payload["ext"] = ext
        return encode(payload)

    return make


@pytest.mark.parametrize(("ext", "detail"), [("", FULL), ("e" * 500, FULL), ("e" * 900, NO_EXT), ("e" * 2_000, NO_EXT)])
def test_an_ext_that_leaves_no_line_of_text_is_left_out_whole(ext: str, detail: int) -> None:
    payload = within(1_000, "Li Lei", "今" * 400, False, form(ext))
    assert len(payload) <= 1_000
    assert json.loads(payload)["detail"] == detail
    assert json.loads(payload)["title"] == "Li Lei"


def test_short_texts_leave_an_ext_alone_that_just_fits() -> None:
    assert json.loads(within(1_000, "Li Lei", "Hi", False, form("e" * 930)))["detail"] == FULL


def test_what_never_fits_ends_bare_and_without_texts() -> None:
    payload = within(10, "Li Lei", "Hi", False, form("e"))
    assert json.loads(payload) == {"body": "", "detail": BARE}


def test_halving_cuts_texts_that_fit() -> None:
    payload = json.loads(within(1_000, "Li Lei", "b" * 94, True, form("")))
    assert (payload["title"], payload["body"]) == ("Li Lei", "b" * 41 + ELLIPSIS)
