"""One-time codes and cookies of the login, signed with keys that are derived from the token.

A code is in the link that `raypath up` prints. It is valid for ten minutes and once. The codes that were used are rows
in MLflow's own database, so that this holds for several workers, several pods and after a restart.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import time
from typing import Any

CODE_SECONDS = 600
"""Validity of a link."""
COOKIE_SECONDS = 12 * 3600
"""Validity of a browser's login."""
_TABLE = "raypath_used_login_codes"


class Signer:
    """Make and verify values that expire: EXPIRY.NONCE.MAC."""

    def __init__(self, token: str, purpose: str) -> None:
        self._key = hmac.digest(token.encode(), f"raypath mlflow {purpose}".encode(), "sha256")

    def sign(self, seconds: float) -> str:
        """Return a new value that is valid for `seconds`."""
        body = f"{int(time.time() + seconds)}.{secrets.token_hex(16)}"
        return f"{body}.{self._mac(body)}"

    def expiry(self, value: str) -> int:
        """Return the Unix time at which a value expires; 0 for an invalid or expired one."""
        body, _, mac = value.rpartition(".")
        if not hmac.compare_digest(mac.encode(), self._mac(body).encode()):
            return 0
        expires = int(body.partition(".")[0])
        return expires if expires > time.time() else 0

    def _mac(self, body: str) -> str:
        return hmac.digest(self._key, body.encode(), "sha256").hex()


def link(address: str, token: str) -> str:
    """Return a URL that logs a browser in, once, within ten minutes."""
    return f"{address}/login?code={Signer(token, 'code').sign(CODE_SECONDS)}"


class UsedCodes:
    """Record of the codes that were used, in the database of the tracking server."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._engine: Any = None

    def use(self, code: str, expires: int) -> bool:
        """Record a code. Returns False for one that was used before."""
        from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine
        from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

        nonce = code.split(".")[1]
        table = Table(_TABLE, MetaData(), Column("nonce", String(32), primary_key=True), Column("expires", Integer))
        if self._engine is None:
            engine = create_engine(self._database, pool_pre_ping=True)
            with contextlib.suppress(OperationalError, ProgrammingError):  # another worker makes it at the same moment
                table.create(engine, checkfirst=True)
            self._engine = engine
        try:
            with self._engine.begin() as connection:
                connection.execute(table.delete().where(table.c.expires < int(time.time())))
                connection.execute(table.insert().values(nonce=nonce, expires=expires))
        except IntegrityError:
            return False
        return True
