from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.workers.cli.conftest import Cli
from tests.workers.commands import settings_file
from tests.workers.credential_store.support import MASTER_KEY, OTHER_KEY, OTHER_P8, P8, SECRET

HUAWEI = ("huawei", "main")
ADD_HUAWEI = ("credentials", "add", *HUAWEI, "--app", "demo", "--set", "client_id=100", "--file", "client_secret=-")
APNS = ("--app", "demo", "--set", "team_id=A1B2C3D4E5", "--set", "key_id=F6G7H8J9K0", "--set", "topic=com.example.a")


@pytest.fixture
def fleet(tmp_path: Path, redis_url: str) -> Path:
    """Settings with a master key, and an account of their own."""
    return settings_file(
        tmp_path,
        redis_url,
        "[credentials]",
        f'master_key = "{MASTER_KEY}"',
        "[accounts.huawei.settled]",
        'app = "demo"',
        'client_id = "7"',
        'client_secret = "x"',
    )


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "AuthKey_F6G7H8J9K0.p8"
    file.write_bytes(P8)
    return file


@pytest.mark.usefixtures("fleet")
def test_a_credential_from_its_beginning_to_its_end(cli: Cli, key_file: Path) -> None:
    said = cli("credentials", "add", "apns", "main", *APNS, "--file", f"key_file={key_file}")
    assert (said.code, said.err) == (0, "")
    print_ = sha256(P8).hexdigest()[:16]
    assert said.out.startswith(f"apns:main is stored, key {print_}.")

    def listed() -> dict[str, Any]:
        done = cli("credentials", "list", "--json")
        assert done.code == 0
        return {f"{one['vendor']}:{one['id']}": one for one in json.loads(done.out)}

    assert list(listed()) == ["huawei:settled", "apns:main"]
    assert (listed()["apns:main"]["key_fingerprint"], listed()["apns:main"]["source"]) == (print_, "stored")
    key_file.write_bytes(OTHER_P8)
    said = cli("credentials", "rotate", "apns", "main", "--file", f"key_file={key_file}", "--overlap", "2h")
    assert said.code == 0
    assert f"key {sha256(OTHER_P8).hexdigest()[:16]}; the one before is kept until 20" in said.out
    one = listed()["apns:main"]
    assert one["overlap_until_ms"] - one["changed_at_ms"] == 7_200_000
    said = cli("credentials", "remove", "apns", "main", "--json")
    assert json.loads(said.out) == {"removed": "apns:main"}
    assert list(listed()) == ["huawei:settled"]


@pytest.mark.usefixtures("fleet")
def test_the_list_has_a_line_for_each_whatever_the_width(cli: Cli, key_file: Path) -> None:
    assert cli("credentials", "add", "apns", "main", *APNS, "--file", f"key_file={key_file}").code == 0
    settled, stored = cli("credentials", "list", columns=40).out.splitlines()
    assert settled.startswith("huawei:settled: app demo, production, settings, key ")
    assert stored.startswith(f"apns:main: app demo, production, stored, key {sha256(P8).hexdigest()[:16]}, created 20")
    key_file.write_bytes(OTHER_P8)
    cli("credentials", "rotate", "apns", "main", "--file", f"key_file={key_file}")
    assert ", old key kept until 20" in cli("credentials", "list", columns=40).out.splitlines()[1]


@pytest.mark.usefixtures("fleet")
def test_a_secret_that_is_typed_in_is_nowhere_to_be_seen(cli: Cli) -> None:
    for words in (ADD_HUAWEI, ("credentials", "list"), ("credentials", "list", "--json"), ("check",)):
        said = cli(*words, stdin=SECRET.encode() + b"\n")
        assert said.code == 0, said
        assert SECRET not in said.out + said.err
    assert "stored credential huawei:main: complete" in said.out


@pytest.mark.usefixtures("fleet")
def test_a_test_says_in_a_sentence_what_came_of_it(cli: Cli) -> None:
    nowhere = ("--set", "auth_url=http://127.0.0.1:1", "--set", "timeout_s=1")
    cli(*ADD_HUAWEI, *nowhere, stdin=b"s")
    said = cli("credentials", "test", *HUAWEI)
    assert (said.code, said.out.startswith("huawei:main: huawei could not be reached")) == (0, True), said
    assert json.loads(cli("credentials", "test", *HUAWEI, "--json").out)["good"] is None
    missing = cli("credentials", "test", "huawei", "nobody")
    assert missing.refusal == "there is no credential huawei:nobody: see the list"


def test_a_refused_credential_is_an_exit_code(cli: Cli, tmp_path: Path, redis_url: str) -> None:
    account = ("[accounts.huawei.main]", 'app = "demo"', 'client_id = "1"', 'client_secret_file = "none"')
    settings_file(tmp_path, redis_url, *account)
    said = cli("credentials", "test", *HUAWEI)
    assert (said.code, "does not exist" in said.out) == (1, True), said


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("add", "huawei", "settled", "--app", "demo"), "huawei:settled comes from the settings"),
        (("add", "huawei", "main", "--app", "demo", "--set", "clientid=1"), "clientid is no setting: did you mean"),
        (("add", "huawei", "main", "--app", "demo", "--set", "a=1", "--set", "a.b=1"), "a is set to a value already"),
        (("add", "apns", "main", *APNS, "--set", "ca_bundle=ca.pem"), "is a file, so write --file ca_bundle=PATH"),
        (("rotate", "apns", "main", "--set", "key_file=k.p8"), "key_file is a file, so write --file key_file=PATH"),
        (("add", "nobody", "main", "--app", "demo", "--set", "a=1"), "nobody"),
        (("add", "apns", "main", *APNS, "--file", "key_file=none.p8"), "No such file or directory: 'none.p8'"),
        (("rotate", "huawei", "main", "--set", "client_id=1"), "there is no credential huawei:main"),
        (("remove", "huawei", "main"), "there is no credential huawei:main"),
    ],
)
def test_what_is_wrong_is_one_sentence(cli: Cli, words: tuple[str, ...], told: str) -> None:
    assert told in cli("credentials", *words).refusal


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize("overlap", ["", "24", "h", "-1h", "31d", "1w"])
def test_a_time_that_is_none_is_refused(cli: Cli, overlap: str) -> None:
    said = cli("credentials", "rotate", *HUAWEI, "--overlap", overlap)
    assert (said.code, "write 90s, 30m, 24h or 7d" in said.err) == (2, True), said


@pytest.mark.usefixtures("fleet")
def test_a_pair_without_a_value_is_refused_and_not_repeated(cli: Cli) -> None:
    said = cli("credentials", "add", *HUAWEI, "--app", "demo", "--set", "=hunter2")
    assert (said.code, "NAME=VALUE" in said.err, "hunter2" in said.err) == (2, True, False), said


def test_without_a_master_key_it_is_said_how_to_make_one(cli: Cli, fleet_file: Path) -> None:
    assert fleet_file.exists()
    assert "openssl rand -base64 32" in cli(*ADD_HUAWEI, stdin=b"s").refusal


@pytest.mark.usefixtures("fleet")
def test_sealing_anew_lets_the_old_key_go(cli: Cli, tmp_path: Path, redis_url: str) -> None:
    cli(*ADD_HUAWEI, stdin=b"s")
    for key, code in ((f"{OTHER_KEY} {MASTER_KEY}", 0), (OTHER_KEY, 0)):
        settings_file(tmp_path, redis_url, "[credentials]", f'master_key = "{key}"')
        said = cli("credentials", "reseal")
        assert (said.code, said.out) == (code, "1 credentials are sealed under the first master key.\n")
    settings_file(tmp_path, redis_url, "[credentials]", f'master_key = "{MASTER_KEY}"')
    assert "huawei:main cannot be opened" in cli("credentials", "reseal").refusal
    said = cli("check")
    assert (said.code, "master key that is not set here" in said.out) == (1, True), said


@pytest.mark.usefixtures("fleet")
def test_devices_of_a_stored_credential_are_imported_and_hold_it(cli: Cli) -> None:
    line = {
        "app": "demo", "user": "bob", "device": "d1",
        "channels": [{"vendor": "huawei", "credential": "main", "token": "t0ken"}],
    }  # fmt: skip
    devices = ("devices", "import", "-", "--json")
    assert json.loads(cli(*devices, stdin=json.dumps(line).encode()).out) == {"imported": 0, "refused": 1}
    cli(*ADD_HUAWEI, stdin=b"s")
    assert json.loads(cli(*devices, stdin=json.dumps(line).encode()).out) == {"imported": 1, "refused": 0}
    assert "devices are registered with huawei:main" in cli("credentials", "remove", *HUAWEI).refusal
    assert cli("credentials", "remove", *HUAWEI, "--force").code == 0
