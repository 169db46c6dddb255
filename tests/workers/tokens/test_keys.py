import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushfleet_workers.tokens.keys import UserKeys, owner_named, token_place

IDS = st.text(st.characters(exclude_categories=[]), max_size=40)


def keys_of(app: str, user: str) -> set[str]:
    keys = UserKeys("p", app, user)
    return {keys.devices, keys.options, keys.badges, keys.dead}


@given(IDS, IDS, IDS, IDS)
def test_no_two_users_share_a_key(app: str, user: str, other_app: str, other: str) -> None:
    if (app, user) != (other_app, other):
        assert not keys_of(app, user) & keys_of(other_app, other)
    assert len(keys_of(app, user)) == 4


@given(IDS, IDS)
def test_an_owner_in_the_index_names_app_and_user(app: str, user: str) -> None:
    assert owner_named(UserKeys("p", app, user).owner) == (app, user)


@given(IDS, IDS)
def test_the_keys_of_a_user_are_printable_and_share_one_hash_tag(app: str, user: str) -> None:
    tags = set()
    for key in keys_of(app, user):
        assert key.isascii()
        assert key.isprintable()
        assert " " not in key
        assert key.count("{") == key.count("}") == 1
        tags.add(key[key.index("{") : key.index("}") + 1])
    assert len(tags) == 1
    assert tags != {"{}"}


@given(IDS)
def test_an_id_grows_to_twice_its_bytes_at_most(user: str) -> None:
    size = len(user.encode(errors="surrogatepass"))
    assert len(UserKeys("p", "demo", user).devices) <= len("p:{u:demo:}") + 2 * size + 1


@pytest.mark.parametrize("user", ["ann", "u-12345", "ann@example.com", "+8613800138000", "A_b.c~d", "0"])
def test_usual_ids_stay_readable(user: str) -> None:
    assert UserKeys("pushfleet", "demo", user).devices == f"pushfleet:{{u:demo:{user}}}"


@pytest.mark.parametrize("user", ["}", "{", "{x}", "a:b", "a\nb", "a\0b", " ", "%41", "=YQ", "用户", "\U0001f600", "é"])
def test_hostile_ids_cannot_leave_their_place(user: str) -> None:
    keys = UserKeys("p", "demo", user)
    assert keys.devices.startswith("p:{u:demo:")
    assert keys.devices.endswith("}")
    assert keys.options == keys.devices + ":options"


def test_an_id_that_looks_encoded_is_another_id() -> None:
    assert UserKeys("p", "demo", "%7D").devices != UserKeys("p", "demo", "}").devices
    assert UserKeys("p", "demo", "=eA").devices != UserKeys("p", "demo", "x").devices


@pytest.mark.parametrize("app", ["a:b", "a}b", "应用"])
def test_hostile_app_names_cannot_leave_their_place(app: str) -> None:
    assert UserKeys("p", app, "ann").devices.endswith(":ann}")
    assert UserKeys("p", "a:b", "c").devices != UserKeys("p", "a", "b:c").devices


@given(st.text("0123456789abcdef", min_size=8, max_size=64))
def test_a_token_is_in_neither_key_nor_field(token: str) -> None:
    key, field = token_place("p", "demo", "apns", token)
    assert token not in key
    assert token.encode() not in field
    assert bytes.fromhex(token if len(token) % 2 == 0 else token + "0") not in field


def test_tokens_of_other_vendors_and_apps_stand_elsewhere() -> None:
    places = {
        token_place("p", app, vendor, token)
        for app in ("demo", "lite")
        for vendor in ("apns", "fcm")
        for token in ("t1", "t2")
    }
    assert len(places) == 8


def test_the_index_has_a_bounded_number_of_keys() -> None:
    keys = {token_place("p", "demo", "apns", f"token-{n}")[0] for n in range(5_000)}
    assert all(len(key) == len("p:{t:abcd}") for key in keys)
    assert len(keys) > 4_000
