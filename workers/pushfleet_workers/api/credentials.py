"""The endpoints of the stored credentials. They are open only behind an API key."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from msgspec import Meta, Struct

from pushfleet_workers.api.documented import REFUSALS, documented, schemas_of
from pushfleet_workers.api.problems import Problem, decode
from pushfleet_workers.credential_store.errors import CredentialRefused
from pushfleet_workers.credential_store.management import (
    OVERLAP_S,
    OVERLAP_S_MAX,
    CredentialManager,
    CredentialShown,
    Given,
)
from pushfleet_workers.credential_store.secret_files import SecretFile
from pushfleet_workers.credential_store.store import Name
from pushfleet_workers.credential_store.trial import Trial

__all__ = ["credential_routes", "credential_schemas", "refusal"]

_BYTES_MAX = 512 * 1024
_STATUS = {
    "unknown_credential": 404,
    "credential_exists": 409,
    "credential_in_settings": 409,
    "credential_in_use": 409,
    "changed_meanwhile": 409,
    "sealed_credential": 409,
    "no_master_key": 503,
    "bad_master_key": 503,
}
"""Every other refusal is 422: what was given is wrong."""

VendorId = Annotated[str, Path(description="The vendor, as in the settings: apns, fcm, huawei and so on.")]
CredentialId = Annotated[str, Path(description="The credential's id, which devices' channels name.")]


class FileGiven(Struct, frozen=True, forbid_unknown_fields=True):
    """A file, or a secret that comes as one."""

    content: Annotated[bytes, Meta(description="Base64.")]
    name: Annotated[str, Meta(description="As downloaded: some vendors write the key's id into it.")] = ""


class ChangesGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rotation changes; what is not named stays, and a setting that is null goes."""

    settings: Annotated[dict[str, Any], Meta(description="As in the settings file; secrets are sealed.")] = {}
    files: Annotated[dict[str, FileGiven], Meta(description="By setting.")] = {}
    overlap_s: Annotated[
        int, Meta(ge=0, le=OVERLAP_S_MAX, description="How long the secrets before are kept for the vendor's refusal.")
    ] = OVERLAP_S

    def given(self) -> Given:
        """For the manager."""
        return _given(self.settings, self.files)


class CredentialGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new credential."""

    vendor: str
    id: str
    app: Annotated[str, Meta(description="An app of the settings.")]
    settings: Annotated[dict[str, Any], Meta(description="As in the settings file; secrets are sealed.")] = {}
    files: Annotated[dict[str, FileGiven], Meta(description="By setting.")] = {}

    def given(self) -> Given:
        """For the manager."""
        return _given(self.settings, self.files)


class TrialGiven(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far to go."""

    probe: Annotated[bool, Meta(description="Also send one push to a token that cannot exist.")] = False


class CredentialList(Struct, frozen=True):
    """All credentials, those of the settings first."""

    credentials: list[CredentialShown]


_credential = msgspec.json.Decoder(CredentialGiven)
_changes = msgspec.json.Decoder(ChangesGiven)
_trial = msgspec.json.Decoder(TrialGiven)
_encode = msgspec.json.Encoder().encode


def credential_schemas() -> dict[str, Any]:
    """The JSON Schemas of all bodies, by name."""
    return schemas_of(CredentialGiven, ChangesGiven, TrialGiven, CredentialShown, CredentialList, Trial)


_REFUSALS = {
    **REFUSALS,
    403: "No API key is set: credentials are managed only behind one.",
    404: "There is no such credential.",
    409: "It exists already, comes from the settings, is in use, or was changed at the same time.",
    422: "Something given is wrong; nothing was changed.",
    503: "No master key is set, or Redis does not answer.",
}
_documented = partial(documented, refusals=_REFUSALS)


class _Credentials:
    def __init__(self, manager: CredentialManager) -> None:
        self._manager = manager

    async def every(self) -> Response:
        """All credentials, those of the settings included; nothing of them is secret."""
        return _json(CredentialList(await self._manager.every()))

    async def add(self, request: Request) -> Response:
        """Check a credential and store it sealed; routers and workers take it up within seconds."""
        given = await decode(request, _credential, _BYTES_MAX)
        return _json(await self._manager.add(Name(given.vendor, given.id), given.app, given.given()), 201)

    async def rotate(self, request: Request, vendor: VendorId, credential: CredentialId) -> Response:
        """Replace settings and secrets; those before stay for the overlap, should the vendor refuse the new ones."""
        given = await decode(request, _changes, _BYTES_MAX)
        return _json(await self._manager.rotate(_name(vendor, credential), given.given(), given.overlap_s))

    async def test(self, request: Request, vendor: VendorId, credential: CredentialId) -> Response:
        """Obtain an authorization for real, and say in a sentence what the vendor answered."""
        given = await decode(request, _trial, _BYTES_MAX)
        return _json(await self._manager.test(_name(vendor, credential), probe=given.probe))

    async def remove(
        self,
        vendor: VendorId,
        credential: CredentialId,
        force: Annotated[bool, Query(description="Strand what work and devices it still has.")] = False,
    ) -> Response:
        """Forget a credential that has neither work nor devices any more."""
        await self._manager.remove(_name(vendor, credential), force=force)
        return Response(status_code=204)


def credential_routes(manager: CredentialManager, *, open_to_callers: bool) -> APIRouter:
    """The routes of the credentials.

    * **open_to_callers** - whether callers must show a key; without one every request is refused with 403.
    """
    handlers = _Credentials(manager)
    closed = [] if open_to_callers else [Depends(_refuse)]
    routes = APIRouter(prefix="/v1/credentials", tags=["credentials"], dependencies=closed)
    one = "/{vendor}/{credential}"
    for path, method, handler, document in (
        ("", "GET", handlers.every, _documented(None, CredentialList, "All of them.")),
        ("", "POST", handlers.add, _documented(CredentialGiven, CredentialShown, "It is stored.", status=201)),
        (f"{one}/rotate", "POST", handlers.rotate, _documented(ChangesGiven, CredentialShown, "As it is now.")),
        (f"{one}/test", "POST", handlers.test, _documented(TrialGiven, Trial, "What came of it.")),
        (one, "DELETE", handlers.remove, _documented(None, None, "It is gone.")),
    ):
        routes.add_api_route(path, handler, methods=[method], response_class=Response, response_model=None, **document)
    return routes


def refusal(refused: CredentialRefused) -> Problem:
    """The answer that says *refused*."""
    return Problem(_STATUS.get(refused.code, 422), refused.code, refused.sentence, refused.field)


async def _refuse() -> None:
    why = "set api.key: whoever can reach the API could otherwise change the credentials"
    raise Problem(403, "no_api_key", why)


def _name(vendor: str, credential: str) -> Name:
    return Name(_decoded(vendor, "vendor"), _decoded(credential, "credential"))


def _decoded(encoded: str, what: str) -> str:
    # The edge hands over the path's bytes as Latin-1.
    try:
        return unquote_to_bytes(encoded.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise Problem(400, "invalid_path", f"the {what} in the path is not percent-encoded UTF-8") from None


def _given(settings: dict[str, Any], files: dict[str, FileGiven]) -> Given:
    return Given(settings, {name: SecretFile(file.name, file.content) for name, file in files.items()})


def _json(shown: Struct, status: int = 200) -> Response:
    return Response(_encode(shown), status, media_type="application/json")
