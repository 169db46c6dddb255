"""Templates that vendors approve are filled with the push's texts."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError
from tests.workers.vendors.samples import a_push

from pushfleet_workers.vendors._templates import TemplateParams, filled, texts_for

params = TypeAdapter(TemplateParams)


def test_placeholders_are_replaced_and_missing_texts_are_empty() -> None:
    template = params.validate_python({"keywords1": "{sender}", "k2": "{group}: {body}", "fixed": "a {{b}}"})
    texts = {"sender": "Ann", "body": "{title} eight?"}
    assert filled(template, texts) == {"keywords1": "Ann", "k2": ": {title} eight?", "fixed": "a {b}"}


@pytest.mark.parametrize(
    ("value", "problem"), [("{name}", "names {name}: there are {title}"), ("{title", "a brace itself"), ("{}", "{}")]
)
def test_an_unknown_placeholder_is_refused_with_those_there_are(value: str, problem: str) -> None:
    with pytest.raises(ValidationError, match="template parameter keywords1") as refused:
        params.validate_python({"keywords1": value})
    assert problem in str(refused.value)


def test_a_push_has_a_text_for_every_placeholder() -> None:
    texts = texts_for({}, a_push(title="Li Lei", body="eight?", sender_name="Li Lei"))
    assert texts == {"title": "Li Lei", "body": "eight?", "sender": "Li Lei", "group": ""}
    family = texts_for({}, a_push(title="Family", group=True))
    assert (family["group"], family["sender"]) == ("Family", "")
    assert texts_for({}, a_push(title="Li Lei"))["sender"] == "Li Lei"


@pytest.mark.parametrize(
    ("params", "body", "shown"),
    [
        ({"who": "{sender}", "what": "{body}"}, "Ann: eight?", "eight?"),
        ({"who": "{sender}", "what": "{body}"}, "[Mentioned you] Ann: Ann: eight?", "[Mentioned you] Ann: eight?"),
        ({"who": "{sender}", "what": "{body}"}, "eight?", "eight?"),
        ({"all": "{body}"}, "Ann: eight?", "Ann: eight?"),
    ],
)
def test_the_sender_stands_in_a_template_once(params: dict[str, str], body: str, shown: str) -> None:
    push = a_push(title="Family", body=body, group=True, sender_name="Ann")
    assert texts_for(params, push)["body"] == shown
