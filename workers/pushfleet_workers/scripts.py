"""Lua scripts: their text from the package, and the digest that Redis knows them by."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from importlib.resources import files

__all__ = ["Script", "load"]


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """One Lua script."""

    name: str
    text: str = field(repr=False)
    sha: str = field(repr=False)


@cache
def load(package: str, name: str, *, preamble: str = "", preambles: tuple[str, ...] = ()) -> Script:
    """The script *name*.lua of *package*, with *preamble*.lua, or several, of the same package before it."""
    folder = files(package)
    before = (preamble,) if preamble else preambles
    text = "".join((folder / f"{part}.lua").read_text(encoding="utf-8") for part in (*before, name))
    return Script(name, text, sha1(text.encode(), usedforsecurity=False).hexdigest())
