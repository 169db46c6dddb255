"""How endpoints stand in the OpenAPI document: what they take, what they answer, what they refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

__all__ = ["REFUSALS", "documented", "schemas_of"]

REFUSALS: Mapping[int, str] = {
    400: "The body is not JSON, or the path is not percent-encoded UTF-8.",
    401: "The API key is missing or wrong.",
    404: "There is no such app.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    422: "A field is wrong; nothing was changed.",
    503: "Redis does not answer; try again.",
}
"""Why a request may be refused, by status; endpoints say otherwise where it is otherwise."""

_OF_BODIES = frozenset({413, 415})


def schemas_of(*bodies: type[Struct]) -> dict[str, Any]:
    """The JSON Schemas of *bodies* and of what is in them, by name."""
    _, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    return components


def documented(
    given: type[Struct] | None,
    shown: type[Struct] | None,
    answer: str,
    *,
    refusals: Mapping[int, str] = REFUSALS,
    never: Sequence[int] = (),
    status: int | None = None,
) -> dict[str, Any]:
    """What a route is told of an endpoint, beside path, method and handler.

    * **given** - the body that it takes; None: none, and what is refused of bodies is left out.
    * **shown** - the body that it answers; None: none.
    * **answer** - what a good answer means.
    * **never** - statuses of *refusals* that it does not answer.
    * **status** - of a good answer; by default 200, and 204 without a body.
    """
    good = status if status is not None else 204 if shown is None else 200
    left_out = {*never, *(_OF_BODIES if given is None else ())}
    responses: dict[int, dict[str, Any]] = {
        good: {"description": answer, **({"content": _body(shown.__name__)} if shown is not None else {})},
        **{
            code: {"description": why, "content": _body("Problem")}
            for code, why in refusals.items()
            if code not in left_out
        },
    }
    extra = {"requestBody": {"required": True, "content": _body(given.__name__)}} if given is not None else {}
    return {"openapi_extra": extra, "responses": responses, "status_code": good}


def _body(name: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
