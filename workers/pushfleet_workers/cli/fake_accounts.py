"""Accounts that point at the fake cloud, ready for a settings file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pushfleet_workers import registry
from pushfleet_workers.credential_store.contents import file_settings
from pushfleet_workers.errors import SettingsError

__all__ = ["accounts_toml"]

_HEAD = """# Accounts at the fake cloud that was started last: copy what you need into pushfleet.toml. Its ports are new
# ones each time, unless --port fixes them.

"""


def accounts_toml(ready: Mapping[str, Any]) -> str:
    """An account of each vendor, as TOML; *ready* is what the fake cloud tells of itself once it listens.

    What `pushfleet check` would find missing in an account, as channels of one's own, stands above it as a comment.
    """
    latest = {issued["vendor"]: issued for issued in ready["credentials"]}
    sections = []
    for vendor, address in ready["vendors"].items():
        try:
            registry.load(vendor)
        except SettingsError:
            # A package may bring a fake and no vendor.
            continue
        sections.append("\n".join(_section(vendor, latest[vendor], address["url"], ready["ca_file"])))
    return _HEAD + "\n\n".join(sections) + "\n"


def _section(vendor: str, issued: Mapping[str, Any], url: str, ca_file: str) -> Iterator[str]:
    module = registry.load(vendor)
    kind = module.account_type
    file = Path(issued["file"])
    fields: dict[str, Any] = {"app": "chat"}
    fields |= {name: value for name, value in issued["settings"].items() if name in kind.model_fields}
    fields |= {_secret(vendor, file): str(file.resolve()), "base_url": url, "ca_bundle": str(Path(ca_file).resolve())}
    now_s = time.time()
    account = kind.model_validate(fields)
    if module.mint(account, now_s) is None:
        asked = module.auth_request(account, now_s).url
        if not asked.startswith(url):
            fields["auth_url"] = url + urlsplit(asked).path
            account = kind.model_validate(fields)
    yield from (f"# {problem}" for problem in module.check(account, now_s))
    yield f"[accounts.{vendor}.main]"
    yield from (f"{name} = {json.dumps(value)}" for name, value in fields.items())


def _secret(vendor: str, file: Path) -> str:
    """The setting that takes the issued *file*."""
    takes = [name for name in file_settings(registry.load(vendor).account_type) if name.endswith("_file")]
    if file.suffix == ".p12":
        return "certificate_file"
    return next(name for name in takes if not name.startswith("receipt_"))
