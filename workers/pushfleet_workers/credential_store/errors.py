"""What is answered to whoever manages credentials when it cannot be done."""

from __future__ import annotations

from pushfleet_workers.errors import FleetError

__all__ = ["CredentialRefused"]


class CredentialRefused(FleetError):
    """A change of the stored credentials is refused; nothing was changed.

    * **code** - for programs; does not change.
    * **field** - the setting that is wrong; empty where it is not one.
    """

    def __init__(self, code: str, sentence: str, field: str = "") -> None:
        super().__init__(code, sentence, field)
        self.code = code
        self.sentence = sentence
        self.field = field

    def __str__(self) -> str:
        return self.sentence
