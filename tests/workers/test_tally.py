from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from pushfleet_workers.hooks.tally import AnswerTally, SecondsTally

BUCKETS = (0.1, 1.0, 10.0)


@given(st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0, 3.0, 10.0, 99.0]), max_size=30))
def test_a_tally_says_what_single_observations_would(seconds: list[float]) -> None:
    said = []
    for batched in (False, True):
        registry = CollectorRegistry()
        histogram = Histogram("h", "help", ["v"], buckets=BUCKETS, registry=registry).labels("apns")
        tally = SecondsTally(histogram)
        for one in seconds:
            (tally if batched else histogram).observe(one)
        tally.flush()
        tally.flush()
        said.append([line for line in generate_latest(registry).decode().splitlines() if "_created" not in line])
    assert said[0] == said[1]


def test_answers_are_counted_by_verdict_and_code() -> None:
    registry = CollectorRegistry()
    tally = AnswerTally(Counter("answers", "help", ["vendor", "verdict", "code"], registry=registry), "apns")
    for number in (1, 2):
        tally.count("ok", "", number)
    tally.count("drop_token", "Unregistered", 1)
    assert registry.get_sample_value("answers_total", {"vendor": "apns", "verdict": "ok", "code": ""}) is None
    tally.flush()
    tally.flush()
    assert registry.get_sample_value("answers_total", {"vendor": "apns", "verdict": "ok", "code": ""}) == 3
    dead = {"vendor": "apns", "verdict": "drop_token", "code": "Unregistered"}
    assert registry.get_sample_value("answers_total", dead) == 1
