"""The words that records shorten: they come back as they were, and the list is never changed, only added to."""

from __future__ import annotations

from hashlib import sha1

from hypothesis import given
from hypothesis import strategies as st

from pushfleet_workers.tokens import words
from pushfleet_workers.tokens.record import Device, decode_device, encode_device
from pushfleet_workers.tokens.words import shortened, spelled


@given(st.text(max_size=3) | st.sampled_from(words._WORDS) | st.sampled_from(words._CODES))
def test_a_word_comes_back_as_it_was(word: str) -> None:
    assert spelled(shortened(word)) == word


def test_each_word_takes_two_bytes_at_most_and_has_a_code_of_its_own() -> None:
    codes = [shortened(word) for word in words._WORDS]
    assert len(set(codes)) == len(words._WORDS) <= len(words._CODES)
    assert {len(code.encode()) for code in codes[:31]} == {1}
    assert {len(code.encode()) for code in codes[31:]} == {2}


def test_the_words_of_records_that_lie_in_redis_do_not_change_their_meaning() -> None:
    first = "\0".join(words._WORDS[:59]).encode()
    assert sha1(first, usedforsecurity=False).hexdigest() == "55ec80320b2526481d68007d888eb7e28fd9c2c7"


def test_a_record_holds_its_words_short() -> None:
    device = Device(locale="zh-CN", time_zone="Asia/Shanghai", platform="android", maker="HUAWEI", os_version="android")
    packed = encode_device(device)
    assert decode_device(packed) == device
    assert packed.count(b"android") == 1, "only the words that are often the same"
    assert b"Shanghai" not in packed
