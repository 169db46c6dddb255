"""What every vendor account can be told, whatever the vendor."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

__all__ = ["AccountSettings", "Transport"]

Transport = Literal["pyreqwest", "httpx", "aioapns"]


class AccountSettings(BaseModel):
    """One credential of one vendor: the unit of ledger, rate, breaker and connections.

    Vendors subclass it with their own fields and defaults.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    app: str = Field(description="The app, as in the messages, that these devices belong to.")
    transport: Transport = Field("pyreqwest", description="HTTP engine: pyreqwest, httpx, or aioapns (APNs only).")
    base_url: str = Field("", description="Where requests go instead of the vendor's own address.")
    auth_url: str = Field("", description="Where access tokens come from instead of the vendor's own address.")
    proxy: str = Field("", description="HTTP proxy for this account, e.g. http://proxy:3128.")
    ca_bundle: Path | None = Field(None, description="PEM file of further authorities to trust, for example a proxy's.")
    rate_per_s: float | None = Field(
        None, gt=0, description="Most targets a second, over the whole fleet; absent: no limit."
    )
    burst: int | None = Field(
        None, ge=1, description="What may leave above the rate in one second; absent: half a second of rate."
    )
    in_flight_max: int = Field(200, ge=1, le=5_000, description="Most requests waiting for an answer, per process.")
    connections: int = Field(1, ge=1, le=64, description="HTTP/2 connections per process.")
    timeout_s: float = Field(10.0, gt=0, le=120, description="How long one request may take.")
    attempts_max: int = Field(8, ge=1, le=50, description="Answers or failures after which a delivery is dead.")
    on_unknown: Literal["retry", "drop"] = Field(
        "retry", description="What to do when a request left and no answer came: send again, or drop."
    )


def secret(value: SecretStr | None, file: Path | None) -> str:
    """The secret given in the settings, or read from *file*; empty when there is neither."""
    if file is not None:
        return file.read_text(encoding="utf-8").strip()
    return value.get_secret_value() if value is not None else ""
