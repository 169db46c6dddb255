"""The configuration: one frozen, typed object, read once from `pushfleet.toml` and `PUSHFLEET_…`, then passed down.

Environment variables win over the file; a double underscore goes one level down: `PUSHFLEET_REDIS__QUEUE`.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from pushfleet.message import NAME
from pushfleet_workers import catalogue, registry
from pushfleet_workers.account import AccountSettings, kind_settings
from pushfleet_workers.errors import SettingsError

__all__ = [
    "CONFIG_VARIABLE",
    "AppSettings",
    "CredentialsSettings",
    "DeadLettersSettings",
    "DeathsSettings",
    "RedisSettings",
    "Settings",
    "load",
    "misfit",
    "sentences",
]

CONFIG_VARIABLE = "PUSHFLEET_CONFIG"
DEFAULT_FILE = Path("pushfleet.toml")
_ENV_PREFIX = "PUSHFLEET_"
_PATH_SUFFIXES = ("_file", "_bundle")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class RedisSettings(_Section):
    """Where Redis is: one server for everything, or one each."""

    url: str = Field(
        "",
        description="Redis for everything that has no URL of its own below; empty: an embedded one. redis://, "
        "rediss:// or unix://; behind Sentinels redis+sentinel://user:password@host:26379,host:26379/master/0, or "
        "rediss+sentinel:// with TLS.",
    )
    broker: str = Field("", description="Redis of the Celery broker.")
    queue: str = Field("", description="Redis of ingress and ledger: one failover unit.")
    state: str = Field("", description="Redis of the token state.")
    prefix: str = Field("pushfleet", pattern=r"^[A-Za-z0-9_.-]+$", description="Starts the name of every key.")
    timeout_s: float = Field(10.0, gt=0, description="A reply later than this breaks the connection.")

    @property
    def broker_url(self) -> str:
        """The broker's URL."""
        return self.broker or self.url

    @property
    def queue_url(self) -> str:
        """The URL of ingress and ledger."""
        return self.queue or self.url

    @property
    def state_url(self) -> str:
        """The token state's URL."""
        return self.state or self.url

    @property
    def clocks_apart_ms(self) -> int:
        """How far the clocks of queue and state may be apart: on two servers as NTP keeps them."""
        return 1_000 if self.state_url != self.queue_url else 0


class IngressSettings(_Section):
    """What producers that read these settings obey."""

    length_max: int = Field(1_000_000, ge=1, description="Entries of a lane above which producers are refused.")
    memory_mark: float = Field(
        0.7, gt=0, le=1, description="Part of Redis' maxmemory above which producers are refused."
    )
    wait_replicas: int = Field(
        0, ge=0, description="Replicas of Redis that must have a message before it counts as accepted."
    )
    wait_timeout_ms: int = Field(1_000, ge=1, le=4_000, description="How long they may take; then it is refused.")


class RouterSettings(_Section):
    """How a router works."""

    batch: int = Field(300, ge=1, le=2_000, description="Stream entries read at once.")
    readers: int = Field(2, ge=1, le=16, description="Batches of the normal lane under way at once.")
    takeover_s: float = Field(15.0, gt=0, description="Silence after which a router's entries go to another.")
    parcel: int = Field(50, ge=1, le=500, description="Deliveries of a parcel, for vendors with a request each.")
    account_backlog_max: int = Field(
        2_000_000, ge=0, description="Deliveries an account may hold before new bulk work is dropped; 0: no limit."
    )


class WorkerSettings(_Section):
    """How a vendor worker works."""

    linger_s: float = Field(2.0, ge=0, le=4, description="How long a drain listens on after its queue ran dry.")
    drains_max: int = Field(8, ge=1, description="Processes of the fleet that drain one vendor at once.")
    settle_ms: float = Field(10.0, ge=1, le=1_000, description="Results gathered before they are written.")
    shutdown_s: float = Field(20.0, gt=0, description="What a warm shutdown may take to finish what is in flight.")
    core: Annotated[int, Field(ge=0)] | Literal["any", "dealt"] = Field(
        "dealt",
        description="Core that the worker keeps to, counted from 0 among those it may use: its threads hand work to "
        "each other all the time, and that takes less CPU on one core. dealt: pushfleet up gives one core to each "
        "worker in turn, a worker that is started alone takes any.",
    )
    recheck_s: float = Field(2.0, ge=0, description="Age from which a delivery's decision is checked again.")


class RetrySettings(_Section):
    """How failed deliveries are tried again: exponential, full jitter, inside the message's TTL."""

    first_s: float = Field(1.0, gt=0, description="Longest wait before the second attempt; doubles from there.")
    longest_s: float = Field(300.0, gt=0, description="Longest wait between two attempts.")


class BreakerSettings(_Section):
    """When an account is left alone for a while."""

    failures: int = Field(20, ge=1, description="Failures in a row that open it.")
    open_first_s: float = Field(1.0, gt=0, description="How long it stays open at first; doubles from there.")
    open_longest_s: float = Field(60.0, gt=0, description="How long it stays open at most.")


class DeathsSettings(_Section):
    """What becomes of tokens that their vendor calls dead."""

    window_s: float = Field(
        600.0, ge=10, description="Sliding window in which an account's undated deaths are weighed against its pushes."
    )
    guard_floor: int = Field(100, ge=0, description="Undated deaths in the window up to which no guard trips.")
    guard_share: float = Field(
        0.25, gt=0, lt=1, description="Part of the account's answers in the window above which more of them trip it."
    )
    quarantine_s: float = Field(
        3600.0, ge=1, description="How long a token is passed over after a death that is doubtful and not confirmed."
    )
    confirm_accepted: int = Field(
        50, ge=1, description="Pushes that the account must have had accepted since, for a doubtful death to count."
    )
    confirm_share: float = Field(
        0.05, gt=0, lt=1, description="Part of the account's answers since then that may be undated deaths."
    )
    kept_max: int = Field(
        500_000, ge=1_000, description="Deaths of an app that are listed and told to subscribers; 30 days at most."
    )


class DeadLettersSettings(_Section):
    """How long what could not be delivered or routed waits for somebody to look; then it is gone, and stays counted."""

    kept_days: int = Field(30, ge=1, le=270, description="Days after which dead letters and refused entries go.")
    kept_max: int = Field(
        100_000, ge=1_000, description="About how many dead letters an account keeps; the oldest go first."
    )

    @property
    def kept_ms(self) -> int:
        """The days in milliseconds."""
        return self.kept_days * 86_400_000


class ApiSettings(_Section):
    """The HTTP API."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65_535, description="Port to listen on; 0: a free one.")
    key: SecretStr | None = Field(None, description="Bearer key that callers must show; absent: none is asked for.")
    foreground_lease_s: int = Field(400, ge=1, description="How long a foreground report holds without another.")


class ReportsSettings(_Section):
    """States of apps that IM connection servers write to a stream, read by the API."""

    stream: bool = Field(True, description="Read the stream of state reports.")
    length_max: int = Field(
        1_000_000, ge=1_000, description="Entries of it above which the oldest are dropped unread, and counted."
    )


class ReceiptsSettings(_Section):
    """What vendors and apps tell of a push after it was sent, served by the API."""

    vendors: bool = Field(True, description="Take what vendors post, for accounts that have a receipt_url.")
    clients: bool = Field(True, description="Take what apps report themselves.")
    requests_per_s: float = Field(
        100.0,
        gt=0,
        description="Requests a second, of one account and of one app, to one process; twice as many at once.",
    )
    kept: int = Field(
        100_000, ge=1, le=10_000_000, description="About how many receipts of an app its stream keeps for the backend."
    )


class CredentialsSettings(_Section):
    """Credentials that are added while the fleet runs: they lie in the Redis of the queue, sealed under this key."""

    master_key: SecretStr | None = Field(
        None,
        description="The key: 32 bytes in base64, as made by openssl rand -base64 32. Further keys after a space seal "
        "nothing and open what was sealed under them.",
    )
    master_key_file: Path | None = Field(
        None, description="File that holds the key, instead of it; further keys on lines of their own below it."
    )

    @property
    def may_come(self) -> bool:
        """Whether credentials may be added while the fleet runs: there is a master key."""
        return self.master_key is not None or self.master_key_file is not None


class MetricsSettings(_Section):
    """The /metrics, /healthz and /readyz of router and workers."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(0, ge=0, le=65_535, description="Port to listen on; 0: a free one, written to the log.")


class LogSettings(_Section):
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    format: Literal["json", "text"] = Field("json", description="One JSON object a line, or text for a terminal.")


class AppSettings(_Section):
    """One IM product."""

    name: str = Field("", description="Shown as title where a message has neither title nor names.")
    locale: str = Field(
        "en",
        description="Language of composed texts for devices that report none: en, zh, or one that texts has as well.",
    )
    recall_window_s: int = Field(
        0,
        ge=0,
        le=2_419_200,
        description="How long after it was routed a message can be taken off screens by a recall, for example 120; so "
        "long the fleet remembers whom it went to. 0: recalls are off.",
    )
    hold_urgent_s: float = Field(
        0, ge=0, le=300, description="How long pushes of the urgent lane wait before they leave; calls never do."
    )
    hold_normal_s: float = Field(
        0,
        ge=0,
        le=300,
        description="How long pushes of the normal lane wait: whoever opens the app meanwhile gets none.",
    )
    hold_bulk_s: float = Field(0, ge=0, le=300, description="The same for the bulk lane.")
    desktop: Literal["push", "hold"] = Field(
        "push",
        description="While the app is in the foreground on a desktop or in a browser: push to the user's other devices "
        "as ever, or hold back for desktop_hold_s first. Such is a device whose platform is desktop, windows, macos, "
        "mac, linux, pc or web.",
    )
    desktop_hold_s: float = Field(15, gt=0, le=300, description="How long such pushes wait, with desktop = hold.")
    device_logins: Literal["all", "one", "one_per_platform"] = Field(
        "all",
        description="Which devices of a user stay logged in when another one logs in: all of them, only the new one, "
        "or those of other platforms as well.",
    )
    device_unused_days: int = Field(
        30,
        ge=0,
        le=270,
        description="Silence after which a device is passed over and then removed: it has neither registered nor "
        "reported. 0: none is passed over, and 270 days of silence remove one.",
    )
    storm_waits_s: tuple[Annotated[float, Field(ge=1, le=3_600)], ...] = Field(
        (),
        max_length=20,
        description="How long the next push of a conversation waits after the first one to a user, after the second, "
        "and so on, such as [10, 20, 40, 80, 160, 300]; the last one holds for all further ones. What comes meanwhile "
        "is told by that one push, with a count. Mentions, calls and the urgent lane pass. "
        "Empty: every message is pushed.",
    )
    storm_quiet_s: float = Field(
        600,
        ge=1,
        le=86_400,
        description="After so long without a message of the conversation the first one counts anew.",
    )
    reads: bool = Field(
        False,
        description="Take reports of how far users have read, and push nothing that they have read. Costs one more "
        "Redis command for each recipient.",
    )
    foreground_ack: Literal["assume", "park"] = Field(
        "assume",
        description="A message to a device whose app is in the foreground: take it for delivered (assume), or park its "
        "push until the backend confirms that the device has the message, and send it when the app leaves the "
        "foreground, or its report runs out, before that (park).",
    )
    park_urgent_s: float = Field(
        3,
        gt=0,
        le=60,
        description="How long a push of the urgent lane is parked at most, such as that of a call: without a "
        "confirmation by then it goes, whatever was reported.",
    )
    deaths_webhook: str = Field(
        "", pattern=r"^(https?://.*)?$", description="Where the app's dead tokens are posted to; empty: nowhere."
    )
    deaths_secret: SecretStr | None = Field(None, description="Key that signs what is posted there.")

    @property
    def holds(self) -> bool:
        """Whether any push of the app may wait before it leaves."""
        return bool(self.hold_urgent_s or self.hold_normal_s or self.hold_bulk_s or self.desktop == "hold")

    @property
    def parks(self) -> bool:
        """Whether pushes to devices in the foreground are parked."""
        return self.foreground_ack == "park"

    @property
    def device_unused_ms(self) -> int:
        """The same in milliseconds."""
        return self.device_unused_days * 86_400_000

    @model_validator(mode="after")
    def _ends_after_its_waits(self) -> AppSettings:
        if self.storm_waits_s and self.storm_quiet_s < max(self.storm_waits_s):
            raise ValueError("storm_quiet_s must not be shorter than the longest of storm_waits_s")
        return self

    @model_validator(mode="after")
    def _signed(self) -> AppSettings:
        if self.deaths_webhook and (self.deaths_secret is None or not self.deaths_secret.get_secret_value()):
            raise ValueError("deaths_webhook wants deaths_secret, the key that signs what is posted there")
        return self


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        env_prefix=_ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    data_dir: Path = Field(Path(".pushfleet"), description="Where the embedded Redis keeps its data.")
    redis: RedisSettings = RedisSettings()
    ingress: IngressSettings = IngressSettings()
    router: RouterSettings = RouterSettings()
    worker: WorkerSettings = WorkerSettings()
    retry: RetrySettings = RetrySettings()
    breaker: BreakerSettings = BreakerSettings()
    deaths: DeathsSettings = DeathsSettings()
    dead_letters: DeadLettersSettings = DeadLettersSettings()
    api: ApiSettings = ApiSettings()
    reports: ReportsSettings = ReportsSettings()
    receipts: ReceiptsSettings = ReceiptsSettings()
    credentials: CredentialsSettings = CredentialsSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()
    apps: dict[str, AppSettings] = Field(default_factory=dict, description="The IM products, by the name in messages.")
    texts: dict[str, dict[str, str]] = Field(
        default_factory=dict,
        description="What the fleet itself writes into pushes, by language: texts.<language>.<name>.",
    )
    accounts: dict[str, dict[str, SerializeAsAny[AccountSettings]]] = Field(
        default_factory=dict, description="The vendor credentials: accounts.<vendor>.<credential>."
    )

    @field_validator("accounts", mode="before")
    @classmethod
    def _each_by_its_vendor(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        accounts: dict[str, dict[str, AccountSettings]] = {}
        for vendor, credentials in value.items():
            if not isinstance(credentials, Mapping):
                raise SettingsError(
                    f"accounts.{vendor} must be a table of credentials: [accounts.{vendor}.<credential>]"
                )
            accounts[vendor] = {name: _account(vendor, name, fields) for name, fields in credentials.items()}
        return accounts

    @field_validator("apps", mode="after")
    @classmethod
    def _names_that_messages_can_carry(cls, apps: dict[str, AppSettings]) -> dict[str, AppSettings]:
        for name in apps:
            _check_name(f"apps.{name}", name)
        return apps

    @field_validator("texts", mode="after")
    @classmethod
    def _texts_that_the_fleet_has_use_for(cls, texts: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        found = [f"texts.{flaw}" for flaw in catalogue.flaws(texts)]
        if found:
            raise SettingsError("; ".join(found))
        return texts

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file."""
        return env_settings, init_settings

    def each_account(self) -> Iterator[tuple[str, str, AccountSettings]]:
        """Vendor, credential and settings of every account."""
        for vendor, credentials in self.accounts.items():
            for credential, account in credentials.items():
                yield vendor, credential, account


def _check_name(where: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise SettingsError(
            f"{where}: a name has 1 to 64 letters, digits, '.', '_', '-' and starts with a letter or digit"
        )


def _account(vendor: str, credential: str, fields: object) -> AccountSettings:
    where = f"accounts.{vendor}.{credential}"
    _check_name(where, credential)
    if isinstance(fields, AccountSettings):
        return fields
    account_type = registry.load(vendor).account_type
    try:
        return account_type.model_validate(fields)
    except ValidationError as problem:
        raise SettingsError("; ".join(sentences(problem, account_type, where))) from None


def load(path: Path | None = None) -> Settings:
    """The settings of *path*, or of the file that `PUSHFLEET_CONFIG` names, or of `pushfleet.toml` if there is one.

    Relative file names inside count from the file's folder. Raises :class:`SettingsError`: one sentence for each
    thing that is wrong, unknown keys with the nearest known one.
    """
    named = path or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    data = _read(named or DEFAULT_FILE, required=named is not None)
    problems = _unknown_variables(os.environ)
    if problems:
        raise SettingsError("; ".join(problems))
    try:
        settings = Settings(**data)
    except ValidationError as problem:
        raise SettingsError("; ".join(sentences(problem, Settings, ""))) from None
    except SourceError as problem:
        # A section's variable must hold JSON; its text names the field, and the cause is the parser's.
        raise SettingsError(f"{problem}: set single values as in {_ENV_PREFIX}REDIS__URL") from None
    for vendor, credential, account in settings.each_account():
        fault = misfit(vendor, account, settings.apps)
        if fault:
            raise SettingsError(f"accounts.{vendor}.{credential}.{fault}")
    return settings


def misfit(vendor: str, account: AccountSettings, apps: Mapping[str, AppSettings]) -> str:
    """What of *account* does not go with its vendor or *apps*, the name of the setting first; empty: all does."""
    if account.app not in apps:
        known = _nearest(account.app, apps) or f": add [apps.{account.app}]"
        return f"app names {account.app!r}, which is no app{known}"
    if account.transport == "aioapns" and vendor != "apns":
        return "transport: aioapns speaks to APNs only"
    classes = registry.load(vendor).device_caps(account)
    unknown = next((name for name in account.device_caps if name not in classes), None)
    if unknown is not None:
        return f"device_caps names {unknown!r}, which is no class of {vendor}'s: write {' or '.join(classes)}"
    return ""


def _read(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise SettingsError(f"there is no settings file {path}: make one from pushfleet.example.toml") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise SettingsError(f"{path} cannot be read as TOML: {problem}") from None
    folder = path.resolve().parent
    accounts = [fields for credentials in _tables(data.get("accounts")) for fields in _tables(credentials)]
    for fields in [*accounts, *_tables({"credentials": data.get("credentials")})]:
        for key, value in fields.items():
            if key.endswith(_PATH_SUFFIXES) and isinstance(value, str):
                fields[key] = str(folder / value)
    if isinstance(data.get("data_dir"), str):
        data["data_dir"] = str(folder / data["data_dir"])
    return data


def _tables(value: object) -> list[dict[str, Any]]:
    return [table for table in value.values() if isinstance(table, dict)] if isinstance(value, dict) else []


def _unknown_variables(env: Mapping[str, str]) -> list[str]:
    known = {f"{_ENV_PREFIX}{name}".upper() for name in Settings.model_fields}
    problems = []
    for name in env:
        head = name.split("__")[0].upper()
        if head.startswith(_ENV_PREFIX) and name != CONFIG_VARIABLE and head not in known:
            problems.append(f"{name} is no setting{_nearest(head, known)}")
    return problems


def sentences(problem: ValidationError, model: type[BaseModel], where: str) -> Iterator[str]:
    """One for each thing that *problem* finds wrong with the fields of *model*, which stand at the path *where*."""
    for error in problem.errors(include_url=False, include_input=False):
        location = [str(part) for part in error["loc"]]
        path = ".".join(filter(None, [where, *location]))
        if error["type"] == "extra_forbidden":
            yield f"{path} is no setting{_nearest(location[-1], _fields_at(model, location[:-1]))}"
        elif error["type"] == "missing":
            yield f"{path} is missing: {_description(model, location) or 'it has no default'}"
        else:
            yield f"{path}: {error['msg']}"


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        field = model.model_fields.get(part)
        inner = field.annotation if field is not None else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            model = inner
        elif part == "apps":
            model = AppSettings
        elif part == "kinds" and issubclass(model, AccountSettings):
            model = kind_settings(model) or model
    return list(model.model_fields)


def _description(model: type[BaseModel], location: list[str]) -> str:
    field = model.model_fields.get(location[-1])
    return (field.description or "") if field is not None else ""


def _nearest(word: str, known: Mapping[str, Any] | set[str] | list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f": did you mean {close[0]}?" if close else ""
