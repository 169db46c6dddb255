"""Adding, listing, rotating and removing credentials: what is checked, what is shown, what is refused."""

from __future__ import annotations

import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from tests.workers.credential_store.support import (
    APNS,
    APNS_FIELDS,
    HUAWEI,
    OTHER_P8,
    P8,
    SECRET,
    Play,
    Stage,
    apns,
    huawei,
)
from tests.workers.ledger.support import an_entry
from tests.workers.vendors.apple_certificates import make

from pushfleet_workers.audit import read_books
from pushfleet_workers.credential_store.management import FILE_BYTES_MAX, OVERLAP_S_MAX, Given
from pushfleet_workers.credential_store.secret_files import SecretFile
from pushfleet_workers.credential_store.store import Name
from pushfleet_workers.ledger import AccountKeys, Ledger, pack
from pushfleet_workers.tokens.changes import ChannelGiven, Registration
from pushfleet_workers.tokens.store import TokenStore

FILES = {"key_file": SecretFile("k.p8", P8)}


def certificate(password: str = "", given: str | None = None, **options: Any) -> Given:
    made = make(time.time(), uid="com.example.a", **options)
    files = {"certificate_file": SecretFile("push.p12", made.p12(password))}
    settings = {"topic": "com.example.a"} | ({"certificate_password": given} if given is not None else {})
    return Given(settings, files)


# ---- add


def test_what_was_added_is_listed_beside_the_settings_and_nothing_of_it_is_secret(play: Play, tmp_path: Path) -> None:
    async def scenario(stage: Stage) -> None:
        before_ms = int(time.time() * 1000) - 1_000
        added = await stage.manager.add(APNS, "demo", apns(environment="development"))
        with_certificate = await stage.manager.add(Name("apns", "cert"), "lite", certificate("pass", "pass"))
        from_settings, *stored = await stage.manager.every()
        assert stored == [with_certificate, added]
        assert (added.vendor, added.id, added.app, added.environment) == ("apns", "main", "demo", "development")
        assert added.key_fingerprint == sha256(P8).hexdigest()[:16]
        assert added.created_at_ms == added.changed_at_ms > before_ms
        assert (added.expires_at_ms, with_certificate.environment) == (0, "production")
        assert 264 < (with_certificate.expires_at_ms / 1000 - time.time()) / 86_400 < 266
        assert (from_settings.source, from_settings.id, added.source) == ("settings", "main", "stored")
        assert from_settings.key_fingerprint == sha256(b"of-the-settings").hexdigest()[:16]
        assert (from_settings.created_at_ms, from_settings.environment) == (0, "production")
        books = await read_books(stage.link, "t", [])
        assert set(books.accounts) == {"apns:main", "apns:cert"}, "the books are read from then on"
        assert SECRET not in repr([*stored, apns(), huawei()])

    accounts = {"huawei": {"main": {"app": "demo", "client_id": "7", "client_secret": "of-the-settings"}}}
    play(scenario, accounts=accounts)


@pytest.mark.parametrize(
    ("name", "app", "given", "code", "field", "told"),
    [
        (Name("pigeon", "main"), "demo", apns(), "unknown_vendor", "vendor", "there is no vendor 'pigeon'"),
        (Name("apns", "a b"), "demo", apns(), "invalid_id", "id", "an id has 1 to 64 letters"),
        (Name("apns", ""), "demo", apns(), "invalid_id", "id", "an id has 1 to 64 letters"),
        (APNS, "dem", apns(), "invalid_setting", "app", "did you mean demo?"),
        (APNS, "demo", apns(app="lite"), "invalid_setting", "app", "belongs to one app"),
        (APNS, "demo", apns(topik="x"), "invalid_setting", "topik", "did you mean topic?"),
        (APNS, "demo", Given({}, FILES), "invalid_setting", "topic", "topic is missing: Bundle ID"),
        (APNS, "demo", apns(rate_per_s="fast"), "invalid_setting", "rate_per_s", "valid number"),
        (APNS, "demo", apns(key_file="/etc/passwd"), "invalid_setting", "key_file", "is a file: give its content"),
        (HUAWEI, "demo", huawei(transport="aioapns"), "invalid_setting", "transport", "aioapns speaks to APNs only"),
        (
            APNS, "demo", Given(APNS_FIELDS, {"topic": FILES["key_file"]}),
            "invalid_setting", "topic", "topic is no file: files are ",
        ),
        (
            APNS, "demo", apns(b"x" * (FILE_BYTES_MAX + 1)),
            "invalid_setting", "key_file", "key_file is larger than 65536 bytes",
        ),
        (APNS, "demo", apns(b"no key"), "credential_wrong", "", "key_file AuthKey_F6G7H8J9K0.p8 holds no P-256"),
        (APNS, "demo", apns(name="AuthKey_0000000000.p8"), "credential_wrong", "", "but key_id is F6G7H8J9K0"),
        (APNS, "demo", Given(APNS_FIELDS), "credential_wrong", "", "both missing"),
        (APNS, "demo", certificate("right", "wrong"), "credential_wrong", "", "certificate_password does not open it"),
        (APNS, "demo", certificate("right"), "credential_wrong", "", "certificate_password does not open it"),
        (APNS, "demo", certificate(days=(-400, -1)), "credential_wrong", "", "has expired"),
        (
            APNS, "demo", certificate(environments=["development"]),
            "credential_wrong", "", "is for development only",
        ),
        (HUAWEI, "demo", Given({"client_id": "1"}), "credential_wrong", "", "both missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_what_and_how_to_mend_it(
    play: Play, memory: Path, name: Name, app: str, given: Given, code: str, field: str, told: str
) -> None:
    async def scenario(stage: Stage) -> None:
        refusal = await stage.refused(stage.manager.add(name, app, given))
        assert (refusal.code, refusal.field) == (code, field)
        assert told in refusal.sentence
        assert str(memory) not in refusal.sentence, "where it lay for a moment is nobody's business"
        assert SECRET not in refusal.sentence
        assert list(memory.iterdir()) == []

    play(scenario)


def test_a_certificate_for_another_app_is_refused(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        given = certificate()
        refusal = await stage.refused(stage.manager.add(APNS, "demo", Given({"topic": "com.other"}, given.files)))
        assert "is for com.example.a, but topic is com.other" in refusal.sentence

    play(scenario)


def test_a_secret_may_come_as_a_file_and_settings_may_nest(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        given = Given(
            {"client_id": "1", "kinds": {"chat": {"category": "WORK"}}},
            {"client_secret": SecretFile("-", b"  typed-in \n")},
        )
        await stage.manager.add(HUAWEI, "demo", given)
        accounts = stage.accounts()
        await accounts.refresh()
        ((_, _, account),) = accounts.each()
        assert account.client_secret.get_secret_value() == "typed-in"  # type: ignore[attr-defined]
        assert account.by_kind["chat"].category == "WORK"

    play(scenario)


@pytest.mark.parametrize(
    ("credentials", "code", "told"),
    [
        ({}, "no_master_key", "no master key is set"),
        ({"master_key": "c2hvcnQ="}, "bad_master_key", "key 1 is not 32 bytes in base64"),
    ],
)
def test_without_a_master_key_nothing_is_stored(play: Play, credentials: dict[str, str], code: str, told: str) -> None:
    async def scenario(stage: Stage) -> None:
        refusal = await stage.refused(stage.manager.add(APNS, "demo", apns()))
        assert (refusal.code, told in refusal.sentence) == (code, True), refusal.sentence
        assert "openssl rand -base64 32" in refusal.sentence
        assert "c2hvcnQ" not in refusal.sentence

    play(scenario, credentials=credentials)


def test_an_id_is_taken_once(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(APNS, "demo", apns())
        assert (await stage.refused(stage.manager.add(APNS, "demo", apns(OTHER_P8)))).code == "credential_exists"
        for work in (
            stage.manager.add(HUAWEI, "demo", huawei()),
            stage.manager.rotate(HUAWEI, huawei()),
            stage.manager.remove(HUAWEI),
        ):
            refusal = await stage.refused(work)
            assert refusal.code == "credential_in_settings"
            assert "accounts.huawei.main" in refusal.sentence

    play(scenario, accounts={"huawei": {"main": {"app": "demo", "client_id": "7", "client_secret": "x"}}})


def test_of_two_changes_at_once_one_is_told(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        manager = stage.manager
        old = await stage.store.get(HUAWEI)
        await manager.rotate(HUAWEI, huawei("first"))
        with pytest.raises(Exception, match="somebody else changed huawei:main at the same time"):
            await manager._swap(HUAWEI, old, None)
        assert await stage.store.get(HUAWEI) is not None

    play(scenario)


# ---- rotate


def test_a_rotation_keeps_what_is_not_named_and_replaces_the_other_form_of_a_secret(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        added = await stage.manager.add(HUAWEI, "demo", huawei(kinds={"chat": {"category": "WORK"}}))
        given = Given(
            {"kinds": {"chat": {"channel_id": "im"}}}, {"client_secret_file": SecretFile("secret", b"of a file")}
        )
        rotated = await stage.manager.rotate(HUAWEI, given, overlap_s=600)
        assert rotated.created_at_ms == added.created_at_ms <= rotated.changed_at_ms
        assert rotated.overlap_until_ms == rotated.changed_at_ms + 600_000
        assert rotated.key_fingerprint != added.key_fingerprint
        accounts = stage.accounts()
        await accounts.refresh()
        account: Any = next(accounts.each())[2]
        assert (account.client_id, account.client_secret) == ("100", None)
        assert account.client_secret_file.read_bytes() == b"of a file"
        assert (account.by_kind["chat"].category, account.by_kind["chat"].channel_id) == ("WORK", "im")

    play(scenario)


def test_a_rotation_may_change_the_kind_of_credential(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(APNS, "demo", apns())
        new = certificate()
        assert "both set" in (await stage.refused(stage.manager.rotate(APNS, new))).sentence
        without_key = dict.fromkeys(["key_file", "key_id", "team_id"])
        rotated = await stage.manager.rotate(APNS, Given({**new.settings, **without_key}, new.files))
        assert rotated.expires_at_ms

    play(scenario)


def test_an_overlap_of_nothing_keeps_nothing(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        rotated = await stage.manager.rotate(HUAWEI, huawei("new"), overlap_s=0)
        assert rotated.overlap_until_ms == 0
        stored = await stage.store.get(HUAWEI)
        assert stored is not None
        assert stored.record.previous is None

    play(scenario)


def test_an_authorization_is_made_anew_only_where_the_secret_is_new(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        key = f"{AccountKeys('t', *HUAWEI).root}:auth"
        await stage.manager.add(HUAWEI, "demo", huawei())
        await stage.link.call("HSET", key, "value", "token")
        await stage.manager.rotate(HUAWEI, Given({"rate_per_s": 7}))
        assert await stage.link.call("EXISTS", key) == 1
        await stage.manager.rotate(HUAWEI, huawei("new"))
        assert await stage.link.call("EXISTS", key) == 0
        await stage.link.call("HSET", key, "value", "token")
        await stage.manager.remove(HUAWEI)
        assert await stage.link.call("EXISTS", key) == 0

    play(scenario)


@pytest.mark.parametrize(
    ("given", "overlap_s", "code"),
    [
        (Given(), 0, "nothing_new"),
        (huawei("new"), -1, "invalid_setting"),
        (huawei("new"), OVERLAP_S_MAX + 1, "invalid_setting"),
        (huawei("new", app="lite"), 0, "invalid_setting"),
        (huawei(""), 0, "credential_wrong"),
    ],
)
def test_a_rotation_that_is_wrong_changes_nothing(play: Play, given: Given, overlap_s: int, code: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        assert (await stage.refused(stage.manager.rotate(HUAWEI, given, overlap_s))).code == code

    play(scenario)


# ---- remove


async def some_work(stage: Stage) -> None:
    entry = an_entry("a", deliveries=2)
    keys = AccountKeys("t", *HUAWEI)
    await stage.link.run_many([Ledger.put_call(keys, 1, [(entry.id, [pack(entry)])], 0)])


async def a_device(stage: Stage) -> None:
    tokens = TokenStore(stage.link, "t", lambda: 1_750_000_000_000)
    for user, credential in (("ann", "other"), ("bob", "main")):
        channel = ChannelGiven(vendor="huawei", credential=credential, token=f"token-of-{user}")
        await tokens.register("demo", user, "d1", Registration(channels=(channel,)))


@pytest.mark.parametrize(
    ("use", "told"), [(some_work, "still has 2 deliveries to send"), (a_device, "devices are registered with")]
)
def test_what_is_used_is_removed_only_by_force(play: Play, use: Any, told: str) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        await stage.manager.add(Name("huawei", "unused"), "demo", huawei())
        await use(stage)
        refusal = await stage.refused(stage.manager.remove(HUAWEI))
        assert (refusal.code, told in refusal.sentence) == ("credential_in_use", True), refusal.sentence
        await stage.manager.remove(Name("huawei", "unused"))
        await stage.manager.remove(HUAWEI, force=True)
        assert await stage.manager.every() == []

    play(scenario)


def test_what_is_not_there_cannot_be_changed(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        for work in (
            stage.manager.rotate(HUAWEI, huawei()),
            stage.manager.remove(HUAWEI),
            stage.manager.test(HUAWEI),
        ):
            assert (await stage.refused(work)).code == "unknown_credential"

    play(scenario)


# ---- check


def test_stored_credentials_are_checked_like_those_of_the_settings(play: Play) -> None:
    async def scenario(stage: Stage) -> None:
        await stage.manager.add(HUAWEI, "demo", huawei())
        assert await stage.manager.check() == {HUAWEI: []}
        without_app = Stage(stage.settings.model_copy(update={"apps": {}}), stage.link)
        assert "is no app" in (await without_app.manager.check())[HUAWEI][0]
        without_key = stage.settings.model_copy(update={"credentials": type(stage.settings.credentials)()})
        assert "no master key is set" in (await Stage(without_key, stage.link).manager.check())[HUAWEI][0]

    play(scenario)
