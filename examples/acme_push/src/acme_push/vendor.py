"""Acme Push: up to 100 tokens a request, an access token by OAuth 2.0 client credentials. Acme is made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlencode

from pydantic import Field, SecretStr

from pushfleet.message import Kind
from pushfleet_workers.account import AccountSettings, KindSettings
from pushfleet_workers.errors import CredentialError
from pushfleet_workers.outcome import OK, Outcome, Remedy, Row, Verdict
from pushfleet_workers.push import Delivery, Push
from pushfleet_workers.vendor import AuthAnswer, Request, Response, VendorDefaults
from pushfleet_workers.vendors import kit

__all__ = ["CODES", "Acme", "AcmeAccount", "AcmeKind"]

HOST = "https://push.acme.example"
TTL_S_MAX = 86_400

CODES = kit.table(
    *kit.STATUS_ROWS,
    ("0", "200", OK, "Accepted, but for the tokens in `failed`."),
    ("bad_request", "400", kit.BAD_PAYLOAD, "A field is wrong."),
    ("too_large", "400", replace(kit.BAD_PAYLOAD, remedy=Remedy.SHRINK), "The message is above 4,096 bytes."),
    ("expired_token", "401", kit.REFRESH_AUTH, "The access token has run out."),
    ("wrong_template", "403", kit.CLASS_MISCONFIGURED, "Acme has not approved it: correct kinds.<kind>.template."),
    ("too_fast", "429", kit.RATE_LIMITED, "The app sends too fast."),
    ("gone", "200", kit.DROP_TOKEN, "In `failed`: the app is gone from the device."),
    ("muted", "200", Outcome(Verdict.MUTE_DEVICE), "In `failed`: the user has switched the app's messages off."),
    ("other codes", "200", Outcome(Verdict.RETRY), "In `failed`: a code that is not listed; the token is kept."),
)


class AcmeKind(KindSettings):
    """How Acme's messages of one kind travel."""

    priority: Literal["talk", "notice"] | None = Field(None, description="talk rings, notice is silent.")
    template: str | None = Field(None, max_length=64, description="Template that Acme approved; talk needs one.")


class AcmeAccount(AccountSettings):
    """An app in the Acme console."""

    kind_defaults: ClassVar[Mapping[Kind, KindSettings]] = {
        "chat": AcmeKind(priority="talk"),
        **{kind: AcmeKind(priority="notice") for kind in ("system", "official", "marketing")},
    }

    client_id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="Client id of the Acme console.")
    client_secret: SecretStr | None = Field(None, description="Client secret of the console.")
    client_secret_file: Path | None = Field(None, description="File that holds the client secret, instead of it.")
    kinds: dict[Kind, AcmeKind] = Field({}, description="How the messages of a kind travel.")
    rate_per_s: float | None = Field(1_000, gt=0, description="Most tokens a second, over the whole fleet.")

    def secret(self) -> str:
        """The client secret; raises :class:`CredentialError`, one sentence with its mend."""
        return kit.read_secret("client_secret", self.client_secret, self.client_secret_file)


class Acme(VendorDefaults):
    """Acme's push cloud."""

    name: ClassVar[str] = "acme"
    account_type: ClassVar[type[AccountSettings]] = AcmeAccount
    codes: ClassVar[Mapping[str, Row]] = CODES
    batch_size: ClassVar[int] = 100
    payload_limit: ClassVar[int] = 4_096
    http2: ClassVar[bool] = False
    exact_badge: ClassVar[bool] = False

    def build(
        self, account: AcmeAccount, push: Push, deliveries: Sequence[Delivery], auth: str, now_ms: int
    ) -> Request:
        """The request for up to 100 deliveries, each token once; at most 4,096 bytes without the tokens."""
        told: AcmeKind = account.by_kind[push.kind]
        ttl_s = min(max((push.expires_at_ms - now_ms) // 1_000, 1), TTL_S_MAX)

        def form(title: str, body: str, detail: int) -> bytes:
            data = {"mid": push.message_id}
            if push.conversation_id and detail != kit.BARE:
                data["cid"] = push.conversation_id
            if push.ext and detail == kit.FULL:
                data["ext"] = push.ext
            tag = push.replace_key or push.message_id
            message = {"title": title, "body": body, "ttl_s": ttl_s, "tag": tag, "data": data}
            return kit.encode(message | {name: value for name, value in told if value})

        halve = any(delivery.remedy == "shrink" for delivery in deliveries)
        content = kit.within(self.payload_limit - len('"tokens":[],'), push.title, push.body, halve, form)
        tokens = kit.encode(list(dict.fromkeys(delivery.token for delivery in deliveries)))
        headers = {"authorization": f"Bearer {auth}", "content-type": "application/json"}
        return Request(f"{_host(account)}/v1/push", headers, b'{"tokens":' + tokens + b"," + content[1:])

    def read(self, deliveries: Sequence[Delivery], response: Response) -> list[Outcome]:
        """The outcome of the code, of which that of tokens named in `failed` differs; else of the status."""
        content = kit.parse_object(response.body)
        code = kit.plain(content.get("code"))
        if code != "0" or response.status != 200:
            return [kit.judge(CODES, code if code != "0" else "", response)] * len(deliveries)
        failed = content.get("failed")
        named = failed if isinstance(failed, dict) else {}
        return [_of_token(named[one.token]) if one.token in named else OK for one in deliveries]

    def auth_request(self, account: AcmeAccount, now_s: float) -> Request:
        """The request for an access token; raises :class:`CredentialError`."""
        form = {"grant_type": "client_credentials", "client_id": account.client_id, "client_secret": account.secret()}
        headers = {"content-type": "application/x-www-form-urlencoded"}
        return Request(account.auth_url or f"{_host(account)}/oauth/token", headers, urlencode(form).encode())

    def read_auth(self, response: Response) -> AuthAnswer:
        """The access token, or why there is none."""
        return kit.read_token(response)

    def check(self, account: AcmeAccount, now_s: float) -> list[str]:
        """What is wrong with the client secret, and which kinds lack their template."""
        kinds: Mapping[Kind, Any] = account.by_kind
        lacking = [kind for kind, told in kinds.items() if told.priority == "talk" and not told.template]
        problems = [f"kinds: {', '.join(lacking)} without a template, which Acme refuses: name one"] if lacking else []
        try:
            account.secret()
        except CredentialError as problem:
            problems.append(str(problem))
        return problems


def _host(account: AcmeAccount) -> str:
    return account.base_url.rstrip("/") or HOST


def _of_token(code: object) -> Outcome:
    row = CODES.get(kit.plain(code))
    return row.outcome if row is not None else replace(CODES["other codes"].outcome, code=kit.plain(code))
