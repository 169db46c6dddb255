"""Credentials that are added while the fleet runs: sealed in Redis, opened by whoever has the master key.

What the settings file says of accounts stands beside them: :class:`Accounts` has both, and follows what changes.
"""

from pushfleet_workers.credential_store.accounts import Accounts, Change
from pushfleet_workers.credential_store.errors import CredentialRefused

__all__ = ["Accounts", "Change", "CredentialRefused"]
