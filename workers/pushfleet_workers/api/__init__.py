"""The HTTP API: what IM backends and operators call."""

from pushfleet_workers.api.app import create_app
from pushfleet_workers.api.serve import serve

__all__ = ["create_app", "serve"]
