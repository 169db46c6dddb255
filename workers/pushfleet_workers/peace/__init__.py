"""What leaves users in peace: pushes that wait for a moment, in case they are not needed."""

from pushfleet_workers.peace.holds import hold_s

__all__ = ["hold_s"]
