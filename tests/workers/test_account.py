"""What holds for a kind of message: the account's own word, then the vendor's default, then that of chats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, get_args

import pytest
from pydantic import Field

from pushfleet.message import Kind
from pushfleet_workers.account import AccountSettings, KindSettings


class AcmeKind(KindSettings):
    category: str | None = None
    level: int | None = None


class AcmeAccount(AccountSettings):
    kinds: dict[Kind, AcmeKind] = Field(default_factory=dict)
    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {
        "chat": AcmeKind(category="IM", level=2),
        "call": AcmeKind(category="VOIP"),
        "marketing": AcmeKind(category="MARKETING"),
    }


def settled(kind: Kind, **kinds: AcmeKind) -> tuple[str | None, int | None]:
    found = AcmeAccount(app="demo", kinds=kinds).by_kind[kind]  # type: ignore[arg-type]
    return found.category, found.level


def test_without_settings_the_vendors_defaults_hold() -> None:
    assert settled("chat") == ("IM", 2)
    assert settled("call") == ("VOIP", 2)
    assert settled("mention") == ("IM", 2)
    assert settled("marketing") == ("MARKETING", None)
    assert settled("system") == (None, None)


def test_what_is_set_for_chats_holds_for_all_that_people_cause() -> None:
    mine = AcmeKind(category="SOCIAL", level=16)
    assert settled("mention", chat=mine) == ("SOCIAL", 16)
    assert settled("call", chat=mine) == ("VOIP", 16)
    assert settled("marketing", chat=mine) == ("MARKETING", None)
    assert settled("official", chat=mine) == (None, None)


def test_a_kinds_own_word_wins_and_an_empty_one_is_a_word() -> None:
    assert settled("call", call=AcmeKind(category=""), chat=AcmeKind(category="SOCIAL")) == ("", 2)


def test_every_kind_has_an_answer_and_a_plain_account_has_none() -> None:
    assert set(AcmeAccount(app="demo").by_kind) == set(get_args(Kind))
    assert set(AccountSettings(app="demo").by_kind.values()) == {None}


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        AcmeKind(colour="red")  # type: ignore[call-arg]
