"""States of apps as IM connection servers report them: entries of a Redis stream, read by the API processes."""

from __future__ import annotations

from pushfleet_workers.reports.consumer import REPORTS, WAITING, ReportConsumer
from pushfleet_workers.reports.entry import InvalidEntry, read_entry
from pushfleet_workers.reports.stream import GROUP, ReportKeys, ReportStream

__all__ = ["GROUP", "REPORTS", "WAITING", "InvalidEntry", "ReportConsumer", "ReportKeys", "ReportStream", "read_entry"]
