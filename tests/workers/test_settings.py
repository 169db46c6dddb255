"""What the settings are read from, and that every mistake is told in a sentence that helps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pushfleet_workers import registry
from pushfleet_workers.errors import SettingsError
from pushfleet_workers.settings import CONFIG_VARIABLE, Settings, load

ACCOUNT = """
[apps.chat]
[accounts.apns.main]
app = "chat"
team_id = "A1B2C3D4E5"
key_id = "F6G7H8J9K0"
key_file = "keys/AuthKey_F6G7H8J9K0.p8"
topic = "com.example.chat"
"""
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of whoever runs the tests must not count."""
    for name in list(os.environ):
        if name.upper().startswith("PUSHFLEET_"):
            monkeypatch.delenv(name)


def settings_of(folder: Path, content: str) -> Settings:
    file = folder / "pushfleet.toml"
    file.write_text(content, encoding="utf-8")
    return load(file)


def refusal_of(folder: Path, content: str) -> str:
    with pytest.raises(SettingsError) as refused:
        settings_of(folder, content)
    return str(refused.value)


# ---- where settings come from


def test_without_a_file_everything_has_its_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load() == Settings()


def test_the_file_in_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pushfleet.toml").write_text("[router]\nbatch = 7\n")
    monkeypatch.chdir(tmp_path)
    assert load().router.batch == 7


def test_a_variable_names_the_file_and_an_argument_wins_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, batch in (("one", 1), ("two", 2)):
        (tmp_path / f"{name}.toml").write_text(f"[router]\nbatch = {batch}\n")
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "one.toml"))
    assert load().router.batch == 1
    assert load(tmp_path / "two.toml").router.batch == 2


def test_the_environment_wins_over_the_file_and_leaves_its_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSHFLEET_ROUTER__BATCH", "9")
    monkeypatch.setenv("PUSHFLEET_ACCOUNTS__APNS__MAIN__RATE_PER_S", "300")
    settings = settings_of(tmp_path, f"[router]\nbatch = 7\nreaders = 3\n{ACCOUNT}")
    assert (settings.router.batch, settings.router.readers) == (9, 3)
    account = settings.accounts["apns"]["main"]
    assert (account.rate_per_s, account.app) == (300, "chat")


def test_relative_file_names_count_from_the_files_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    settings = settings_of(folder, f'data_dir = "data"\n{ACCOUNT}ca_bundle = "/certs/ca.pem"\n')
    account = settings.accounts["apns"]["main"].model_dump()
    assert settings.data_dir == folder / "data"
    assert account["key_file"] == folder / "keys/AuthKey_F6G7H8J9K0.p8"
    assert account["ca_bundle"] == Path("/certs/ca.pem")


def test_one_url_serves_for_all_and_each_may_have_its_own(tmp_path: Path) -> None:
    redis = settings_of(tmp_path, '[redis]\nurl = "redis://one"\nstate = "redis://two"\n').redis
    assert (redis.broker_url, redis.queue_url, redis.state_url) == ("redis://one", "redis://one", "redis://two")


def test_secrets_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHFLEET_API__KEY", SECRET)
    settings = settings_of(tmp_path, "")
    assert settings.api.key is not None
    assert settings.api.key.get_secret_value() == SECRET
    assert SECRET not in f"{settings!r} {settings}"


@pytest.mark.parametrize(("given", "core"), [("any", "any"), ("dealt", "dealt"), ("0", 0), ("3", 3)])
def test_the_core_of_a_worker_is_a_word_or_a_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, core: str | int
) -> None:
    monkeypatch.setenv("PUSHFLEET_WORKER__CORE", given)
    assert settings_of(tmp_path, "").worker.core == core


# ---- what is wrong with them


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("rediss = 1", "rediss is no setting: did you mean redis?"),
        ("[redis]\nqueu = ''", "redis.queu is no setting: did you mean queue?"),
        ("[worker]\nlinger = 1", "worker.linger is no setting: did you mean linger_s?"),
        ("[apps.chat]\nlocal = 'en'", "apps.chat.local is no setting: did you mean locale?"),
        (f"{ACCOUNT}rate = 5", "accounts.apns.main.rate is no setting: did you mean rate_per_s?"),
        (f"{ACCOUNT}zzz = 5", "accounts.apns.main.zzz is no setting"),
        (
            "[accounts.huawei.main]\napp = 'chat'\nclient_id = '1'\nkinds.chat.channel = 'im'",
            "accounts.huawei.main.kinds.chat.channel is no setting: did you mean channel_id?",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path, content: str, sentence: str) -> None:
    assert refusal_of(tmp_path, content) == sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("PUSHFLEET_REDI__URL", "PUSHFLEET_REDI__URL is no setting: did you mean PUSHFLEET_REDIS?"),
        ("PUSHFLEET_REDIS__URLL", "redis.urll is no setting: did you mean url?"),
        (
            "PUSHFLEET_ACCOUNTS__APNS__MAIN__RATE_PER",
            "accounts.apns.main.rate_per is no setting: did you mean rate_per_s?",
        ),
    ],
)
def test_an_unknown_variable_names_the_nearest_known_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, sentence: str
) -> None:
    monkeypatch.setenv(name, "5")
    assert refusal_of(tmp_path, ACCOUNT) == sentence


def test_variables_of_others_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHFLEETX_REDI", "5")
    assert settings_of(tmp_path, "") == Settings()


def test_each_missing_field_says_what_it_is(tmp_path: Path) -> None:
    refusal = refusal_of(tmp_path, '[apps.chat]\n[accounts.apns.main]\nteam_id = "A1B2C3D4E5"\n')
    assert "accounts.apns.main.app is missing: The app, as in the messages" in refusal
    assert "accounts.apns.main.topic is missing: Bundle ID of the app" in refusal


@pytest.mark.parametrize(
    ("content", "start"),
    [
        ("[worker]\nlinger_s = 'soon'", "worker.linger_s: Input should be a valid number"),
        ("[worker]\nlinger_s = 9", "worker.linger_s: Input should be less than or equal to 4"),
        ("[log]\nlevel = 'loud'", "log.level: Input should be 'debug'"),
        ("redis = 3", "redis: Input should be a valid dictionary"),
        ("accounts = 3", "accounts: Input should be a valid dictionary"),
        ("[accounts.apns]\nmain = 3", "accounts.apns.main: Input should be a valid dictionary"),
        (f"{ACCOUNT}rate_per_s = 0", "accounts.apns.main.rate_per_s: Input should be greater than 0"),
    ],
)
def test_a_wrong_value_names_the_setting_and_what_it_should_be(tmp_path: Path, content: str, start: str) -> None:
    assert refusal_of(tmp_path, content).startswith(start)


def test_a_variable_with_a_wrong_value_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHFLEET_REDIS__TIMEOUT_S", "soon")
    assert refusal_of(tmp_path, "").startswith("redis.timeout_s: Input should be a valid number")


def test_a_vendor_that_there_is_not_names_those_that_there_are(tmp_path: Path) -> None:
    refusal = refusal_of(tmp_path, '[accounts.apple.main]\napp = "chat"\n')
    assert refusal == f"there is no vendor 'apple': known are {', '.join(registry.names())}"


@pytest.mark.parametrize(
    ("app", "sentence"),
    [
        ("[apps.chats]", "accounts.apns.main.app names 'chat', which is no app: did you mean chats?"),
        ("", "accounts.apns.main.app names 'chat', which is no app: add [apps.chat]"),
    ],
)
def test_an_account_of_an_app_that_there_is_not(tmp_path: Path, app: str, sentence: str) -> None:
    assert refusal_of(tmp_path, ACCOUNT.replace("[apps.chat]", app)) == sentence


def test_aioapns_is_refused_for_another_vendor(tmp_path: Path) -> None:
    account = '[accounts.fcm.main]\napp = "chat"\nservice_account_file = "a.json"\ntransport = "aioapns"\n'
    refusal = refusal_of(tmp_path, f"[apps.chat]\n{account}")
    assert refusal == "accounts.fcm.main.transport: aioapns speaks to APNs only"


def test_a_file_that_is_named_but_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no settings file .*none\.toml: make one from pushfleet\.example"):
        load(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"[redis\n", b"\xff\xfe", f'[api]\nkey = "{SECRET}\n'.encode()])
def test_a_broken_file_says_where_and_shows_nothing_of_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"broken\.toml cannot be read as TOML: ") as refused:
        load(file)
    assert SECRET not in str(refused.value)


def test_no_refusal_repeats_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    account = f'[accounts.huawei.main]\napp = "chat"\nclient_id = "{SECRET} !"\nclient_secret = ["{SECRET}"]\n'
    refusal = refusal_of(tmp_path, f"[apps.chat]\n{account}")
    assert "client_secret: Input should be a valid string" in refusal
    assert SECRET not in refusal
    monkeypatch.setenv("PUSHFLEET_API__KEYS", SECRET)
    assert SECRET not in refusal_of(tmp_path, "")


@pytest.mark.parametrize("content", ["rediss = 1", "[worker]\nlinger_s = 9", "[redis", "[accounts.apple.main]"])
def test_a_refusal_is_one_line(tmp_path: Path, content: str) -> None:
    assert "\n" not in refusal_of(tmp_path, content)


# ---- names


@pytest.mark.parametrize("name", ["a:b", "a}", "my app", "", "-x", "é", "x" * 65])
def test_a_name_that_no_key_or_message_could_carry_is_refused(tmp_path: Path, name: str) -> None:
    quoted = f'"{name}"'
    assert "1 to 64 letters" in refusal_of(tmp_path, f"[apps.{quoted}]\n")
    credential = ACCOUNT.replace("accounts.apns.main", f"accounts.apns.{quoted}")
    assert "1 to 64 letters" in refusal_of(tmp_path, credential)


@pytest.mark.parametrize("secret", ["", 'deaths_secret = ""'])
def test_a_webhook_without_a_key_to_sign_with_is_refused(tmp_path: Path, secret: str) -> None:
    lines = f'[apps.chat]\ndeaths_webhook = "https://user:pass-word@im.example.com/deaths"\n{secret}'
    with pytest.raises(SettingsError, match=r"apps\.chat: .*deaths_webhook wants deaths_secret") as refused:
        settings_of(tmp_path, lines)
    assert "pass-word" not in str(refused.value)
