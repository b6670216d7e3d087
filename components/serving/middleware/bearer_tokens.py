"""Tokens of OpenID Connect issuers (JWT, RFC 9068) in place of API keys.

A token must be signed by a public key of a trusted issuer with an asymmetric algorithm, for this service's audience,
and be valid now. Public keys are fetched when a token names one that is not known, at most every 30 s an issuer, and
again after an hour: an issuer may withdraw one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from raypath.components.core.errors import RaypathError
from raypath.components.serving.metering.holder import AccessError, Key
from raypath.components.serving.metering.issuers import Issuer, IssuerStore, fetch

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Never HMAC, whose key a public key would be, and never `none`."""
LEEWAY = 30.0
"""Seconds by which clocks may differ."""
REFRESH, RETRY = 3600.0, 30.0
"""Seconds until public keys are fetched again, and the fewest between two attempts."""
_FORM = re.compile(r"[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}", re.ASCII)
_NAME = re.compile(r"\w[\w .@+-]{0,63}")
_MAX_LENGTH = 8192
_log = logging.getLogger(__name__)


class TokenVerifier:
    """Verifies tokens of the issuers that a folder of keys trusts."""

    def __init__(self, folder: Path) -> None:
        self.issuers = IssuerStore(folder)
        self._keys: dict[str, dict[str, Any]] = {}
        """Public keys by id, by issuer."""
        self._fetched: dict[str, float] = {}
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    @staticmethod
    def is_token(text: str) -> bool:
        """Return True for text of the form of a token, which no API key has."""
        return len(text) <= _MAX_LENGTH and _FORM.fullmatch(text) is not None

    async def prepare(self, text: str) -> None:
        """Fetch the issuer's public keys if the token's is not known. A failure is logged; `check` rejects then.

        Keys that are known but old are fetched in the background.
        """
        found = self._unverified(text)
        if found is None:
            return
        issuer, kid = found
        if kid in self._keys.get(issuer.issuer, {}):
            if self._age(issuer) > REFRESH and not self._lock.locked():
                task = asyncio.create_task(self._refresh(issuer, REFRESH))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        elif self._age(issuer) > RETRY:
            await self._refresh(issuer, RETRY)

    async def _refresh(self, issuer: Issuer, age: float) -> None:
        """Fetch the public keys of an issuer unless another request has done so."""
        async with self._lock:
            if self._age(issuer) > age:
                await asyncio.to_thread(self._fetch, issuer)

    def check(self, text: str, permission: str, service: str = "") -> Key:
        """Return the key that stands for the token's subject. Raises AccessError 401 or 403.

        service: scope that the service requires.
        """
        import jwt

        found = self._unverified(text)
        if found is None:
            raise AccessError(401, "the issuer of this token is not trusted")
        issuer, kid = found
        public = self._keys.get(issuer.issuer, {}).get(kid)
        if public is None:
            raise AccessError(401, "the key of this token is not known to its issuer")
        try:
            claims = jwt.decode(
                text,
                public,
                algorithms=ALGORITHMS,
                audience=issuer.audience,
                issuer=issuer.issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True},
            )
        except jwt.ExpiredSignatureError:
            raise AccessError(401, "this token has expired") from None
        except jwt.InvalidAudienceError:
            raise AccessError(401, "this token is for another audience") from None
        except jwt.InvalidTokenError:
            raise AccessError(401, "this token is not valid") from None
        key = _key(issuer, claims)
        key.require(permission, service, "token")
        return key

    def _unverified(self, text: str) -> tuple[Issuer, str] | None:
        """Return the trusted issuer that a token names, and the id of its key; None without either."""
        if not self.issuers.any():
            return None
        try:
            import jwt
        except ImportError:
            _log.error("tokens of issuers need the package PyJWT: pip install 'raypath[oidc]'")
            return None
        try:
            kid = str(jwt.get_unverified_header(text).get("kid", ""))
            named = jwt.decode(text, options={"verify_signature": False}).get("iss")
        except jwt.InvalidTokenError:
            return None
        issuer = self.issuers.find(named) if isinstance(named, str) else None
        return None if issuer is None else (issuer, kid)

    def _age(self, issuer: Issuer) -> float:
        """Return the seconds since the public keys of an issuer were fetched."""
        return time.monotonic() - self._fetched.get(issuer.issuer, float("-inf"))

    def _fetch(self, issuer: Issuer) -> None:
        import jwt

        self._fetched[issuer.issuer] = time.monotonic()
        try:
            found = jwt.PyJWKSet.from_dict(fetch(issuer.jwks_uri))
        except (RaypathError, jwt.PyJWTError, TypeError, AttributeError) as error:
            _log.error("public keys of %s cannot be fetched, the known ones stay valid: %s", issuer.issuer, error)
            return
        self._keys[issuer.issuer] = {str(key.key_id or ""): key for key in found.keys}


def _key(issuer: Issuer, claims: dict[str, Any]) -> Key:
    """Return the key of a token with verified claims. Raises AccessError 403 for a token that names no tenant."""
    subject, tenant = str(claims["sub"]), issuer.tenant_of(claims)
    if issuer.tenant_claim and tenant is None:
        raise AccessError(403, f"this token names no tenant in its claim {issuer.tenant_claim}")
    who = f"{issuer.issuer} {subject} {tenant}" if issuer.tenant_claim else f"{issuer.issuer} {subject}"
    id = f"oidc-{hashlib.sha256(who.encode()).hexdigest()[:12]}"
    fields = issuer.limits() | {"tenant": tenant, "role": issuer.role_of(claims), "scopes": issuer.scopes_of(claims)}
    expires = datetime.fromtimestamp(float(claims["exp"]), UTC)
    name = subject if _NAME.fullmatch(subject) else id
    return Key(id=id, name=name, digest="", created=issuer.added, expires=expires, **fields)
