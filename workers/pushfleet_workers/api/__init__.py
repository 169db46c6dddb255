"""The HTTP API: what IM backends and operators call."""

from pushfleet_workers.api.app import create_app

__all__ = ["create_app"]
