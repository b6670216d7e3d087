"""Certificate authority of a project: certificates for servers, clients and Ray nodes, and their revocation.

    ca.pem, ca.key     the authority, for ten years          clients/NAME.pem   a client's certificate and key
    server.pem         the endpoints' certificate and key    revoked.pem        revocation list of the authority
    ray/               an authority of its own for Ray's nodes, with NODE.crt and NODE.key: a client's certificate
                       must not open Ray's ports

Keys are on the curve P-256 and unencrypted; all files have mode 0600. Whoever reads `ca.key` can pretend to be any
server or client of the project.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from raypath.components.core.errors import PlatformError, UserError
from raypath.components.core.files import new_file

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

AUTHORITY_DAYS = 3650
DAYS = 365
"""Days for which certificates of servers, clients and nodes are valid."""
RENEWED_DAYS = 30
"""Days before its end from which a certificate is renewed, and its expiry is warned of."""
_HOST = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?")
_LONGEST = 64
"""Characters of a common name (X.520)."""


class Use(StrEnum):
    """Use of a certificate."""

    SERVER = "server"
    CLIENT = "client"
    NODE = "node"
    """Both: a node of Ray calls and is called."""


@dataclass(frozen=True)
class Authority:
    """Authority that is stored in a folder."""

    folder: Path
    certificate: x509.Certificate
    key: EllipticCurvePrivateKey

    @property
    def file(self) -> Path:
        """Certificate of the authority, which clients trust."""
        return self.folder / "ca.pem"

    @property
    def revoked(self) -> Path:
        """Revocation list."""
        return self.folder / "revoked.pem"

    def issue(self, name: str, hosts: Iterable[str], use: Use, days: int = DAYS) -> tuple[bytes, bytes]:
        """Return a new certificate and its key as PEM. hosts: DNS names and IP addresses. Raises UserError."""
        from cryptography import x509
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = ec.generate_private_key(ec.SECP256R1())
        usages = {Use.SERVER: [ExtendedKeyUsageOID.SERVER_AUTH], Use.CLIENT: [ExtendedKeyUsageOID.CLIENT_AUTH]}
        usages[Use.NODE] = [*usages[Use.SERVER], *usages[Use.CLIENT]]
        made = _builder(name, self.certificate.subject, key, days, self.certificate.not_valid_after_utc)
        made = made.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        made = made.add_extension(_key_usage(authority=False), critical=True)
        made = made.add_extension(x509.ExtendedKeyUsage(usages[use]), critical=False)
        if names := [_host(each) for each in hosts]:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = made.add_extension(_authority_id(self.certificate), critical=False)
        return _pem(_signed(made, self.key)), _key_pem(key)

    def revoke(self, certificates: Iterable[x509.Certificate]) -> None:
        """Add certificates to the revocation list; without any, renew it."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.serialization import Encoding

        now = datetime.now(UTC).replace(microsecond=0)
        before = self._revocations()
        known = {entry.serial_number for entry in before}
        for each in certificates:
            if each.serial_number not in known:
                entry = x509.RevokedCertificateBuilder(each.serial_number, now)
                before.append(entry.build())
        end = self.certificate.not_valid_after_utc
        made = x509.CertificateRevocationListBuilder(self.certificate.subject, now, end, [], before)
        made = made.add_extension(_authority_id(self.certificate), critical=False)
        made = made.add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        _write(self.revoked, made.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def made(self, certificate: x509.Certificate) -> bool:
        """Return True for a certificate that this authority has signed."""
        from cryptography.exceptions import InvalidSignature

        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True

    def _revocations(self) -> list[x509.RevokedCertificate]:
        from cryptography import x509

        try:
            return list(x509.load_pem_x509_crl(self.revoked.read_bytes()))
        except FileNotFoundError:
            return []
        except ValueError:
            fix = "restore a copy, or remove it and run the same command again, which makes it from the clients' files"
            raise PlatformError(f"{self.revoked} is corrupt", fix=fix) from None


def create(folder: Path, name: str) -> Authority:
    """Return the authority of a folder, which is made where there is none. Raises PlatformError.

    The caller has the lock of the folder: of two authorities at once, one would lose its key.
    """
    if (folder / "ca.pem").exists():
        return open_authority(folder)
    if any(path for pattern in ("server.pem", "clients/*.pem", "*.crt") for path in folder.glob(pattern)):
        what = f"{folder / 'ca.pem'} is missing, and certificates in {folder} were made by it"
        raise PlatformError(what, fix="restore a copy, or remove the folder to begin with a new authority")
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(name)
    made = _builder(name, subject, key, AUTHORITY_DAYS, datetime.max.replace(tzinfo=UTC))
    made = made.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    made = made.add_extension(_key_usage(authority=True), critical=True)
    # The key first: an authority without one could not be used.
    _write(folder / "ca.key", _key_pem(key))
    _write(folder / "ca.pem", _pem(_signed(made, key)))
    found = open_authority(folder)
    found.revoke([])
    return found


def open_authority(folder: Path) -> Authority:
    """Read an authority. Raises UserError for none, PlatformError for a corrupt one."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
    except FileNotFoundError as error:
        fix = "restore a copy, or remove the folder" if (folder / "ca.pem").exists() else "`raypath tls init` makes it"
        raise UserError(f"{error.filename} does not exist", fix=fix) from None
    except ValueError:
        raise PlatformError(f"{folder} has a corrupt authority", fix="restore a copy, or remove the folder") from None
    if key.public_key() != certificate.public_key():
        raise PlatformError(f"ca.key is not the key of {folder / 'ca.pem'}", fix="restore a copy of both")
    return Authority(folder, certificate, key)  # type: ignore[arg-type]


def write_pair(file: Path, certificate: bytes, key: bytes) -> None:
    """Write a certificate and its key into one file, atomically; mode 0600."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(file, certificate + key)


def _write(file: Path, text: bytes) -> None:
    with new_file(file) as out:
        out.write(text)


def _name(text: str) -> x509.Name:
    from cryptography import x509

    if not 0 < len(text) <= _LONGEST or not text.isprintable():
        raise UserError(f"the name {text!r} is too long for a certificate", fix=f"at most {_LONGEST} characters")
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def _host(text: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ip_address(text))
    except ValueError:
        pass
    with suppress(UnicodeError):
        name = text.encode("idna").decode()
        if _HOST.fullmatch(name):
            return x509.DNSName(name)
    raise UserError(f"{text!r} is no host name", fix="give a DNS name or an IP address, without scheme and port")


def _builder(
    name: str, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int, end: datetime
) -> x509.CertificateBuilder:
    from cryptography import x509

    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)  # clocks differ
    made = x509.CertificateBuilder().subject_name(_name(name)).issuer_name(issuer).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(begin)
    made = made.not_valid_after(min(begin + timedelta(days=days), end))
    return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _key_usage(authority: bool) -> x509.KeyUsage:
    from cryptography import x509

    no = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **no)


def _authority_id(authority: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    from cryptography import x509

    found = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found.value)


def _signed(made: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography.hazmat.primitives import hashes

    return made.sign(key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
