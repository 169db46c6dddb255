"""Refusals: a machine-readable code, a sentence, the field where there is one; and reading a body or refusing it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from fastapi.responses import JSONResponse

from pushfleet_workers.tokens.changes import explain

__all__ = ["PROBLEM_SCHEMA", "Problem", "decode", "problem_response", "read_body"]

T = TypeVar("T")

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Why a request was refused; nothing was changed.",
    "properties": {
        "code": {"type": "string", "description": "For programs; does not change."},
        "message": {"type": "string", "description": "For people: what is wrong and how to mend it."},
        "field": {"type": "string", "description": "The path of what is wrong in the body; empty where it is not one."},
    },
    "required": ["code", "message", "field"],
}


class Problem(Exception):
    """Answered with a status of 4xx or 5xx and code, message and field; nothing was changed."""

    def __init__(
        self, status: int, code: str, message: str, field: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, code, message, field, headers)
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        self.headers = headers


def problem_response(problem: Problem) -> JSONResponse:
    """The answer that says *problem*."""
    content = {"code": problem.code, "message": problem.message, "field": problem.field}
    return JSONResponse(content, status_code=problem.status, headers=problem.headers)


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The request's body; raises :class:`Problem` above *bytes_max*, and reads no further."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > bytes_max:
            raise Problem(413, "body_too_large", f"the body is larger than {bytes_max} bytes")
    return bytes(body)


async def decode(request: Request, decoder: msgspec.json.Decoder[T], bytes_max: int) -> T:
    """The request's body; raises :class:`Problem` with the path of what is wrong, never with what was sent.

    Reads *bytes_max* and no further. Only JSON is taken, and said to be: a web page elsewhere can make a browser send
    a form or plain text here, but not that.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Problem(415, "unsupported_media_type", "say what the body is: Content-Type: application/json")
    body = await read_body(request, bytes_max)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Problem(422, "invalid_field", *explain(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem(400, "invalid_json", "the body is not JSON in UTF-8") from None
