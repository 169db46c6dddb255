from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.workers.vendors.samples import a_push

from pushfleet_workers.vendors._ids import notify_id


@given(st.text(max_size=40), st.text(min_size=1, max_size=40))
def test_a_notify_id_is_a_positive_signed_integer(key: str, message_id: str) -> None:
    assert 1 <= notify_id(a_push(replace_key=key, message_id=message_id)) < 2**31


def test_a_notify_id_goes_by_the_replace_key_else_by_the_message() -> None:
    first, second = a_push(message_id="m-1"), a_push(message_id="m-2")
    assert notify_id(first) == notify_id(second) != notify_id(a_push(replace_key="c-2"))
    bare = a_push(message_id="m-1", replace_key="")
    assert notify_id(bare) == notify_id(a_push(message_id="m-1", replace_key="", revision=1)) != notify_id(first)
    assert notify_id(bare) != notify_id(a_push(message_id="m-2", replace_key=""))
