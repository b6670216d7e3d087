"""Certificates of clients (mutual TLS) that HAProxy has verified and passes on in a header.

The header counts only with a secret that HAProxy and the replicas share, so that no client can make one up on another
way to a replica. Revocation and expiry are checked again at each request: HAProxy checks when a connection begins.

    tls.json    in the folder of the keys: the secret, and the file of the revocation lists; mode 0600
"""

from __future__ import annotations

import base64
import binascii
import functools
import hmac
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from raypath.components.core.files import file_stamp, write_atomically
from raypath.components.serving.metering.api_keys import RELOAD_SECONDS
from raypath.components.serving.metering.holder import AccessError

CERTIFICATE, PROOF = b"x-raypath-client-certificate", b"x-raypath-proof"
HEADERS = (CERTIFICATE, PROOF)
_BEGIN = b"-----BEGIN X509 CRL-----"
_log = logging.getLogger(__name__)


class Settings(BaseModel, frozen=True, extra="forbid"):
    """tls.json."""

    proof: str
    revoked: str = ""
    """File of the revocation lists, "" without one."""


@dataclass(frozen=True)
class ClientCertificate:
    """Verified certificate. subject: RFC 4514; common_name: "" without one; issuer: the DER of its name."""

    subject: str
    common_name: str
    serial: int
    issuer: bytes
    begins: float
    ends: float

    def is_of(self, subject: str) -> bool:
        """Return True if a subject, or a common name where it has no `=`, is that of this certificate."""
        return bool(subject) and subject == (self.subject if "=" in subject else self.common_name)


def write_settings(folder: Path, proof: str, revoked: str) -> None:
    """Tell the services of a folder of keys how certificates are passed on; proof "": that none are."""
    file = folder / "tls.json"
    if proof:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(file, Settings(proof=proof, revoked=revoked).model_dump_json())
    else:
        file.unlink(missing_ok=True)


class ClientCertificates:
    """Certificates of the clients of a folder of keys."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "tls.json"
        self._settings: Settings | None = None
        self._revoked: frozenset[tuple[bytes, int]] = frozenset()
        self._stamp: tuple[int, ...] | None = None
        self._list_stamp: tuple[int, ...] | None = None
        self._checked_at = float("-inf")

    def find(self, headers: Any, now: float) -> ClientCertificate | None:
        """Return the certificate of a request's connection at a Unix time, None without one. Raises AccessError 401."""
        found = [value for name, value in headers if name == CERTIFICATE]
        if not found:
            return None
        self._reload()
        proofs = [value for name, value in headers if name == PROOF]
        given = proofs[0] if len(proofs) == 1 else b""
        if self._settings is None or not hmac.compare_digest(given, self._settings.proof.encode()) or len(found) > 1:
            return None
        certificate = _parsed(found[0])
        if certificate is None:
            raise AccessError(401, "the client certificate cannot be read")
        if (certificate.issuer, certificate.serial) in self._revoked:
            raise AccessError(401, "the client certificate is revoked")
        if not certificate.begins <= now < certificate.ends:
            raise AccessError(401, "the client certificate has expired")
        return certificate

    def _reload(self) -> None:
        """Read what has changed; a file that cannot be read leaves what is known valid."""
        now = time.monotonic()
        if now - self._checked_at < RELOAD_SECONDS:
            return
        self._checked_at = now
        try:
            if (stamp := file_stamp(self._file)) != self._stamp:
                text = self._file.read_bytes() if stamp != (0,) else b""
                self._settings = Settings.model_validate_json(text) if text else None
                self._stamp, self._list_stamp = stamp, None
            file = Path(self._settings.revoked) if self._settings and self._settings.revoked else None
            if file and (stamp := file_stamp(file)) != self._list_stamp:
                self._revoked, self._list_stamp = _serials(file.read_bytes()), stamp
        except (ValueError, OSError) as error:
            _log.error("settings of client certificates cannot be read, the known ones stay: %s", type(error).__name__)


@functools.lru_cache(maxsize=4096)
def _parsed(text: bytes) -> ClientCertificate | None:
    from cryptography import x509

    try:
        found = x509.load_der_x509_certificate(base64.b64decode(text, validate=True))
        names = found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        name = str(names[0].value) if len(names) == 1 else ""
        begins, ends = found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
        issuer = found.issuer.public_bytes()
        return ClientCertificate(found.subject.rfc4514_string(), name, found.serial_number, issuer, begins, ends)
    except (ValueError, binascii.Error):
        return None


def _serials(text: bytes) -> frozenset[tuple[bytes, int]]:
    """Return issuers and serial numbers of the certificates in revocation lists. Raises ValueError."""
    from cryptography import x509

    lists = [x509.load_pem_x509_crl(_BEGIN + part) for part in text.split(_BEGIN)[1:]]
    return frozenset((each.issuer.public_bytes(), entry.serial_number) for each in lists for entry in each)
