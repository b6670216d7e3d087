"""API keys: who may ask the endpoint for what, how often and how much. Standard library and pydantic only.

    rp_<id>_<secret>    what the client sends; 256 random bits of secret, shown once
    keys.json           what is kept of them: HMAC-SHA256 of the secret, under a pepper that lies in a file of its own
    pepper              256 random bits; a copy of keys.json alone lets nobody test guesses
    keys.lock           one writer at a time

All of mode 0600. A running service sees a change within about a second.
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

Scope = Literal["predict", "embed", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
Count = Annotated[int, Field(ge=0)]
Price = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

LOOK = 1.0
"""Seconds between two looks at the file."""
_LONGEST = 256
"""Characters of a key's text; ours have about 60."""
_NOBODY = "0" * 64
"""What an unknown id is compared with, so that it takes as long as a known one."""
_log = logging.getLogger(__name__)


class Key(BaseModel):
    """One key as it is kept. Nobody can make the secret from it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str = Field(pattern=r"^\w[\w .@+-]{0,63}$")
    """Who it is for."""
    digest: str = Field(repr=False)
    """HMAC-SHA256 of the secret, in hex."""
    scopes: tuple[Scope, ...] = ("predict", "embed")
    created: AwareDatetime
    expires: AwareDatetime | None = None
    revoked: AwareDatetime | None = None
    requests_per_minute: Count = 0
    """0: no limit."""
    quota_requests: Count = 0
    """In a calendar month, UTC; 0: no limit."""
    quota_tokens: Count = 0
    """In a calendar month, UTC; 0: no limit."""
    price_per_request: Price = 0.0
    price_per_1k_tokens: Price = 0.0

    def status(self, now: float) -> Literal["active", "expired", "revoked"]:
        """What it is at a time in seconds since 1970."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires.timestamp() <= now else "active"


class AccessError(Exception):
    """A request that is refused: 401 no valid key, 403 not for this, 429 too much."""

    def __init__(self, status: int, reason: str, *, key: Key | None = None, retry_after: int = 0) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.key = key
        """Whose it was, where the secret was right."""
        self.retry_after = retry_after
        """Whole seconds; 0 says nothing."""


class _File(BaseModel, extra="forbid"):
    """keys.json."""

    keys: list[Key] = []


class KeyStore:
    """The keys of one folder, for the command line to change and for a service to check."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / "keys.json"
        self._known: dict[str, Key] = {}
        self._pepper = bytes(32)
        self._stamp: tuple[int, ...] | None = None
        self._looked = float("-inf")

    def create(self, name: str, scopes: Iterable[Scope] = ("predict", "embed"), **fields: Any) -> tuple[Key, str]:
        """A new key and its text, which is kept nowhere. Raises ParamsError.

        fields: expires, requests_per_minute, quota_requests, quota_tokens, price_per_request, price_per_1k_tokens
        """
        with self._locked():
            return self._add(name, tuple(dict.fromkeys(scopes)), fields)

    def list(self) -> tuple[Key, ...]:
        """All keys, also those that are revoked or have expired. Raises PlatformError."""
        return tuple(self._read().keys)

    def revoke(self, which: str) -> Key:
        """End a key, by its id or by its name. Raises UserError."""
        with self._locked():
            return self._revoke(which)

    def check(self, text: str, scope: str, now: float) -> Key:
        """The key of this text, if it may do this at a time in seconds since 1970. Raises AccessError 401 or 403."""
        self._look()
        id, secret = _parts(text)
        key = self._known.get(id)
        given = hmac.digest(self._pepper, secret.encode("utf-8", "replace"), "sha256").hex()
        same = hmac.compare_digest(given, _NOBODY if key is None else key.digest)
        if key is None or not same:
            raise AccessError(401, "this key is not known")
        status = key.status(now)
        if status != "active":
            raise AccessError(401, f"this key is {status}", key=key)
        if scope not in key.scopes:
            raise AccessError(403, f"this key is not for {scope}", key=key)
        return key

    def _look(self) -> None:
        """Read the file again if it is another than last time; what cannot be read leaves what was known."""
        now = time.monotonic()
        if now - self._looked < LOOK:
            return
        self._looked = now
        try:
            stamp = _stamp(self._file)
            if stamp != self._stamp:
                known = {key.id: key for key in self._read().keys}
                self._pepper = self._read_pepper() if known else bytes(32)
                self._known, self._stamp = known, stamp
        except (PlatformError, OSError) as error:
            _log.error("keys cannot be read again, those known before still hold: %s", error)

    def _add(self, name: str, scopes: tuple[Scope, ...], fields: dict[str, Any]) -> tuple[Key, str]:
        now = datetime.now(UTC).replace(microsecond=0)
        kept = self._read()
        if any(key.name == name and key.status(now.timestamp()) == "active" for key in kept.keys):
            raise ParamsError(f"there is a key named {name}", fix="choose another name, or revoke that one")
        id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        digest = hmac.digest(self._make_pepper(kept), secret.encode(), "sha256").hex()
        try:
            key = Key(id=id, name=name, digest=digest, scopes=scopes, created=now, **fields)
        except ValidationError as error:
            first = error.errors()[0]
            raise ParamsError(f"key {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        self._write([*kept.keys, key])
        return key, f"rp_{id}_{secret}"

    def _revoke(self, which: str) -> Key:
        now = datetime.now(UTC).replace(microsecond=0)
        kept = self._read().keys
        live = [key for key in kept if key.status(now.timestamp()) != "revoked"]
        found = [key for key in live if key.id == which] or [key for key in live if key.name == which]
        if not found:
            raise UserError(f"no key {which} that could be revoked", fix="see `raypath keys list`")
        ended = {key.id: key.model_copy(update={"revoked": now}) for key in found}
        self._write([ended.get(key.id, key) for key in kept])
        return ended[found[-1].id]

    def _read(self) -> _File:
        try:
            return _File.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return _File()
        except ValidationError as error:
            fix = "put a copy back, or remove it and make new keys"
            raise PlatformError(f"{self._file} is damaged ({error.error_count()} faults)", fix=fix) from None

    def _write(self, keys: Iterable[Key]) -> None:
        write_atomically(self._file, _File(keys=[*keys]).model_dump_json(indent=1))

    def _read_pepper(self) -> bytes:
        file = self.folder / "pepper"
        try:
            pepper = bytes.fromhex(file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            pepper = b""
        if len(pepper) != 32:
            fix = "put it back, or remove keys.json as well and make new keys"
            raise PlatformError(f"{file} is missing or damaged, and no key can be checked without it", fix=fix)
        return pepper

    def _make_pepper(self, kept: _File) -> bytes:
        """The pepper, made where there is none; but not in place of one that keys depend on."""
        if not kept.keys and not (self.folder / "pepper").exists():
            write_atomically(self.folder / "pepper", secrets.token_hex(32))
        return self._read_pepper()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time; the lock falls with its process."""
        with ExitStack() as stack:
            try:
                stack.enter_context(locked(self.folder / "keys.lock"))
            except OSError as error:
                raise UserError(
                    f"cannot write to {self.folder}: {error.strerror}", fix="choose another home"
                ) from error
            yield


def local_key(folder: Path) -> Path:
    """The file with the text of a key named `local`, for the person at this machine; made once, with every scope.

    Remove the file to have another one made, which ends the first.
    """
    store, file = KeyStore(folder), folder / "local.key"
    with store._locked():
        if not file.exists():
            # A kill may have come between key and file, and nobody knows the text of that key.
            if any(key.name == "local" and key.revoked is None for key in store.list()):
                store._revoke("local")
            write_atomically(file, store._add("local", SCOPES, {})[1])
    return file


def _parts(text: str) -> tuple[str, str]:
    """Id and secret; text of another form has an id that nobody has."""
    prefix, _, rest = text[:_LONGEST].partition("_")
    id, _, secret = rest.partition("_")
    return (id if prefix == "rp" else "", secret)


def _stamp(file: Path) -> tuple[int, ...] | None:
    """What changes when a file does; (0,) for none."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return (0,)
    return found.st_mtime_ns, found.st_size, found.st_ino
