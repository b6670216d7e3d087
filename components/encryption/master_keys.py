"""Master keys, which wrap the key of a home: a file, a secret in the environment, or a key management service.

A service is called by two commands, as `age`, `vault`, `gcloud kms` or `aws kms` offer: each reads from its standard
input and writes to its standard output. They are run without a shell, and only from a file that its owner alone may
write.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shlex
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from raypath.components.core.errors import ParamsError, UserError
from raypath.components.core.files import write_new_secret
from raypath.components.encryption.envelope import KEY, NONCE, cipher

VARIABLE = "RAYPATH_MASTER_KEY"
"""Environment variable with a master key: 64 hex digits, or the path of its file."""
_HEX = re.compile(r"[0-9a-f]{64}", re.IGNORECASE)
_SECONDS = 60.0
"""Time limit of a command of a key management service."""


class MasterKey(Protocol):
    """Key encryption key of a home. Implement it for a key management service that no command reaches."""

    @property
    def settings(self) -> dict[str, Any]:
        """Settings to find it again, without secrets, for the file of the home's key."""
        ...

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Encrypt a key of 32 bytes."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt it. Raises UserError for another master key."""
        ...


@dataclass(frozen=True)
class LocalKey:
    """Master key of 32 bytes, from a file or from the environment. Never log it."""

    secret: bytes = field(repr=False)
    path: str = ""
    """Its file; "" for a key from the environment."""

    @property
    def id(self) -> str:
        """Short id, by which a home names its master key."""
        return hashlib.sha256(b"raypath master key id" + self.secret).hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings to find it again."""
        return (
            {"kind": "file", "path": self.path, "id": self.id} if self.path else {"kind": "environment", "id": self.id}
        )

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Encrypt a key."""
        nonce = secrets.token_bytes(NONCE)
        wrapped: bytes = cipher(self.secret).encrypt(nonce, key, context)
        return nonce + wrapped

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt a key. Raises UserError."""
        from cryptography.exceptions import InvalidTag

        try:
            found: bytes = cipher(self.secret).decrypt(wrapped[:NONCE], wrapped[NONCE:], context)
        except InvalidTag:
            what = f"master key {self.id} does not decrypt the key of this home"
            raise UserError(what, fix=f"set ${VARIABLE} to the right one, or restore HOME/encryption") from None
        return found


@dataclass(frozen=True)
class CommandKey:
    """Master key in a key management service that two commands reach."""

    wrap_command: tuple[str, ...]
    unwrap_command: tuple[str, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """Settings to find it again."""
        return {"kind": "command", "wrap": list(self.wrap_command), "unwrap": list(self.unwrap_command)}

    def wrap(self, key: bytes, context: bytes) -> bytes:
        """Encrypt a key; the command has no place for a context, so that it is stored with the key."""
        return _run(self.wrap_command, key + hashlib.sha256(context).digest())

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt a key. Raises UserError."""
        found = _run(self.unwrap_command, wrapped)
        if len(found) != 2 * KEY or found[KEY:] != hashlib.sha256(context).digest():
            raise UserError(
                f"`{self.unwrap_command[0]}` returns another key than that of this home", fix="check its configuration"
            )
        return found[:KEY]


def create_key(path: Path) -> LocalKey:
    """Write a new master key to a file of mode 0600, and return it. Raises ParamsError for one that exists."""
    made = LocalKey(secrets.token_bytes(KEY), str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_new_secret(path, made.secret.hex() + "\n")
    except OSError as error:
        raise ParamsError(f"cannot create {path} ({error.strerror})", fix="name another file") from None
    return made


def read_key(path: Path) -> LocalKey:
    """Read a master key. Raises UserError for a file that is missing, no key, or that others may read."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        fix = f"restore the file, or set ${VARIABLE}"
        raise UserError(f"the master key {path} cannot be read ({reason})", fix=fix) from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(f"others may read the master key {path}", fix=f"chmod 600 {shlex.quote(str(path))}")
    if not _HEX.fullmatch(text):
        raise UserError(f"{path} is no master key", fix="wanted 64 hex digits; openssl rand -hex 32 makes one")
    return LocalKey(bytes.fromhex(text), str(path))


def environment_key(variable: str = VARIABLE) -> LocalKey | None:
    """Return the master key of the environment, None without one. Raises UserError."""
    given = os.environ.get(variable, "").strip()
    if not given:
        return None
    return LocalKey(bytes.fromhex(given)) if _HEX.fullmatch(given) else read_key(Path(given).expanduser().resolve())


def find_key(settings: dict[str, Any]) -> MasterKey:
    """Return the master key that the file of a home's key names. Raises UserError."""
    if settings["kind"] == "command":
        return CommandKey(tuple(settings["wrap"]), tuple(settings["unwrap"]))
    given = environment_key()
    if given is None and settings["kind"] == "environment":
        fix = f"set ${VARIABLE} to master key {settings['id']}; Ray's processes take it from `raypath up`"
        raise UserError("this home is encrypted, and the environment has no master key", fix=fix)
    if given is not None and given.id == settings["id"]:
        return given
    # A key in the environment may be that of another home.
    found = given if settings["kind"] == "environment" else read_key(Path(settings["path"]))
    assert found is not None
    if found.id != settings["id"]:
        what = f"this home needs master key {settings['id']}, and {found.path or '$' + VARIABLE} is {found.id}"
        raise UserError(what, fix=f"set ${VARIABLE} to the right one")
    return found


def command_key(wrap: str, unwrap: str) -> CommandKey:
    """Return the key behind two command lines, after a test. Raises UserError, ParamsError."""
    if not (wrap and unwrap):
        raise ParamsError("one of --wrap and --unwrap is missing", fix="give both commands")
    try:
        found = CommandKey(tuple(shlex.split(wrap)), tuple(shlex.split(unwrap)))
    except ValueError as error:
        raise ParamsError(f"--wrap or --unwrap is no command line ({error})", fix="close its quotes") from None
    secret = secrets.token_bytes(KEY)
    if found.unwrap(found.wrap(secret, b"test"), b"test") != secret:
        raise UserError("--unwrap does not return what --wrap encrypted", fix="check both commands")
    return found


def _run(command: tuple[str, ...], data: bytes) -> bytes:
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = getattr(error, "strerror", None) or f"no answer in {_SECONDS:.0f} s"
        raise UserError(f"the command {command[0]} of the master key failed ({reason})", fix="check it") from None
    if done.returncode or not done.stdout:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        what = f"the command {command[0]} of the master key failed ({lines[0][:200]})"
        raise UserError(what, fix="log in to the key management service, or check the command")
    return done.stdout
