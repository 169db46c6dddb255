"""The command line `pushfleet`."""

from pushfleet_workers.cli.main import main

__all__ = ["main"]
