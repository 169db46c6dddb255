"""What every vendor account can be told, whatever the vendor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from pushfleet.message import Kind

__all__ = ["AccountSettings", "KindSettings", "Transport", "kind_settings"]

Transport = Literal["pyreqwest", "httpx", "aioapns"]

_BETWEEN_PEOPLE = frozenset({"chat", "mention", "call", "call_cancel", "missed_call", "summary"})
"""Kinds that people cause for each other: what an operator sets for chats holds for them as well."""


class KindSettings(BaseModel):
    """How the messages of one kind travel: class, channel, template. Vendors subclass it; every field may be None.

    A field that is None falls through: from the account's settings for the kind to the vendor's default for the kind,
    then, for what people write to each other, to the same two for ``chat``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class AccountSettings(BaseModel):
    """One credential of one vendor: the unit of ledger, rate, breaker and connections.

    Vendors subclass it with their own fields and defaults. Those that tell kinds of messages apart have a field
    ``kinds`` of type ``dict[Kind, <their KindSettings>]``, and what holds without it in ``kind_defaults``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {}

    app: str = Field(description="The app, as in the messages, that these devices belong to.")
    transport: Transport = Field("pyreqwest", description="HTTP engine: pyreqwest, httpx, or aioapns (APNs only).")
    base_url: str = Field("", description="Where requests go instead of the vendor's own address.")
    auth_url: str = Field("", description="Where access tokens come from instead of the vendor's own address.")
    proxy: str = Field("", description="HTTP proxy for this account, e.g. http://proxy:3128.")
    ca_bundle: Path | None = Field(
        None,
        description="PEM file of the authorities to trust, for example a proxy's. pyreqwest trusts the system's as "
        "well; httpx, aioapns and requests for access tokens trust these alone.",
    )
    rate_per_s: float | None = Field(
        None, gt=0, description="Most targets a second, over the whole fleet; absent: no limit."
    )
    burst: int | None = Field(
        None, ge=1, description="What may leave above the rate in one second; absent: half a second of rate."
    )
    in_flight_max: int = Field(200, ge=1, le=5_000, description="Most requests waiting for an answer, per process.")
    connections: int = Field(1, ge=1, le=64, description="Connections per process, where the vendor speaks HTTP/2.")
    timeout_s: float = Field(10.0, gt=0, le=120, description="How long one request may take.")
    attempts_max: int = Field(
        8,
        ge=1,
        le=50,
        description="Answers about this one device, and requests without an answer that can be read, after which a "
        "delivery is dead.",
    )
    on_unknown: Literal["retry", "drop"] = Field(
        "retry",
        description="What to do when a request left and no answer came, or none that can be read: send again, or drop.",
    )
    device_caps: dict[str, Annotated[int, Field(ge=0, le=1_000_000)]] = Field(
        {},
        description="Most pushes that one device is sent in a day of the vendor's, by the vendor's classes of "
        "messages, such as { public = 8 }; 0: no limit. What is left out is as the vendor has it, where that is sure.",
    )
    device_reserve: float = Field(
        0.4,
        ge=0,
        le=0.9,
        description="Share of a cap that only mentions, calls and whatever else is urgent or forced may use; it counts "
        "in classes in which these travel.",
    )

    @cached_property
    def by_kind(self) -> Mapping[Kind, Any]:
        """What holds for each kind of message: the account's settings over the vendor's defaults."""
        given: Mapping[Kind, KindSettings] = getattr(self, "kinds", {})
        return {kind: _settled(kind, given, self.kind_defaults) for kind in get_args(Kind)}


def kind_settings(account_type: type[AccountSettings]) -> type[KindSettings] | None:
    """What the accounts of *account_type* are told of each kind of message; None where they tell no kinds apart."""
    field = account_type.model_fields.get("kinds")
    found: type[KindSettings] | None = get_args(field.annotation)[1] if field is not None else None
    return found


def _settled(
    kind: Kind, given: Mapping[Kind, KindSettings], defaults: Mapping[Kind, KindSettings]
) -> KindSettings | None:
    chain = [source[kind] for source in (given, defaults) if kind in source]
    if kind in _BETWEEN_PEOPLE and kind != "chat":
        chain += [source["chat"] for source in (given, defaults) if "chat" in source]
    if not chain:
        return type(next(iter([*given.values(), *defaults.values()])))() if given or defaults else None
    fields: dict[str, Any] = {}
    for settings in reversed(chain):
        fields |= {name: value for name, value in settings if value is not None}
    return chain[0].model_copy(update=fields)
