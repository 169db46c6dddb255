"""What fills the text templates that a vendor has approved: the operator names the variables, we know the texts."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Annotated

from pydantic import AfterValidator

from pushfleet_workers.push import Push

__all__ = ["PLACEHOLDERS", "TemplateParams", "filled", "texts_for"]

PLACEHOLDERS = ("title", "body", "sender", "group")
"""The push's title and text, who wrote it, and in which group; the last two may be empty."""

_FORMATTER = Formatter()


def _checked(params: dict[str, str]) -> dict[str, str]:
    for name, value in params.items():
        try:
            used = [field for _, field, _, _ in _FORMATTER.parse(value) if field is not None]
        except ValueError as problem:
            raise ValueError(f"template parameter {name}: {problem}; a brace itself is written twice") from None
        unknown = [field for field in used if field not in PLACEHOLDERS]
        if unknown:
            known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
            raise ValueError(f"template parameter {name} names {{{unknown[0]}}}: there are {known}")
    return params


TemplateParams = Annotated[dict[str, str], AfterValidator(_checked)]
"""By the template's own variable names: a text with ``{title}``, ``{body}``, ``{sender}`` or ``{group}`` in it."""


def filled(params: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, str]:
    """*params* with *texts* (by placeholder) put in; what is missing there is left empty."""
    return {
        name: "".join(
            literal + (texts.get(field, "") if field is not None else "")
            for literal, field, _, _ in _FORMATTER.parse(value)
        )
        for name, value in params.items()
    }


def texts_for(params: Mapping[str, str], push: Push) -> dict[str, str]:
    """What *push* has for each placeholder of *params*.

    In groups the text begins with the name of who wrote it. Where *params* name the sender themselves, the name would
    stand there twice: it is left out of the text. A sender without a name is called as the title says.
    """
    sender, body = push.sender_name, push.body
    if push.group and sender and any("{sender}" in value for value in params.values()):
        before, _, after = body.partition(f"{sender}: ")
        body = before + after
    group = push.title if push.group else ""
    return {"title": push.title, "body": body, "sender": sender or ("" if group else push.title), "group": group}
