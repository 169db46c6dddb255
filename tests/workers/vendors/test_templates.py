"""Templates that vendors approve are filled with the push's texts."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from pushfleet_workers.vendors._templates import TemplateParams, filled

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
