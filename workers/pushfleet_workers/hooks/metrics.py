"""Every metric of the processes, declared once.

Totals that live in Redis (accepted, ends, backlog, ages) are exported by the API process alone, in `stock`.
Labels are names from the settings and codes of vendors; never a token, a user or a text.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

__all__ = [
    "ANSWERS",
    "BREAKER_OPEN",
    "DELIVERY_SECONDS",
    "IN_FLIGHT",
    "LATE_RESULTS",
    "PARKED",
    "REDIS_LOST",
    "REFUSED_TRIGGERS",
    "ROUTED_DELIVERIES",
    "ROUTED_MESSAGES",
    "ROUTER_BATCH_SECONDS",
    "SUPPRESSED",
    "TOKEN_DEATHS",
    "UNKNOWN_OUTCOMES",
    "VENDOR_REQUEST_SECONDS",
]

_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_DELIVERY_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 1, 2.5, 10, 60, 600, 3600)

ROUTED_MESSAGES = Counter("pushfleet_routed_messages", "Stream entries routed by this process.", ["lane"])
ROUTED_DELIVERIES = Counter("pushfleet_routed_deliveries", "Deliveries put into ledgers by this process.", ["vendor"])
SUPPRESSED = Counter("pushfleet_suppressed", "Decisions of this process against a push.", ["reason"])
ROUTER_BATCH_SECONDS = Histogram(
    "pushfleet_router_batch_seconds", "From reading a batch of stream entries to its acknowledgement.", ["lane"],
    buckets=_REQUEST_BUCKETS,
)  # fmt: skip

VENDOR_REQUEST_SECONDS = Histogram(
    "pushfleet_vendor_request_seconds", "How long a vendor took to answer a request.", ["vendor", "account"],
    buckets=_REQUEST_BUCKETS,
)  # fmt: skip
ANSWERS = Counter(
    "pushfleet_vendor_answers", "Outcomes read from answers, by delivery.", ["vendor", "account", "verdict", "code"]
)
UNKNOWN_OUTCOMES = Counter(
    "pushfleet_unknown_outcomes",
    "Deliveries whose request left without an answer that can be read.",
    ["vendor", "account"],
)
LATE_RESULTS = Counter("pushfleet_late_results", "Results that came after their lease was gone.", ["vendor", "account"])
PARKED = Counter(
    "pushfleet_parked",
    "Looks at deliveries to devices in the foreground that did not end them: parked (on), or released to be sent.",
    ["vendor", "result"],
)
DELIVERY_SECONDS = Histogram(
    "pushfleet_delivery_seconds", "From the ingress entry to the vendor's acceptance.", ["vendor", "lane"],
    buckets=_DELIVERY_BUCKETS,
)  # fmt: skip
TOKEN_DEATHS = Counter(
    "pushfleet_token_deaths", "Tokens that became dropped or quarantined.", ["vendor", "account", "fate"]
)
IN_FLIGHT = Gauge("pushfleet_in_flight", "Requests waiting for a vendor's answer.", ["vendor", "account"])
BREAKER_OPEN = Gauge("pushfleet_breaker_open", "1 while this process sees the breaker open.", ["vendor", "account"])
REFUSED_TRIGGERS = Counter(
    "pushfleet_refused_triggers",
    "Entries of Celery queues that are no triggers and were put aside.",
    ["queue"],
)
REDIS_LOST = Counter("pushfleet_redis_lost", "Commands that failed because the connection to Redis broke.", ["role"])
