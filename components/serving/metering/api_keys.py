"""API keys with scopes, rate limits, quotas and prices. Standard library and pydantic only.

    rp_<id>_<secret>    the key that a client sends; the secret has 256 random bits and is shown once
    keys.json           the stored keys, with the HMAC-SHA256 of the secret
    pepper              key of the HMAC, 256 random bits; without it, secrets cannot be tested against keys.json
    keys.lock           lock for writers

All files have mode 0600. A running service reads changes within about a second.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from raypath.components.core.errors import ParamsError, PlatformError, UserError
from raypath.components.core.files import locked, write_atomically

Scope = Literal["predict", "embed", "chat", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
CLIENT_SCOPES: tuple[Scope, ...] = ("predict", "embed", "chat")
"""Scopes of a key for which none are named."""
_EARLIER_SCOPES: tuple[Scope, ...] = ("predict", "embed", "admin")
"""All scopes of a Raypath that served no language models."""
Count = Annotated[int, Field(ge=0)]
Model = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
"""Name of a registered model."""
Price = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

LOCAL = "local"
"""Name of the key of this machine's user."""
RELOAD_SECONDS = 1.0
"""Minimum seconds between two checks for changes."""
_MAX_LENGTH = 256
"""Characters of a key that are read; keys have about 60."""
_NO_DIGEST = "0" * 64
"""Digest compared for an unknown id, so that it takes as long as for a known one."""
_log = logging.getLogger(__name__)


class Limits(BaseModel):
    """Models, limits and prices of the holder of a key or a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: tuple[Model, ...] | None = None
    """Names of the models that it may use; None for all."""
    requests_per_minute: Count = 0
    """0: no limit."""
    tokens_per_minute: Count = 0
    """Of requests and responses; 0: no limit."""
    quota_requests: Count = 0
    """Per calendar month, UTC; 0: no limit."""
    quota_tokens: Count = 0
    """Per calendar month, UTC; 0: no limit."""
    price_per_request: Price = 0.0
    price_per_1k_tokens: Price = 0.0
    price_per_1k_generated: Price | None = None
    """Of tokens that a language model generates; None takes `price_per_1k_tokens`."""
    price_per_1k_cached: Price | None = None
    """Of tokens of a prompt that come from the prefix cache; None takes `price_per_1k_tokens`."""


class Key(Limits):
    """Stored key. The secret cannot be derived from it."""

    id: str
    name: str = Field(pattern=r"^\w[\w .@+-]{0,63}$")
    """Name of the holder."""
    digest: str = Field(repr=False)
    """HMAC-SHA256 of the secret, in hex."""
    scopes: tuple[Scope, ...] = CLIENT_SCOPES
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None

    @property
    def limited(self) -> bool:
        """True for a key with a rate limit or a quota."""
        return any((self.requests_per_minute, self.tokens_per_minute, self.quota_requests, self.quota_tokens))

    def status(self, now: float) -> Literal["active", "expired", "revoked"]:
        """Return the status at a Unix time."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires.timestamp() <= now else "active"


class AccessError(Exception):
    """Rejected request: 401 no valid key, 403 missing scope, 429 limit exceeded."""

    def __init__(self, status: int, reason: str, *, key: Key | None = None, retry_after: int = 0) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.key = key
        """The key, if the secret was correct."""
        self.retry_after = retry_after
        """Seconds until a retry; 0 sets no header."""


class _File(BaseModel, extra="forbid"):
    """keys.json."""

    keys: list[Key] = []


class KeyStore:
    """Keys of a folder: changed by the command line, checked by services."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "keys.json"
        self._known: dict[str, Key] = {}
        self._pepper = bytes(32)
        self._stamp: tuple[int, ...] | None = None
        self._checked_at = float("-inf")

    def create(self, name: str, scopes: Iterable[Scope] = CLIENT_SCOPES, **fields: Any) -> tuple[Key, str]:
        """Create a key; returns it with its text, which is not stored. Raises ParamsError.

        fields: models, expires, requests_per_minute, tokens_per_minute, quota_requests, quota_tokens,
            price_per_request, price_per_1k_tokens, price_per_1k_generated, price_per_1k_cached
        """
        if name.strip().casefold() == LOCAL:
            raise ParamsError(f"{name} is the name of this machine's own key", fix="choose another name")
        with self._locked():
            return self._add(name, tuple(dict.fromkeys(scopes)), fields)

    def list(self) -> tuple[Key, ...]:
        """Return all keys, revoked and expired ones included. Raises PlatformError."""
        return tuple(self._read().keys)

    def revoke(self, which: str) -> Key:
        """Revoke a key by id or name. Raises UserError."""
        with self._locked():
            return self._revoke(which)

    def check(self, text: str, scope: str, now: float) -> Key:
        """Authenticate a key at a Unix time and check its scope. Raises AccessError 401 or 403."""
        self._reload()
        id, secret = _split_key(text)
        key = self._known.get(id)
        digest = hmac.digest(self._pepper, secret.encode("utf-8", "replace"), "sha256").hex()
        same = hmac.compare_digest(digest, _NO_DIGEST if key is None else key.digest)
        if key is None or not same:
            raise AccessError(401, "this key is not known")
        status = key.status(now)
        if status != "active":
            raise AccessError(401, f"this key is {status}", key=key)
        if scope not in key.scopes:
            raise AccessError(403, f"this key is not for {scope}", key=key)
        return key

    def _reload(self) -> None:
        """Read the file again if it changed; on an error the known keys stay valid."""
        now = time.monotonic()
        if now - self._checked_at < RELOAD_SECONDS:
            return
        self._checked_at = now
        try:
            stamp = _stamp(self._file)
            if stamp != self._stamp:
                known = {key.id: key for key in self._read().keys}
                self._pepper = self._read_pepper() if known else bytes(32)
                self._known, self._stamp = known, stamp
        except (PlatformError, OSError) as error:
            _log.error("keys cannot be read, the known ones stay valid: %s", error)

    def _add(self, name: str, scopes: tuple[Scope, ...], fields: dict[str, Any]) -> tuple[Key, str]:
        now = datetime.now(UTC).replace(microsecond=0)
        stored = self._read()
        taken = (key.name == name and key.status(now.timestamp()) == "active" for key in stored.keys)
        if name != LOCAL and any(taken):
            raise ParamsError(f"there is a key named {name}", fix="choose another name, or revoke that one")
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        digest = hmac.digest(self._make_pepper(stored), secret.encode(), "sha256").hex()
        try:
            key = Key(id=id, name=name, digest=digest, scopes=scopes, created=now, **fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise ParamsError(f"key {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        self._write([*stored.keys, key])
        return key, f"rp_{id}_{secret}"

    def _revoke(self, which: str) -> Key:
        now = datetime.now(UTC).replace(microsecond=0)
        stored = self._read().keys
        live = [key for key in stored if key.status(now.timestamp()) != "revoked"]
        found = [key for key in live if key.id == which] or [key for key in live if key.name == which]
        if not found:
            raise UserError(f"no key {which} that could be revoked", fix="see `raypath keys list`")
        ended = {key.id: key.model_copy(update={"revoked": now}) for key in found}
        self._write([ended.get(key.id, key) for key in stored])
        return ended[found[-1].id]

    def _renew_local(self) -> None:
        """Give the local key of an earlier Raypath the scopes that have been added since."""
        stored = self._read().keys
        renewed = [key.model_copy(update={"scopes": SCOPES}) if _is_local(key) else key for key in stored]
        if renewed != stored:
            self._write(renewed)

    def _read(self) -> _File:
        try:
            return _File.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return _File()
        except ValidationError as error:
            fix = "restore a copy, or remove it and create new keys"
            raise PlatformError(f"{self._file} is corrupt ({error.error_count()} errors)", fix=fix) from None

    def _write(self, keys: Iterable[Key]) -> None:
        write_atomically(self._file, _File(keys=[*keys]).model_dump_json(indent=1, exclude_none=True))

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


def _is_local(key: Key) -> bool:
    """Return True for a key of `local_key`: a client's key of that name, of an earlier Raypath, has other fields."""
    every = key.scopes in (SCOPES, _EARLIER_SCOPES)
    return key.name == LOCAL and every and not (key.limited or key.expires or key.models)


def _split_key(text: str) -> tuple[str, str]:
    """Split a key into id and secret; the id is "" for text of another form."""
    prefix, _, rest = text[:_MAX_LENGTH].partition("_")
    id, _, secret = rest.partition("_")
    return (id if prefix == "rp" else "", secret)


def _stamp(file: Path) -> tuple[int, ...] | None:
    """Return a value that changes with the file; (0,) without one."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return (0,)
    return found.st_mtime_ns, found.st_size, found.st_ino
