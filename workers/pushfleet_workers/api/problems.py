"""Refusals: a machine-readable code, a sentence, and the field where there is one."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from fastapi.responses import JSONResponse

__all__ = ["PROBLEM_SCHEMA", "Problem", "decode", "problem_response"]

T = TypeVar("T")

_AT = re.compile(r" - at `\$?\.?(?P<field>.*)`$")
BODY_BYTES_MAX = 4 * 1024 * 1024

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "description": "For programs; does not change."},
        "message": {"type": "string", "description": "For people: what is wrong and how to mend it."},
        "field": {"type": "string", "description": "The path of what is wrong in the body; empty where it is not one."},
    },
    "required": ["code", "message", "field"],
}


class Problem(Exception):
    """Answered as a 4xx with code, message and field; nothing was changed."""

    def __init__(self, status: int, code: str, message: str, field: str = "") -> None:
        super().__init__(status, code, message, field)
        self.status = status
        self.code = code
        self.message = message
        self.field = field


def problem_response(problem: Problem) -> JSONResponse:
    """The answer that says *problem*."""
    content = {"code": problem.code, "message": problem.message, "field": problem.field}
    return JSONResponse(content, status_code=problem.status)


async def decode(request: Request, decoder: msgspec.json.Decoder[T]) -> T:
    """The request's body; raises :class:`Problem` with the path of what is wrong, never with what was sent."""
    body = await request.body()
    if len(body) > BODY_BYTES_MAX:
        raise Problem(413, "too_large", f"the body has {len(body)} bytes, the limit is {BODY_BYTES_MAX}")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message = str(error)
        at = _AT.search(message)
        field = at["field"] if at is not None else ""
        raise Problem(422, "invalid_field", message[: at.start()] if at is not None else message, field) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem(400, "invalid_json", "the body is not JSON in UTF-8") from None
