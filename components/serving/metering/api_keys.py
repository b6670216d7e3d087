"""API keys with roles, scopes, tenants, rate limits, quotas and prices. Standard library and pydantic only.

    rp_<id>_<secret>    the key that a client sends; the secret has 256 random bits and is shown once
    keys.json           the stored keys, with the HMAC-SHA256 of the secret, and the tenants
    pepper              key of the HMAC, 256 random bits; without it, secrets cannot be tested against keys.json
    keys.lock           lock for writers

All files have mode 0600. A running service reads changes within about a second.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from raypath.components.core.errors import ParamsError, PlatformError, UserError
from raypath.components.core.files import file_stamp, locked, write_atomically
from raypath.components.serving.metering.holder import AccessError, Key
from raypath.components.serving.metering.roles import ROLE_NAMES, SCOPES, Role, Scope, role_scopes
from raypath.components.serving.metering.tenants import Tenancy, Tenant, with_tenant

_EARLIER_SCOPES: tuple[Scope, ...] = ("predict", "embed", "admin")
"""All scopes of a Raypath that served no language models."""

LOCAL = "local"
"""Name of the key of this machine's user."""
RELOAD_SECONDS = 1.0
"""Minimum seconds between two checks for changes."""
_MAX_LENGTH = 256
"""Characters of a key that are read; keys have about 60."""
_NO_DIGEST = "0" * 64
"""Digest compared for an unknown id, so that it takes as long as for a known one."""
_log = logging.getLogger(__name__)


class _File(BaseModel, extra="forbid"):
    """keys.json."""

    keys: list[Key] = []
    tenants: list[Tenant] | None = None
    """None without tenants, so that an earlier Raypath can read the file."""


class KeyStore:
    """Keys of a folder: changed by the command line, checked by services."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "keys.json"
        self._known: dict[str, Key] = {}
        self._tenancy = Tenancy()
        self._pepper = bytes(32)
        self._stamp: tuple[int, ...] | None = None
        self._checked_at = float("-inf")

    def create(
        self, name: str, scopes: Iterable[Scope] | None = None, *, secret: bool = True, **fields: Any
    ) -> tuple[Key, str]:
        """Create a key; returns it with its text, which is not stored. Raises ParamsError.

        scopes: None takes those of the role, without a role those of a client.
        secret: False for a key without a text, which its `certificate` alone stands for.
        fields: certificate, role, tenant, models, expires, requests_per_minute, tokens_per_minute, quota_requests,
            quota_tokens, price_per_request, price_per_1k_tokens, price_per_1k_generated, price_per_1k_cached
        """
        if name.strip().casefold() == LOCAL:
            raise ParamsError(f"{name} is the name of this machine's own key", fix="choose another name")
        chosen = _chosen_scopes(scopes, fields.get("role"))
        with self._locked():
            return self._add(name, chosen, fields, secret)

    def list(self) -> tuple[Key, ...]:
        """Return all keys, revoked and expired ones included. Raises PlatformError."""
        return tuple(self._read().keys)

    def revoke(self, which: str) -> Key:
        """Revoke a key by id or name. Raises UserError."""
        with self._locked():
            return self._revoke(which)

    def tenants(self) -> tuple[Tenant, ...]:
        """Return the tenants. Raises PlatformError."""
        return tuple(self._read().tenants or ())

    def set_tenant(self, name: str, models: Iterable[str] = ()) -> Tenant:
        """Make a tenant, or give it these models in place of those it has. Raises ParamsError."""
        with self._locked():
            stored = self._read()
            known = {tenant.name: tenant for tenant in stored.tenants or ()}
            now = datetime.now(UTC).replace(microsecond=0)
            created = known[name].created if name in known else now
            with _validated("tenant"):
                made = Tenant(name=name, models=tuple(dict.fromkeys(models)), created=created)
            self._write(stored.keys, with_tenant(known.values(), made))
        return made

    def tenancy(self) -> Tenancy:
        """Return the owners of models, as of about a second ago."""
        self._reload()
        return self._tenancy

    def check(self, text: str, permission: str, now: float, service: str = "") -> Key:
        """Authenticate a key at a Unix time and check its permission. Raises AccessError 401 or 403.

        service: scope that the service requires.
        """
        self._reload()
        id, secret = _split_key(text)
        if id not in self._known:
            # A key that was made a moment ago, such as the one of this machine, is valid at once.
            self._reload(at_once=True)
        key = self._known.get(id)
        digest = hmac.digest(self._pepper, secret.encode("utf-8", "replace"), "sha256").hex()
        same = hmac.compare_digest(digest, _NO_DIGEST if key is None else key.digest)
        if key is None or not same:
            raise AccessError(401, "this key is not known")
        return _admitted(key, permission, now, service)

    def check_certificate(
        self, matches: Callable[[str], bool], permission: str, now: float, service: str
    ) -> Key | None:
        """Return the key that a client certificate alone stands for, None without one. Raises AccessError 401, 403.

        matches: True for its subjects.
        """
        self._reload()
        found = [key for key in self._known.values() if key.certificate and not key.digest and matches(key.certificate)]
        found.sort(key=lambda key: key.status(now) == "active")
        return _admitted(found[-1], permission, now, service) if found else None

    def _reload(self, at_once: bool = False) -> None:
        """Read the file again if it changed; on an error the known keys stay valid.

        at_once: look at the file also if that was done a moment ago.
        """
        now = time.monotonic()
        if not at_once and now - self._checked_at < RELOAD_SECONDS:
            return
        self._checked_at = now
        try:
            stamp = file_stamp(self._file)
            if stamp != self._stamp:
                stored = self._read()
                known = {key.id: key for key in stored.keys}
                self._pepper = self._read_pepper() if known else bytes(32)
                self._known, self._tenancy, self._stamp = known, Tenancy(stored.tenants or ()), stamp
        except (PlatformError, OSError) as error:
            _log.error("keys cannot be read, the known ones stay valid: %s", error)

    def _add(
        self, name: str, scopes: tuple[Scope, ...], fields: dict[str, Any], with_secret: bool = True
    ) -> tuple[Key, str]:
        now = datetime.now(UTC).replace(microsecond=0)
        stored = self._read()
        taken = (key.name == name and key.status(now.timestamp()) == "active" for key in stored.keys)
        if name != LOCAL and any(taken):
            raise ParamsError(f"there is a key named {name}", fix="choose another name, or revoke that one")
        tenant = fields.get("tenant")
        if tenant is not None and tenant not in {each.name for each in stored.tenants or ()}:
            raise ParamsError(f"there is no tenant {tenant}", fix=f"make it: raypath keys tenant {tenant}")
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        pepper = self._make_pepper(stored)
        digest = hmac.digest(pepper, secret.encode(), "sha256").hex() if with_secret else ""
        with _validated("key"):
            key = Key(id=id, name=name, digest=digest, scopes=scopes, created=now, **fields)
        self._write([*stored.keys, key], stored.tenants)
        return key, f"rp_{id}_{secret}" if with_secret else ""

    def _revoke(self, which: str) -> Key:
        now = datetime.now(UTC).replace(microsecond=0)
        stored = self._read()
        live = [key for key in stored.keys if key.status(now.timestamp()) != "revoked"]
        found = [key for key in live if key.id == which] or [key for key in live if key.name == which]
        if not found:
            raise UserError(f"no key {which} that could be revoked", fix="see `raypath keys list`")
        ended = {key.id: key.model_copy(update={"revoked": now}) for key in found}
        self._write([ended.get(key.id, key) for key in stored.keys], stored.tenants)
        return ended[found[-1].id]

    def _renew_local(self) -> None:
        """Give the local key of an earlier Raypath the scopes that have been added since."""
        stored = self._read()
        renewed = [key.model_copy(update={"scopes": SCOPES}) if _is_local(key) else key for key in stored.keys]
        if renewed != stored.keys:
            self._write(renewed, stored.tenants)

    def _read(self) -> _File:
        try:
            return _File.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return _File()
        except ValidationError as error:
            fix = "restore a copy, or remove it and create new keys"
            raise PlatformError(f"{self._file} is corrupt ({error.error_count()} errors)", fix=fix) from None

    def _write(self, keys: Iterable[Key], tenants: Iterable[Tenant] | None) -> None:
        made = _File(keys=[*keys], tenants=None if tenants is None else [*tenants])
        write_atomically(self._file, made.model_dump_json(indent=1, exclude_none=True))

    def _read_pepper(self) -> bytes:
        file = self.folder / "pepper"
        try:
            pepper = bytes.fromhex(file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            pepper = b""
        if len(pepper) != 32:
            fix = "restore it, or remove keys.json as well and create new keys"
            raise PlatformError(f"{file} is missing or corrupt, and no key can be checked without it", fix=fix)
        return pepper

    def _make_pepper(self, stored: _File) -> bytes:
        """Return the pepper, created if there are no keys yet."""
        if not stored.keys and not (self.folder / "pepper").exists():
            write_atomically(self.folder / "pepper", secrets.token_hex(32))
        return self._read_pepper()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the writer lock."""
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / "keys.lock"))
            except OSError as error:
                raise UserError(
                    f"cannot write to {self.folder}: {error.strerror}", fix="choose another home"
                ) from error
            yield


def local_key(folder: Path) -> Path:
    """Return the file of a key named `local` with every scope, for the user of this machine; created once.

    After the file is removed, a new key is created and the old one revoked.
    """
    store, file = KeyStore(folder), folder / "local.key"
    with store._locked():
        store._renew_local()
        if not file.exists():
            # After a crash between key and file, the text of that key is lost.
            for key in store.list():
                if key.revoked is None and _is_local(key):
                    store._revoke(key.id)
            write_atomically(file, store._add(LOCAL, SCOPES, {})[1])
    return file


@contextmanager
def _validated(what: str) -> Iterator[None]:
    """Raise ParamsError for the first invalid field."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        where = f"{what} {'.'.join(map(str, first['loc']))}"
        if first["type"] == "string_pattern_mismatch":
            fix = "begin with a letter or digit, then use letters, digits and . _ -, without other characters"
            raise ParamsError(f"{where}: {first['input']!r} is no name", fix=fix) from None
        raise ParamsError(f"{where}: {first['msg']}") from None


def _chosen_scopes(scopes: Iterable[Scope] | None, role: Role | None) -> tuple[Scope, ...]:
    """Return the scopes of a new key. Raises ParamsError for an unknown role, and for scopes beyond the role."""
    if role is not None and role not in ROLE_NAMES:
        raise ParamsError(f"there is no role {role}", fix=f"give one of {', '.join(ROLE_NAMES)}")
    chosen = role_scopes(role) if scopes is None else tuple(dict.fromkeys(scopes))
    if role is not None and (beyond := set(chosen) - set(role_scopes(role))):
        raise ParamsError(f"the role {role} is not for {', '.join(sorted(beyond))}", fix="leave out --scopes")
    return chosen


def _is_local(key: Key) -> bool:
    """Return True for a key of `local_key`: a client's key of that name, of an earlier Raypath, has other fields."""
    every = key.scopes in (SCOPES, _EARLIER_SCOPES)
    return key.name == LOCAL and every and not (key.limited or key.expires or key.models or key.role)


def _admitted(key: Key, permission: str, now: float, service: str) -> Key:
    status = key.status(now)
    if status != "active":
        raise AccessError(401, f"this key is {status}", key=key)
    key.require(permission, service)
    return key


def _split_key(text: str) -> tuple[str, str]:
    """Split a key into id and secret; the id is "" for text of another form."""
    prefix, _, rest = text[:_MAX_LENGTH].partition("_")
    id, _, secret = rest.partition("_")
    return (id if prefix == "rp" else "", secret)
