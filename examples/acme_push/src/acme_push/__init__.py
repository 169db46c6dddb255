"""The made-up push vendor acme, as a plug-in of pushfleet."""
