"""What holds for every vendor, by whoever it was added."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qsl, unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.workers.vendors.samples import AUTH, KINDS, NOW_MS, a_delivery, a_push, an_account, content, token

from pushfleet.message import (
    AndroidOptions,
    ApnsOptions,
    FcmOptions,
    HarmonyOptions,
    HonorOptions,
    HuaweiOptions,
    MeizuOptions,
    OfflinePush,
    OppoOptions,
    VivoOptions,
    XiaomiOptions,
)
from pushfleet_workers import registry
from pushfleet_workers.account import AccountSettings
from pushfleet_workers.outcome import Scope, Verdict
from pushfleet_workers.push import Delivery, Push, TokenKind
from pushfleet_workers.vendor import Request, Response, Vendor

pytestmark = pytest.mark.filterwarnings("error")
quick = settings(deadline=None, max_examples=60)


@pytest.fixture(scope="module", params=registry.names())
def vendor(request: pytest.FixtureRequest) -> Vendor:
    return registry.load(request.param)


@pytest.fixture(scope="module")
def account(vendor: Vendor, keys: Path) -> AccountSettings:
    return an_account(vendor.name, keys)


def payload_size(request: Request) -> int:
    """The bytes of what *request* carries without the tokens in it and what separates them."""
    body = request.body.decode()
    if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        body = "".join(value for _, value in parse_qsl(body, keep_blank_values=True))
    for number in range(3):
        body = re.sub(f',?"?{token(number)}"?', "", body)
    return len(body.encode(errors="surrogatepass"))


def requests(vendor: Vendor, account: AccountSettings, push: Push, deliveries: list[Delivery]) -> list[Request]:
    """What goes out for *deliveries*: one request, or two where the content goes ahead of its targets."""
    ahead = vendor.stage(account, push, deliveries, AUTH, NOW_MS)
    if ahead is None:
        return [vendor.build(account, push, deliveries, AUTH, NOW_MS)]
    return [ahead, vendor.build_staged(account, push, deliveries, AUTH, NOW_MS, "staged-1")]


def told(request: Request) -> list[str]:
    """Every text in the body of *request*, those in JSON inside JSON included."""
    return list(leaves(content(request)))


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):
            with contextlib.suppress(ValueError):
                yield from leaves(json.loads(value))


def bytes_within(limit: int) -> st.SearchStrategy[str]:
    return st.text(max_size=limit).filter(lambda text: len(text.encode()) <= limit)


RTL = "\u202bنلتقي في \u2066Room 8\u2069 الساعة ٨\u202c"
"""Arabic with a number and an English name in it, its directions marked."""

long_texts = st.one_of(
    st.sampled_from(
        ["今晚八点见", "👨‍👩‍👧‍👦🇨🇳👍🏽", "مرحبا بالعالم ", RTL, 'say "\\" \n', "a", "e\u0301\u0323", "क्षि"]
    ).map(lambda piece: piece * (10_240 // len(piece.encode()))),
    st.text(max_size=40),
    st.text(min_size=3_000, max_size=4_200),
)
extras = st.one_of(bytes_within(256), st.sampled_from(['"' * 2_048, "\x01" * 2_048, "字" * 682, '{"a":"b"}' * 200]))
options = st.one_of(
    st.none(),
    st.builds(
        lambda text, style, form: OfflinePush(
            apns=ApnsOptions(title=text, subtitle=text, sound=text, category=text, image=text),
            android=AndroidOptions(sound=text, style=style),
            huawei=HuaweiOptions(channel_id=text, category=text, image=text, ext_as_intent_param=style == "big_text"),
            fcm=FcmOptions(channel_id=text, image=text, form=form),
        ),
        long_texts,
        st.sampled_from(["default", "big_text"]),
        st.sampled_from(["data", "notification"]),
    ),
)


@quick
@given(
    title=long_texts,
    body=long_texts,
    ext=extras,
    ids=st.one_of(bytes_within(60), st.sampled_from(["\x01" * 256, '"' * 256, "会" * 85])),
    options=options,
    remedy=st.sampled_from(["", "shrink"]),
)
@example(title="", body="今" * 3_400, ext='"' * 2_048, ids="\x01" * 256, options=None, remedy="")
def test_no_payload_is_above_the_limit(
    vendor: Vendor,
    account: AccountSettings,
    title: str,
    body: str,
    ext: str,
    ids: str,
    options: OfflinePush | None,
    remedy: str,
) -> None:
    push = a_push(
        title=title, body=body, ext=ext, message_id=ids, conversation_id=ids, replace_key=ids, options=options
    )
    for count in {1, min(vendor.batch_size, 3)}:
        for request in requests(vendor, account, push, [a_delivery(one, remedy=remedy) for one in range(count)]):
            assert payload_size(request) <= vendor.payload_limit
            assert isinstance(content(request), dict)
            assert all(value.isascii() and value.isprintable() for value in request.headers.values())


def test_an_ordinary_push_keeps_its_texts_whole(vendor: Vendor, account: AccountSettings) -> None:
    request = vendor.build(account, a_push(), [a_delivery()], AUTH, NOW_MS)
    assert "See you at 8? 今晚八点见" in json.dumps(content(request), ensure_ascii=False)
    assert request.url.startswith("https://")


def test_a_shrunk_push_has_half_of_its_texts(vendor: Vendor, account: AccountSettings) -> None:
    push = a_push(body="0123456789" * 20)
    whole, shrunk = (
        max(re.findall("[0-9]+", json.dumps(content(vendor.build(account, push, [one], AUTH, NOW_MS)))), key=len)
        for one in (a_delivery(token="t"), a_delivery(token="t", remedy="shrink"))
    )
    assert 0.4 * len(whole) <= len(shrunk) <= 0.6 * len(whole)


def test_a_text_from_right_to_left_stays_whole(vendor: Vendor, account: AccountSettings) -> None:
    for request in requests(vendor, account, a_push(title="\u200fعمر", body=RTL), [a_delivery()]):
        texts = told(request)
        assert any("\u200fعمر" in text for text in texts)
        assert any(RTL in text for text in texts)


def test_a_long_text_from_right_to_left_keeps_its_beginning(vendor: Vendor, account: AccountSettings) -> None:
    body = RTL * 200
    for request in requests(vendor, account, a_push(body=body), [a_delivery()]):
        assert payload_size(request) <= vendor.payload_limit
        kept = [text.removesuffix("…") for text in told(request) if text.endswith("…")]
        assert any(RTL[:10] in text and text[-10:] in body for text in kept)


def test_base_url_replaces_the_vendors_address(vendor: Vendor, account: AccountSettings) -> None:
    moved = account.model_copy(update={"base_url": "https://127.0.0.1:8443/"})
    ours = vendor.build(moved, a_push(), [a_delivery()], AUTH, NOW_MS).url
    theirs = vendor.build(account, a_push(), [a_delivery()], AUTH, NOW_MS).url
    assert ours == "https://127.0.0.1:8443/" + theirs.split("/", 3)[3]


def test_nothing_that_is_built_shows_token_or_text(vendor: Vendor, account: AccountSettings) -> None:
    request = vendor.build(account, a_push(), [a_delivery()], AUTH, NOW_MS)
    for secret in (token(0), "See you", AUTH):
        assert secret not in repr(request)


# Values that stand where codes, texts and lists stand, those of all vendors mixed.
_words = ["reason", "code", "msg", "error", "details", "errorCode", "@type", "status", "timestamp", "message"]
_words += ["illegal_tokens", "illegalTokens", "violations", "fieldViolations", "access_token", "expires_in"]
_words += ["data", "value", "result", "ret_code", "failTokens", "expireTokens", "bad_regids", "registrationId"]
_words += ["invalidUser", "invalidUsers", "userid", "invalid_targe_list", "taskId", "authToken", "auth_token"]
_types = ["type.googleapis.com/google.firebase.fcm.v1.FcmError", "type.googleapis.com/google.rpc.QuotaFailure"]
_known = [code for name in registry.names() for code in registry.load(name).codes]
_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from([*_types, *_known, token(0), token(1), json.dumps({"illegal_tokens": [token(0)]})]),
)
_objects = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from([*_words, token(0)]), inner, max_size=6)
    ),
    max_leaves=12,
)
_pages = st.sampled_from([b"", b"<html><h1>502 Bad Gateway</h1></html>", b"[]", b"{}", b"null", b'{"reason":"Unregis'])
bodies = st.one_of(st.binary(max_size=60), _pages, _objects.map(lambda content: json.dumps(content).encode()))
statuses = st.one_of(st.integers(0, 999), st.sampled_from([200, 400, 401, 403, 404, 410, 413, 429, 500, 503]))
headers = st.dictionaries(
    st.sampled_from(["retry-after", "date", "apns-id"]),
    st.one_of(st.text(max_size=20), st.sampled_from(["37", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "9" * 5_000])),
)


@settings(deadline=None, max_examples=250)
@given(status=statuses, headers=headers, body=bodies, count=st.integers(1, 4))
def test_reading_answers_for_every_delivery_whatever_came_back(
    vendor: Vendor, status: int, headers: dict[str, str], body: bytes, count: int
) -> None:
    deliveries = [a_delivery(number) for number in range(min(count, vendor.batch_size))]
    outcomes = vendor.read(deliveries, Response(status, headers, body))
    assert len(outcomes) == len(deliveries)
    for outcome in outcomes:
        assert token(0) not in repr(outcome)
        assert token(1) not in repr(outcome)
        assert len(outcome.code) <= 40
        assert outcome.code.isprintable()
        assert outcome.wait_s is None or 0 <= outcome.wait_s <= 86_400


@quick
@given(status=statuses, body=st.one_of(st.binary(max_size=60), _pages))
def test_no_token_dies_of_an_answer_that_cannot_be_read(vendor: Vendor, status: int, body: bytes) -> None:
    (outcome,) = vendor.read([a_delivery()], Response(status, {}, body))
    assert outcome.verdict is not Verdict.DROP_TOKEN
    assert status == 200 or outcome.verdict is not Verdict.OK


@settings(deadline=None, max_examples=250)
@given(status=statuses, headers=headers, body=bodies)
def test_every_answer_of_a_token_endpoint_is_a_token_or_a_failure(
    vendor: Vendor, status: int, headers: dict[str, str], body: bytes
) -> None:
    answer = vendor.read_auth(Response(status, headers, body))
    assert bool(answer.value) != (answer.failure is not None)
    assert (answer.life_s > 0) == bool(answer.value)
    assert token(0) not in repr(answer)


# ---- classes


@pytest.mark.parametrize("kind", ["official", "marketing", "system"])
@pytest.mark.parametrize("count", [1, 3])
def test_what_no_user_wrote_never_travels_as_im_by_default(
    vendor: Vendor, account: AccountSettings, kind: str, count: int
) -> None:
    deliveries = [a_delivery(number) for number in range(min(count, vendor.batch_size))]
    for request in requests(vendor, account, a_push(kind=kind), deliveries):
        assert "IM" not in told(request)
        assert "IM" not in request.headers.values()


@pytest.mark.parametrize("kind", KINDS)
def test_an_override_that_is_absent_changes_nothing(vendor: Vendor, account: AccountSettings, kind: str) -> None:
    silent = OfflinePush(
        apns=ApnsOptions(),
        android=AndroidOptions(),
        huawei=HuaweiOptions(),
        honor=HonorOptions(),
        xiaomi=XiaomiOptions(),
        oppo=OppoOptions(),
        vivo=VivoOptions(),
        meizu=MeizuOptions(),
        harmony=HarmonyOptions(),
        fcm=FcmOptions(),
    )
    plain = requests(vendor, account, a_push(kind=kind), [a_delivery()])
    for options in (OfflinePush(), silent):
        assert requests(vendor, account, a_push(kind=kind, options=options), [a_delivery()]) == plain


def test_what_a_class_of_messages_lacks_is_told_with_its_mend(vendor: Vendor) -> None:
    lacking = [
        code
        for code, (_, outcome, meaning) in vendor.codes.items()
        if outcome.verdict is Verdict.MISCONFIGURED and outcome.scope is Scope.CLASS and ": " not in meaning
    ]
    assert lacking == []


# ---- requests of other forms


def vendors_that(can: Any) -> list[str]:
    """The vendors of which *can* holds, given vendor and sample account."""
    return [name for name in registry.names() if can(registry.load(name), an_account(name, Path("/nowhere")))]


MIXING = vendors_that(lambda vendor, account: vendor.mixes(account))
STAGING = vendors_that(
    lambda vendor, account: vendor.stage(
        account, a_push(), [a_delivery(number) for number in range(min(vendor.batch_size, 3))], AUTH, NOW_MS
    )
)


@pytest.mark.parametrize("name", MIXING)
@quick
@given(status=statuses, headers=headers, body=bodies)
def test_pushes_of_several_messages_go_in_one_request(
    name: str, keys: Path, status: int, headers: dict[str, str], body: bytes
) -> None:
    vendor, account = registry.load(name), an_account(name, keys)
    letters = [(a_push(message_id=f"m-{number}", body=f"Text {number}"), a_delivery(number)) for number in range(3)]
    texts = told(vendor.build_mixed(account, letters, AUTH, NOW_MS))
    for push, delivery in letters:
        assert sum(text.split(",").count(delivery.token) for text in texts) == 1
        assert any(push.body in text for text in texts)
    assert len(vendor.read([delivery for _, delivery in letters], Response(status, headers, body))) == len(letters)


@pytest.mark.parametrize("name", STAGING)
@quick
@given(title=long_texts, body=long_texts, ext=extras, remedy=st.sampled_from(["", "shrink"]))
def test_content_that_goes_ahead_is_within_the_limit_and_names_no_device(
    name: str, keys: Path, title: str, body: str, ext: str, remedy: str
) -> None:
    vendor, account = registry.load(name), an_account(name, keys)
    # Not the first: a text of noughts alone holds its token.
    deliveries = [a_delivery(number, remedy=remedy) for number in range(1, min(vendor.batch_size, 3))]
    ahead, after = requests(vendor, account, a_push(title=title, body=body, ext=ext), deliveries)
    assert payload_size(ahead) <= vendor.payload_limit
    assert payload_size(after) <= vendor.payload_limit
    assert not any(delivery.token in ahead.body.decode() for delivery in deliveries)
    assert all(delivery.token in after.body.decode() for delivery in deliveries)
    assert "staged-1" in after.body.decode()


@settings(deadline=None, max_examples=250)
@given(status=statuses, headers=headers, body=bodies)
def test_every_answer_about_content_that_goes_ahead_is_an_id_or_a_failure(
    vendor: Vendor, status: int, headers: dict[str, str], body: bytes
) -> None:
    staged = vendor.read_staged(Response(status, headers, body))
    assert bool(staged.value) != (staged.failure is not None)
    assert staged.failure is None or staged.failure.verdict is not Verdict.OK


@quick
@given(status=statuses, headers=headers, body=bodies)
def test_what_takes_a_push_back_goes_to_the_vendor_and_is_read_like_a_push(
    vendor: Vendor, account: AccountSettings, status: int, headers: dict[str, str], body: bytes
) -> None:
    moved = account.model_copy(update={"base_url": "https://127.0.0.1:8443/"})
    deliveries = [a_delivery(number) for number in range(min(vendor.batch_size, 3))]
    request = vendor.withdraw(moved, a_push(recall=True, revision=1), deliveries, AUTH, NOW_MS)
    if request is not None:
        assert request.url.startswith("https://127.0.0.1:8443/")
        assert token(0) not in repr(request)
        assert len(vendor.read(deliveries, Response(status, headers, body))) == len(deliveries)


def test_every_vendor_mints_its_token_or_asks_for_it(vendor: Vendor, account: AccountSettings) -> None:
    minted = vendor.mint(account, NOW_MS / 1_000)
    if minted is None:
        request = vendor.auth_request(account, NOW_MS / 1_000)
        assert request.url.startswith("https://")
        assert request.method == "POST"
        moved = account.model_copy(update={"auth_url": "https://127.0.0.1:8443/token"})
        assert vendor.auth_request(moved, NOW_MS / 1_000).url == "https://127.0.0.1:8443/token"
    else:
        assert minted.value
        assert minted.value not in repr(minted)


def test_a_good_account_has_no_problems(vendor: Vendor, account: AccountSettings) -> None:
    assert vendor.check(account, NOW_MS / 1_000) == []


def test_every_setting_is_described(vendor: Vendor) -> None:
    assert issubclass(vendor.account_type, AccountSettings)
    assert [name for name, field in vendor.account_type.model_fields.items() if not field.description] == []


def test_every_kind_of_token_can_be_registered_and_sent_to(vendor: Vendor, account: AccountSettings) -> None:
    assert set(get_args(TokenKind)) >= vendor.token_kinds > set()
    for kind in vendor.token_kinds:
        request = vendor.build(account, a_push(), [replace(a_delivery(), token_kind=kind)], AUTH, NOW_MS)
        assert token(0) in request.url + request.body.decode()


def test_every_code_has_a_meaning_and_its_own_name(vendor: Vendor) -> None:
    for code, row in vendor.codes.items():
        assert row.outcome.code == code
        assert row.meaning.endswith(".")
        assert "|" not in row.meaning


@pytest.mark.parametrize("kind", ["chat", "marketing", "call"])
def test_mid_and_ext_reach_the_app(vendor: Vendor, account: AccountSettings, kind: str) -> None:
    request = vendor.build(account, a_push(kind=kind, ext='{"x":"y"}'), [a_delivery()], AUTH, NOW_MS)
    flat = unquote(json.dumps(content(request)).replace("\\", ""))
    assert "m-9f3c1d" in flat
    assert '{"x":"y"}' in flat
