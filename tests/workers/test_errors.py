import inspect
import pickle

import pytest

import pushfleet_workers.redis_link
from pushfleet_workers import errors
from pushfleet_workers.errors import FleetError, MoveUnheard, NoAnswer
from pushfleet_workers.redis_link import LinkLost

OWN = [
    one
    for module in (errors, pushfleet_workers.redis_link)
    for _, one in inspect.getmembers(module, inspect.isclass)
    if issubclass(one, FleetError)
]


def made(kind: type[FleetError]) -> FleetError:
    more = {NoAnswer: [True], MoveUnheard: [frozenset({b"id"})]}
    return kind("what happened", *next((args for root, args in more.items() if issubclass(kind, root)), []))


@pytest.mark.parametrize("kind", sorted(set(OWN), key=lambda one: one.__name__))
def test_every_error_survives_pickling(kind: type[FleetError]) -> None:
    before = made(kind)
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is kind
    assert str(after) == str(before) == "what happened"
    assert after.args == before.args
    assert vars(after) == vars(before)


def test_the_drawing_names_every_error() -> None:
    drawing = errors.__doc__ or ""
    assert [one.__name__ for one in OWN if one.__module__ == errors.__name__ and one.__name__ not in drawing] == []


def test_all_have_one_root_and_a_lost_link_is_an_unusable_redis() -> None:
    assert all(issubclass(one, FleetError) for one in OWN)
    assert issubclass(LinkLost, errors.RedisUnusable)


@pytest.mark.parametrize("maybe_delivered", [True, False])
def test_no_answer_says_whether_it_may_have_been_delivered(*, maybe_delivered: bool) -> None:
    assert NoAnswer("reset", maybe_delivered).maybe_delivered is maybe_delivered
