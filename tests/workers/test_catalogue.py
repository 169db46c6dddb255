"""The fleet's own texts: languages that settings add, what falls back on what, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.workers.routing import Stage, chat, play

from pushfleet import Element
from pushfleet_workers.catalogue import BUILT_IN, Catalogue, flaws
from pushfleet_workers.compose import compose, compose_storm
from pushfleet_workers.errors import SettingsError
from pushfleet_workers.settings import load

MORE = {
    "fr": {"image": "[Photo]", "mention": "[On parle de vous] "},
    "zh-Hant": {"image": "[圖片]"},
    "pt-BR": {"image": "[Imagem]"},
    "en": {"face": "[Emoji]"},
}


@pytest.mark.parametrize(
    ("locale", "default", "language"),
    [
        ("fr-CA", "en", "fr"),
        ("zh-Hant-TW", "en", "zh-hant"),
        ("zh_Hant_HK", "en", "zh-hant"),
        ("zh-Hans-CN", "en", "zh"),
        ("zh-TW", "en", "zh"),
        ("pt-BR", "en", "pt-br"),
        ("pt-PT", "fr", "fr"),
        ("pt", "xx", "en"),
        ("", "PT-br", "pt-br"),
        ("-", "", "en"),
    ],
)
def test_the_nearest_language_is_taken(locale: str, default: str, language: str) -> None:
    assert Catalogue(MORE).language_of(locale, default) == language


def test_what_a_language_lacks_it_takes_from_the_wider_one_or_english() -> None:
    catalogue = Catalogue(MORE)
    assert catalogue["fr"]["image"] == "[Photo]"
    assert catalogue["fr"]["video"] == "[Video]"
    assert catalogue["fr"]["face"] == "[Emoji]"
    assert catalogue["zh-hant"]["image"] == "[圖片]"
    assert catalogue["zh-hant"]["video"] == "[视频]"
    assert catalogue["en"]["face"] == "[Emoji]"
    assert catalogue["zh"]["face"] == "[表情]"
    assert catalogue["nowhere"] == catalogue["en"]
    assert {frozenset(catalogue[language]) for language in catalogue} == {frozenset(BUILT_IN["en"])}


def test_what_is_built_in_is_left_alone() -> None:
    Catalogue({"en": {"image": "[Pic]"}})
    assert Catalogue()["en"]["image"] == "[Image]"


@given(locale=st.text(max_size=20), default=st.text(max_size=20))
def test_whatever_devices_report_there_is_a_language(locale: str, default: str) -> None:
    catalogue = Catalogue(MORE)
    assert catalogue.language_of(locale, default) in set(catalogue)
    assert catalogue[locale]["image"]


@given(name=st.text(alphabet="{}sendrtilcouh ", max_size=20), count=st.integers(2, 10_000))
def test_names_that_look_like_places_fill_nothing(name: str, count: int) -> None:
    shown = compose_storm("en", name, name, count, group=True)
    sender = name.strip()
    assert shown == (f"{sender} and {count - 1} others in {name}" if sender else f"{count} new messages")


# ---- what is refused


@pytest.mark.parametrize(
    ("texts", "flaw"),
    [
        ({"fr": {"imagee": "x"}}, "fr.imagee is no text: did you mean image?"),
        ({"fr": {"qqq": "x"}}, "fr.qqq is no text"),
        ({"fr": {"image": ""}}, "fr.image must have 1 to 256 characters"),
        ({"fr": {"image": "  "}}, "fr.image must have 1 to 256 characters"),
        ({"fr": {"image": "x" * 257}}, "fr.image must have 1 to 256 characters"),
        ({"fr": {"image": "{sender}"}}, "fr.image has {sender}, which nothing fills; it may have: none"),
        (
            {"fr": {"storm": "{number} messages"}},
            "fr.storm has {number}, which nothing fills; it may have: {count}",
        ),
        ({"french": {}}, "french is no language: write it as fr, zh-Hant or pt-BR"),
        ({"zh_Hant": {}}, "zh_Hant is no language: write it as fr, zh-Hant or pt-BR"),
        ({"": {}}, " is no language: write it as fr, zh-Hant or pt-BR"),
    ],
)
def test_each_flaw_is_told_in_a_sentence(texts: dict[str, dict[str, str]], flaw: str) -> None:
    assert list(flaws(texts)) == [flaw]


def test_what_is_right_has_no_flaw() -> None:
    assert list(flaws(MORE)) == []
    assert list(flaws({"fr": {"storm_group": "{sender}, {title}: {others} de {count}", "mention": "@ "}})) == []


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('[texts.fr]\nimagee = "x"', r"texts\.fr\.imagee is no text: did you mean image\?"),
        ("[texts.fr]\nimage = 7", r"texts\.fr\.image"),
        ('texts = "fr"', r"texts"),
        ('[texts]\nfr = "x"', r"texts\.fr"),
    ],
)
def test_settings_refuse_texts_that_would_say_nothing(tmp_path: Path, lines: str, problem: str) -> None:
    (tmp_path / "pushfleet.toml").write_text(lines, encoding="utf-8")
    with pytest.raises(SettingsError, match=problem):
        load(tmp_path / "pushfleet.toml")


def test_settings_take_texts_from_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pushfleet.toml").write_text('[texts.fr]\nimage = "[Photo]"\n', encoding="utf-8")
    monkeypatch.setenv("PUSHFLEET_TEXTS__FR__VIDEO", "[Film]")
    assert load(tmp_path / "pushfleet.toml").texts == {"fr": {"image": "[Photo]", "video": "[Film]"}}


# ---- at work


def test_a_device_reads_the_language_that_the_settings_add(redis_url: str) -> None:
    picture: dict[str, Any] = {"body": None, "elements": (Element(type="image"), Element(type="file"))}

    async def scenario(stage: Stage) -> None:
        await stage.device("a", locale="fr-CA")
        await stage.device("b", locale="en")
        await stage.route(chat("m1", "a", "b", **picture))
        assert sorted(entry.parcel.push.body for entry in await stage.entries()) == ["[Image][File]", "[Photo][File]"]

    play(redis_url, scenario, texts=MORE)


def test_the_composer_takes_a_catalogue() -> None:
    message = chat("m1", body=None, elements=(Element(type="image"),))
    assert compose(message, "fr", "Demo", mentioned=True, catalogue=Catalogue(MORE))[1] == "[On parle de vous] [Photo]"
