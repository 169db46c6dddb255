"""TPNS' table of codes."""

from __future__ import annotations

from dataclasses import replace

from pushfleet_workers.outcome import OK, Outcome, Remedy, Verdict
from pushfleet_workers.vendors._answers import (
    BAD_PAYLOAD,
    DROP_TOKEN,
    MISCONFIGURED,
    RATE_LIMITED,
    REFRESH_AUTH,
    RETRY,
    STATUS_ROWS,
    table,
)

__all__ = ["CODES", "OF_ONE_TOKEN", "PARTIAL"]

PARTIAL = "invalid_targe_list"
"""Spelled as TPNS spells it."""

OF_ONE_TOKEN = ("1008006", "1008029", "10010005", "10110008")
"""Codes that speak of a token, which is known only where the request has no other."""

_ALONE = replace(BAD_PAYLOAD, remedy=Remedy.SINGLE_SEND)
_FORMER = "Of the former generation of TPNS: base_url names its host, take the address of the access point."
_CONSOLE = "Of uploads and apps in the console: look there what the app lacks."
_OTHER_CALLS = "Of calls that we do not make."
_PAY = "The app is not paid for: renew it in the TPNS console."

CODES = table(
    *STATUS_ROWS,
    ("0", "any", OK, "Accepted, but for the tokens that `invalid_targe_list` names."),
    (PARTIAL, "any", DROP_TOKEN, "The tokens in this list of an accepted request are invalid."),
    ("1008001", "any", BAD_PAYLOAD, "The request could not be parsed."),
    ("1008002", "any", BAD_PAYLOAD, "A parameter is missing."),
    ("1008003", "any", REFRESH_AUTH, "The signature was refused; if it lasts: check secret_key and the clock."),
    ("1008004", "any", RETRY, "A service inside TPNS failed."),
    ("1008006", "any", DROP_TOKEN, "The token is invalid, in a request for it alone."),
    ("1008006 of many", "any", _ALONE, "A token is invalid, in a request for several."),
    (
        "1008007",
        "any",
        BAD_PAYLOAD,
        "A parameter is wrong: tokens are TPNS' own, 36 characters at most; else look at overrides and kinds.",
    ),
    ("1008011", "any", MISCONFIGURED, _CONSOLE),
    ("1008012", "any", MISCONFIGURED, _CONSOLE),
    ("1008013", "any", MISCONFIGURED, _CONSOLE),
    ("1008015", "any", BAD_PAYLOAD, _OTHER_CALLS),
    ("1008016", "any", BAD_PAYLOAD, _OTHER_CALLS),
    ("1008019", "any", BAD_PAYLOAD, "The content was found to break the rules."),
    ("1008020", "any", MISCONFIGURED, "The iOS push certificate is no good: upload another one in the TPNS console."),
    ("1008021", "any", MISCONFIGURED, "The iOS push certificate is no good: upload another one in the TPNS console."),
    ("1008022", "any", MISCONFIGURED, "The iOS push certificate is no good: upload another one in the TPNS console."),
    ("1008023", "any", MISCONFIGURED, "The iOS push certificate of this environment has expired: upload a new one."),
    ("1008025", "any", MISCONFIGURED, _CONSOLE),
    ("1008026", "any", BAD_PAYLOAD, _OTHER_CALLS),
    ("1008027", "any", BAD_PAYLOAD, _OTHER_CALLS),
    ("1008028", "any", replace(RATE_LIMITED, wait_s=1.0), "Too fast."),
    ("1008029", "any", DROP_TOKEN, "The token is not valid, in a request for it alone."),
    ("1008029 of many", "any", _ALONE, "A token is not valid, in a request for several."),
    ("1008030", "any", MISCONFIGURED, _PAY),
    ("1008031", "any", MISCONFIGURED, "The app's resources were destroyed: buy it anew in the TPNS console."),
    ("1008035", "any", MISCONFIGURED, "access_id is wrong, or of another access point: correct one of the two."),
    ("1010001", "any", MISCONFIGURED, _PAY),
    ("10010005", "any", DROP_TOKEN, "The target does not exist, in a request for it alone."),
    ("10010005 of many", "any", _ALONE, "A target does not exist, in a request for several."),
    ("10010012", "any", BAD_PAYLOAD, "The time to send at has passed; we send none."),
    ("10010018", "any", OK, "A repeat of a push that was accepted."),
    ("10030002", "any", MISCONFIGURED, "access_id and secret_key do not belong together: copy both from the console."),
    ("10110008", "any", DROP_TOKEN, "The token was not found, in a request for it alone."),
    ("10110008 of many", "any", _ALONE, "A token was not found, in a request for several."),
    *((code, "any", MISCONFIGURED, _FORMER) for code in ("-1", "-2", "-3", "-4", "-100", "10100", "10101")),
    (
        "other codes",
        "any",
        Outcome(Verdict.RETRY),
        "A number that is not listed here: this push alone is tried again, the token is kept.",
    ),
)
"""``ret_code`` of the current generation, which goes before the status."""
