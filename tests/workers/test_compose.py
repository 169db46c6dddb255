from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushfleet.message import Conversation, Element, Kind, OfflineMessage, OfflinePush, Sender
from pushfleet_workers.catalogue import BUILT_IN, STANDARD
from pushfleet_workers.compose import compose, compose_recall

KINDS = get_args(Kind)
GROUP = Conversation(id="g", kind="group", name="Family")
SINGLE = Conversation(id="c", name="not shown")
ANN = Sender(id="ann", name="Ann")


def text(words: str) -> Element:
    return Element(type="text", text=words)


def composed(language: str = "en", *, mentioned: bool = False, **fields: Any) -> tuple[str, str]:
    message = OfflineMessage(id="m", app="demo", recipients=("u",), **fields)
    return compose(message, language, "Demo", mentioned=mentioned)


# ---- elements and languages


def test_elements_are_joined_in_order_without_a_separator() -> None:
    assert composed(elements=(text("Look "), Element(type="image"), text("!"))) == ("Demo", "Look [Image]!")


@pytest.mark.parametrize("language", BUILT_IN)
@pytest.mark.parametrize("kind", ["image", "sound", "video", "file", "location", "face", "merged"])
def test_every_kind_of_element_has_a_text_in_every_language(language: str, kind: str) -> None:
    _, body = composed(language, elements=(Element(type=kind),))
    assert body == BUILT_IN[language][kind]
    assert body


@pytest.mark.parametrize("kind", ["poll", "", "mention", "call", "other"])
def test_an_element_of_an_unknown_type_shows_a_neutral_text(kind: str) -> None:
    assert composed("zh", elements=(Element(type=kind),))[1] == "[新消息]"


def test_what_an_element_says_of_itself_wins_over_the_catalogue() -> None:
    assert composed(elements=(Element(type="image", desc="A cat"),))[1] == "A cat"


def test_the_catalogues_speak_of_the_same_things() -> None:
    assert {frozenset(texts) for texts in BUILT_IN.values()} == {frozenset(BUILT_IN["en"])}
    assert all(text for texts in BUILT_IN.values() for text in texts.values())


@pytest.mark.parametrize(
    ("locale", "default", "language"),
    [
        ("zh-Hans-CN", "en", "zh"),
        ("zh_TW", "en", "zh"),
        ("EN_gb", "zh", "en"),
        ("fr", "zh", "zh"),
        ("", "zh", "zh"),
        ("fr", "zh-CN", "zh"),
        ("fr", "de", "en"),
        ("", "", "en"),
    ],
)
def test_the_language_is_the_devices_else_the_apps_else_english(locale: str, default: str, language: str) -> None:
    assert STANDARD.language_of(locale, default) == language


@pytest.mark.parametrize("language", ["zh-Hans-CN", "fr", ""])
def test_a_language_that_the_catalogue_lacks_breaks_nothing(language: str) -> None:
    assert composed(language, elements=(Element(type="image"),))[1] in ("[Image]", "[图片]")


# ---- precedence


def test_the_push_wins_over_the_message_and_the_message_over_its_elements() -> None:
    push = OfflinePush(title="Push title", desc="Push text")
    fields: dict[str, Any] = {"title": "Title", "body": "Body", "elements": (text("words"),)}
    assert composed(offline_push=push, **fields) == ("Push title", "Push text")
    assert composed(offline_push=OfflinePush(), **fields) == ("Title", "Body")
    assert composed(elements=(text("words"),), title="Title") == ("Title", "words")


def test_the_title_is_the_groups_name_then_the_senders_then_the_apps() -> None:
    fields: dict[str, Any] = {"body": "hi"}
    assert composed(conversation=GROUP, sender=ANN, **fields)[0] == "Family"
    assert composed(conversation=Conversation(id="g", kind="channel", name="News"), **fields)[0] == "News"
    assert composed(conversation=SINGLE, sender=ANN, **fields)[0] == "Ann"
    assert composed(conversation=Conversation(id="g", kind="group"), sender=ANN, **fields)[0] == "Ann"
    assert composed(sender=Sender(id="ann"), **fields)[0] == "Demo"


def test_what_is_empty_once_cleaned_counts_as_absent() -> None:
    blank = " \u202e\u0000\n "
    group = Conversation(id="g", kind="group", name=blank)
    push = OfflinePush(title=blank, desc=blank)
    title, body = composed(
        offline_push=push, title=blank, body=blank, conversation=group, sender=ANN, elements=(text("hi"),)
    )
    assert (title, body) == ("Ann", "Ann: hi")
    assert composed(body="hi", conversation=GROUP, sender=Sender(id="a", name=blank)) == ("Family", "hi")


@pytest.mark.parametrize(
    ("own", "shown"),
    [
        ({"push": "Push", "message": "Message"}, "Push"),
        ({"push": "", "message": "Message"}, "Message"),
        ({"message": "Message"}, "Message"),
        ({}, "Family"),
    ],
)
def test_the_title_by_precedence(own: dict[str, str], shown: str) -> None:
    push = OfflinePush(title=own["push"]) if "push" in own else None
    assert composed(offline_push=push, title=own.get("message"), conversation=GROUP, sender=ANN, body="hi")[0] == shown


@pytest.mark.parametrize(
    ("desc", "body", "shown"),
    [
        ("Desc", "Body", "Desc"),
        ("", "Body", "Body"),
        (None, "Body", "Body"),
        (None, None, "words[Image]"),
        (None, "", "words[Image]"),
    ],
)
def test_the_text_by_precedence(desc: str | None, body: str | None, shown: str) -> None:
    fields: dict[str, Any] = {"elements": (text("words"), Element(type="image"))}
    assert composed(offline_push=OfflinePush(desc=desc), body=body, **fields)[1] == shown


def test_a_desc_gives_a_text_to_a_custom_element_without_one() -> None:
    lone = (Element(type="custom"),)
    assert composed(elements=lone) == ("", "")
    assert composed(elements=lone, offline_push=OfflinePush(desc="A poll"))[1] == "A poll"
    assert (
        composed(elements=(Element(type="custom", desc="own"),), offline_push=OfflinePush(desc="A poll"))[1] == "A poll"
    )
    assert composed(elements=(text("hello"), Element(type="custom", desc="world")))[1] == "helloworld"


# ---- who wrote it


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"conversation": SINGLE, "sender": ANN}, ("Ann", "hi")),
        ({"conversation": SINGLE, "sender": ANN, "title": "Ann"}, ("Ann", "hi")),
        ({"conversation": SINGLE, "sender": ANN, "title": "News"}, ("News", "Ann: hi")),
        ({"conversation": SINGLE, "title": "News"}, ("News", "hi")),
        ({"sender": ANN, "offline_push": OfflinePush(title="News")}, ("News", "Ann: hi")),
        ({"conversation": GROUP, "sender": ANN}, ("Family", "Ann: hi")),
        ({"conversation": GROUP, "sender": ANN, "title": "Family"}, ("Family", "Ann: hi")),
        ({"conversation": GROUP, "sender": ANN, "title": "News"}, ("News", "Ann(Family): hi")),
        ({"conversation": GROUP, "title": "News"}, ("News", "(Family): hi")),
        ({"conversation": GROUP}, ("Family", "hi")),
        (
            {"conversation": GROUP, "sender": ANN, "title": "News", "kind": "mention"},
            ("News", "[Mentioned you] Ann(Family): hi"),
        ),
        # What is no chat has said in its title what it wants to say.
        ({"conversation": SINGLE, "sender": ANN, "title": "News", "kind": "official"}, ("News", "hi")),
        ({"conversation": SINGLE, "sender": ANN, "title": "Voice call", "kind": "call"}, ("Voice call", "hi")),
    ],
)
def test_the_text_tells_of_sender_and_group_what_the_title_keeps_back(
    fields: dict[str, Any], told: tuple[str, str]
) -> None:
    assert composed(body="hi", **fields) == told


# ---- groups and mentions


def test_in_groups_and_channels_the_text_begins_with_the_sender() -> None:
    assert composed(conversation=GROUP, sender=ANN, body="hi")[1] == "Ann: hi"
    assert composed(conversation=SINGLE, sender=ANN, body="hi")[1] == "hi"
    assert composed(conversation=GROUP, body="hi")[1] == "hi"


def test_a_text_given_for_the_push_stands_alone() -> None:
    push = OfflinePush(desc="Finished")
    assert composed(conversation=GROUP, sender=ANN, offline_push=push, mentioned=True)[1] == "Finished"


def test_who_is_mentioned_reads_so() -> None:
    assert composed(conversation=GROUP, sender=ANN, body="hi", mentioned=True)[1] == "[Mentioned you] Ann: hi"
    assert composed("zh", conversation=GROUP, sender=ANN, body="hi", kind="mention")[1] == "[有人@我] Ann: hi"
    assert composed(body="hi", mentioned=True)[1] == "[Mentioned you] hi"


# ---- nothing to say


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"elements": (text(""),)},
        {"elements": (text(" \n\t "),)},
        {"elements": (Element(type="custom"),)},
        {"elements": (text("\u200e\u202a\u2069"),), "title": "Title"},
        {"sender": ANN, "conversation": GROUP, "kind": "mention"},
        {"kind": "call", "elements": (Element(type="custom"),)},
    ],
)
def test_an_empty_text_pushes_nothing(fields: dict[str, Any]) -> None:
    assert composed(**fields) == ("", "")


@pytest.mark.parametrize("kind", ["call", "missed_call", "call_cancel"])
def test_calls_have_a_text_of_their_own(kind: str) -> None:
    assert composed("zh", kind=kind, sender=ANN) == ("Ann", BUILT_IN["zh"][kind])
    assert composed(kind=kind, body="Video call")[1] == "Video call"


# ---- what a sender must not do


@pytest.mark.parametrize("unwanted", ["\u202e", "\u2066", "\u200f", "\u061c", "\x00", "\x07", "\x1b", "\x85", "\ufeff"])
def test_control_and_direction_characters_are_taken_out_everywhere(unwanted: str) -> None:
    forged = f"a{unwanted}b"
    fields: list[dict[str, Any]] = [
        {"body": forged, "title": forged},
        {"elements": (text(forged),), "sender": Sender(id="x", name=forged), "conversation": GROUP},
        {"offline_push": OfflinePush(title=forged, desc=forged)},
        {
            "elements": (Element(type="custom", desc=forged),),
            "conversation": Conversation(id="g", kind="group", name=forged),
        },
    ]
    for one in fields:
        assert unwanted not in "".join(composed(**one))
        assert "ab" in composed(**one)[1]


def test_line_breaks_stay_in_texts_and_not_in_names() -> None:
    forger = Sender(id="x", name="Ann\nBank: your code\t1")
    title, body = composed(sender=forger, body="one\r\ntwo\tthree")
    assert (title, body) == ("Ann Bank: your code 1", "one\ntwo\tthree")
    assert composed(sender=forger, conversation=GROUP, body="hi")[1] == "Ann Bank: your code 1: hi"


def test_emoji_with_joiners_stay_whole() -> None:
    family = "👨‍👩‍👧‍👦 👍🏽 e\u0301"
    assert composed(body=family)[1] == family


words = st.text(max_size=30) | st.text(alphabet="\x00\n\t \u202e\u200eab\ufeff", max_size=8)
elements = st.builds(
    Element, type=st.sampled_from(["text", "image", "custom", "weird"]) | st.text(max_size=5), text=words, desc=words
)
messages = st.builds(
    OfflineMessage,
    id=st.just("m"),
    app=st.just("demo"),
    kind=st.sampled_from(KINDS),
    recipients=st.just(("u",)),
    sender=st.none() | st.builds(Sender, id=st.just("s"), name=words),
    conversation=st.none()
    | st.builds(Conversation, id=st.just("c"), kind=st.sampled_from(["single", "group", "channel"]), name=words),
    elements=st.lists(elements, max_size=3).map(tuple),
    title=st.none() | words,
    body=st.none() | words,
    offline_push=st.none() | st.builds(OfflinePush, title=st.none() | words, desc=st.none() | words),
)


@given(message=messages, language=st.sampled_from([*BUILT_IN, "xx", ""]), mentioned=st.booleans())
def test_whatever_a_message_holds_title_and_text_are_clean_and_come_together(
    message: OfflineMessage, language: str, mentioned: bool
) -> None:
    title, body = compose(message, language, "Demo", mentioned=mentioned)
    assert bool(title) is bool(body)
    for shown in (title, body):
        shown.encode()
        assert not set(shown) & set("\x00\x1b\u202e\u200e\u200f\u061c\u2066\ufeff")
        assert shown.strip() == shown
    assert "\n" not in title


# ---- what replaces a recalled message


@pytest.mark.parametrize(
    ("language", "sender", "text"),
    [
        ("en", "Ann", "Ann recalled a message"),
        ("en", "", "A message was recalled"),
        ("en", "\u202e\n", "A message was recalled"),
        ("en", "{sender}", "{sender} recalled a message"),
        ("en", "An\nn\u202e", "An n recalled a message"),
        ("zh", "小安", "小安撤回了一条消息"),
        ("zh", "", "一条消息已被撤回"),
        ("fr", "Ann", "Ann recalled a message"),
    ],
)
def test_a_recall_says_who_took_the_message_back(language: str, sender: str, text: str) -> None:
    message = OfflineMessage(id="m", app="demo", recipients=("u",), sender=Sender(id="ann", name=sender), body="secret")
    assert compose_recall(message, language, "Demo")[1] == text


@pytest.mark.parametrize("conversation", [None, GROUP, SINGLE])
@pytest.mark.parametrize("push", [None, OfflinePush(title="Given", desc="secret")])
def test_a_recall_has_the_title_of_its_message(conversation: Conversation | None, push: OfflinePush | None) -> None:
    fields: dict[str, Any] = {"sender": ANN, "conversation": conversation, "offline_push": push, "body": "secret"}
    message = OfflineMessage(id="m", app="demo", recipients=("u",), **fields)
    title, text = compose_recall(message, "en", "Demo")
    assert title == compose(message, "en", "Demo")[0]
    assert text == "Ann recalled a message"
