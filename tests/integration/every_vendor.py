"""Settings of accounts of all ten vendors, for credentials that the fake cloud gives out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pushfleet_workers import registry
from pushfleet_workers.fakecloud import FakeCloudThread
from pushfleet_workers.fakecloud.credentials import Credential

__all__ = ["Accounts"]

SECRETS = {
    "apns": "key_file", "fcm": "service_account_file", "huawei": "client_secret_file",
    "harmony": "service_account_file", "honor": "client_secret_file", "xiaomi": "app_secret_file",
    "oppo": "master_secret_file", "vivo": "app_secret_file", "meizu": "app_secret_file", "tpns": "secret_key_file",
}  # fmt: skip
AUTH_PATHS = {"huawei": "/oauth2/v3/token", "honor": "/auth/token"}
KINDS = {
    "oppo": 'kinds.chat = {channel_id = "im"}',
    "xiaomi": 'kinds.chat = {channel_id = "100004", template_id = ""}',
}
SHARED = frozenset({"fcm", "harmony"})
"""Vendors whose accounts here share one credential: an RSA key takes a while to make."""


class Accounts:
    """Makes accounts of the app ``demo``, each with a credential of its own as far as that costs nothing."""

    def __init__(self, cloud: FakeCloudThread) -> None:
        self._cloud = cloud
        self._shared: dict[str, Credential] = {}
        self._made = 0

    def make(self, vendor: str, name: str, **further: Any) -> tuple[str, str]:
        """The TOML of a new account with *further* settings, and by what id the vendor knows its credential."""
        issued = self._shared.get(vendor) or self._issue(vendor)
        address = self._cloud.url(vendor)
        known = registry.load(vendor).account_type.model_fields
        fields = {name: value for name, value in issued.settings.items() if name in known}
        fields |= {"app": "demo", "base_url": address, "ca_bundle": str(self._cloud.ca_file)}
        fields |= {SECRETS[vendor]: str(issued.file), **further}
        if vendor in AUTH_PATHS:
            fields["auth_url"] = address + AUTH_PATHS[vendor]
        lines = [f"{field} = {json.dumps(value)}" for field, value in fields.items()]
        return "\n".join([f"[accounts.{vendor}.{name}]", *lines, KINDS.get(vendor, ""), ""]), issued.id

    def _issue(self, vendor: str) -> Credential:
        self._made += 1
        number = 1_000_000 + self._made
        options: Mapping[str, Mapping[str, Any]] = {
            "apns": {"topics": ["com.example.test"]},
            "huawei": {"client_id": str(number)},
            "honor": {"app_id": str(number)},
            "xiaomi": {"package_name": f"com.example.im{number}"},
            "vivo": {"app_id": number},
            "meizu": {"app_id": str(number)},
            "tpns": {"access_id": str(number)},
        }
        issued = self._cloud.credential(vendor, **options.get(vendor, {}))
        if vendor in SHARED:
            self._shared[vendor] = issued
        return issued
