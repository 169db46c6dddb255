"""The fleet: router, vendor workers, token-state service and API."""
