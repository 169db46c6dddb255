"""What requests have in common: ids in paths, percent-encoded UTF-8 that may contain any character; times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import Path

from pushfleet_workers.api.problems import Problem
from pushfleet_workers.tokens.changes import ID_BYTES_MAX, check_id, wrong_time

__all__ = ["AppId", "UserId", "app_id", "check_time", "decoded", "identity", "user_id"]

AppId = Annotated[str, Path(description="An app of the settings.")]
UserId = Annotated[str, Path(description="Percent-encoded; 1 to 256 bytes of UTF-8.")]


def decoded(encoded: str, what: str) -> str:
    """The id in a path; raises :class:`Problem` where it is none."""
    # The edge hands over the path's bytes as Latin-1.
    try:
        return unquote_to_bytes(encoded.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise Problem(400, "invalid_path", f"the {what} id in the path is not percent-encoded UTF-8") from None


def identity(encoded: str, what: str, limit: int) -> str:
    """The id in a path, of 1 to *limit* bytes; raises :class:`Problem`."""
    value = decoded(encoded, what)
    try:
        check_id(what, value, limit)
    except ValueError as problem:
        raise Problem(422, "invalid_id", str(problem), what) from None
    return value


def user_id(encoded: str) -> str:
    """The user in a path; raises :class:`Problem`."""
    return identity(encoded, "user", ID_BYTES_MAX)


def app_id(encoded: str, apps: Mapping[str, Any]) -> str:
    """The app in a path, one of *apps*; raises :class:`Problem`."""
    app = decoded(encoded, "app")
    if app not in apps:
        known = ", ".join(sorted(apps)) or "none"
        raise Problem(404, "unknown_app", f"there is no such app; known are: {known}")
    return app


def check_time(at_ms: int, now_ms: int, field: str, *, may_be_old: bool = False) -> None:
    """Raise :class:`Problem` for a time that cannot be meant: far ahead, or long past unless that *may_be_old*."""
    code, sentence = wrong_time(at_ms, now_ms)
    if code and not (may_be_old and at_ms < now_ms):
        raise Problem(422, code, sentence, field)
