"""OpenID Connect issuers whose tokens an endpoint accepts beside API keys.

    issuers.json    in the folder of the keys: issuers, with the scopes and limits of their users; mode 0600

A running service reads changes within about a second.
"""

from __future__ import annotations

import json
import logging
import re
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BaseModel, Field, ValidationError, model_validator

from raypath.components.core.errors import ParamsError, PlatformError, Unavailable, UserError
from raypath.components.core.files import locked, write_atomically
from raypath.components.serving.metering.api_keys import RELOAD_SECONDS
from raypath.components.serving.metering.holder import Limits
from raypath.components.serving.metering.roles import CLIENT_SCOPES, ROLE_NAMES, SCOPES, Role, Scope, role_scopes

_MOST_BYTES = 1 << 20
"""Bytes of a response of an issuer."""
_SECONDS = 10.0
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_log = logging.getLogger(__name__)


class Issuer(Limits):
    """Trusted issuer. Limits and prices hold for each of its users."""

    issuer: str
    """URL, as in the claim `iss`."""
    audience: str
    """Claim `aud` that a token must have: the name of this service at the issuer."""
    jwks_uri: str
    """URL of the issuer's public keys."""
    claim: str = "scope"
    """Claim with scopes or roles: a list, or text separated by spaces."""
    roles: dict[str, tuple[Scope, ...] | Role] = Field({})
    """Scopes, or a role, by value of the claim; empty if the values are scopes."""
    tenant_claim: str | None = None
    """Claim with the name of the tenant; None: all of its users belong to `tenant`."""
    added: AwareDatetime

    @model_validator(mode="after")
    def _one_kind(self) -> Issuer:
        if len({isinstance(given, str) for given in self.roles.values()}) > 1:
            raise ValueError("some values stand for scopes and some for roles; give one kind for all")
        if self.tenant and self.tenant_claim:
            raise ValueError("give a tenant, or the claim that names it")
        return self

    def limits(self) -> dict[str, Any]:
        """Return models, limits and prices, as fields of a key."""
        return self.model_dump(include=set(Limits.model_fields))

    def role_of(self, claims: dict[str, Any]) -> Role | None:
        """Return the highest role of a token with these claims; None if its values stand for scopes, or for nothing."""
        found = {given for value in self._values(claims) if isinstance(given := self.roles.get(value), str)}
        return max(found, key=ROLE_NAMES.index, default=None)

    def scopes_of(self, claims: dict[str, Any]) -> tuple[Scope, ...]:
        """Return the scopes of a token with these claims."""
        if (role := self.role_of(claims)) is not None:
            return role_scopes(role)
        values = self._values(claims)
        if not self.roles:  # `admin` is a word of many issuers, and theirs alone
            return tuple(scope for scope in CLIENT_SCOPES if scope in values)
        given = {scope for value in values for scope in self.roles.get(value, ())}
        return tuple(scope for scope in SCOPES if scope in given)

    def tenant_of(self, claims: dict[str, Any]) -> str | None:
        """Return the tenant of a token with these claims; None without a valid name."""
        if self.tenant_claim is None:
            return self.tenant
        named = claims.get(self.tenant_claim)
        return named if isinstance(named, str) and _TENANT.fullmatch(named) else None

    def _values(self, claims: dict[str, Any]) -> list[str]:
        found = claims.get(self.claim, ())
        if isinstance(found, str):
            return found.split()
        return [str(each) for each in found] if isinstance(found, list) else []


class _File(BaseModel, extra="forbid"):
    issuers: list[Issuer] = []


class IssuerStore:
    """Issuers of a folder: changed by the command line, read by services."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "issuers.json"
        self._known: dict[str, Issuer] = {}
        self._stamp: tuple[int, int] | None = None
        self._checked_at = float("-inf")

    def any(self) -> bool:
        """Return True if an issuer is trusted."""
        self._reload()
        return bool(self._known)

    def find(self, issuer: str) -> Issuer | None:
        """Return a trusted issuer by its URL, as of about a second ago."""
        self._reload()
        return self._known.get(issuer)

    def _reload(self) -> None:
        now = time.monotonic()
        if now - self._checked_at < RELOAD_SECONDS:
            return
        self._checked_at = now
        try:
            found = self._file.stat()
            stamp = (found.st_mtime_ns, found.st_ino)
        except OSError:
            stamp = (0, 0)
        try:
            if stamp != self._stamp:
                self._known, self._stamp = {each.issuer: each for each in self.list()}, stamp
        except PlatformError as error:
            _log.error("issuers cannot be read, the known ones stay valid: %s", error)

    def list(self) -> list[Issuer]:
        """Return all issuers. Raises PlatformError for a corrupt file."""
        try:
            return _File.model_validate_json(self._file.read_bytes()).issuers
        except FileNotFoundError:
            return []
        except (OSError, ValidationError):
            raise PlatformError(f"{self._file} is corrupt", fix="restore a copy, or remove it") from None

    def add(self, issuer: str, audience: str, **fields: Any) -> Issuer:
        """Trust an issuer; replaces an entry of the same URL. Raises ParamsError, Unavailable."""
        if find_spec("jwt") is None:
            raise ParamsError("tokens need the package PyJWT", fix="pip install 'raypath[oidc]'")
        if not audience:
            raise ParamsError("--audience is empty", fix="give the name that this service has at the issuer")
        url = issuer.rstrip("/")
        found = fetch(f"{url}/.well-known/openid-configuration")
        if not isinstance(found, dict) or str(found.get("issuer", "")).rstrip("/") != url:
            named = found.get("issuer") if isinstance(found, dict) else None
            raise ParamsError(f"{url} says that it is the issuer {named!r}", fix="give the issuer's own URL")
        keys = fetch(str(found.get("jwks_uri", "")))
        if not isinstance(keys, dict) or not keys.get("keys"):
            raise ParamsError(f"{url} has no public keys", fix="give the URL of an OpenID Connect issuer")
        now = datetime.now(UTC).replace(microsecond=0)
        try:
            made = Issuer(issuer=found["issuer"], audience=audience, jwks_uri=found["jwks_uri"], added=now, **fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise ParamsError(f"issuer {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        self._change(lambda known: [*(each for each in known if each.issuer != made.issuer), made])
        return made

    def remove(self, issuer: str) -> None:
        """Trust an issuer no longer. Raises UserError."""
        names = {issuer, issuer.rstrip("/"), f"{issuer}/"}
        if not any(each.issuer in names for each in self.list()):
            raise UserError(f"{issuer} is not trusted", fix="see `raypath keys issuers`")
        self._change(lambda known: [each for each in known if each.issuer not in names])

    def _change(self, change: Any) -> None:
        with locked(self._file.with_name("keys.lock")):
            made = _File(issuers=change(self.list()))
            write_atomically(self._file, made.model_dump_json(indent=1, exclude_none=True))


def fetch(url: str) -> Any:
    """Return the JSON at a URL of an issuer: https, or http on loopback. Raises ParamsError, Unavailable."""
    import httpx

    parts = urlsplit(url)
    if not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))):
        raise ParamsError(f"{url!r} is not an https URL", fix="an issuer is asked over https only")
    try:
        with httpx.Client(timeout=_SECONDS, follow_redirects=False) as client, client.stream("GET", url) as response:
            response.raise_for_status()
            body = b""
            for part in response.iter_bytes():
                body += part
                if len(body) > _MOST_BYTES:
                    raise ParamsError(f"{url} sends more than {_MOST_BYTES:,} bytes", fix="give the URL of an issuer")
        return _json(body, url)
    except httpx.HTTPStatusError as error:
        raise Unavailable(f"{url} answers {error.response.status_code}", fix="check the issuer's URL") from None
    except httpx.HTTPError as error:
        raise Unavailable(f"{url} cannot be reached ({type(error).__name__})", fix="check the issuer's URL") from None


def _json(body: bytes, url: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise ParamsError(f"{url} is not JSON", fix="give the URL of an OpenID Connect issuer") from None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
