"""Certificates of a project below HOME/tls: make, renew, revoke."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from raypath.components.core.errors import UserError
from raypath.components.core.files import new_file
from raypath.deploy.local.tls.authority import DAYS, RENEWED_DAYS, Authority, Use, create, open_authority, write_pair

if TYPE_CHECKING:
    from cryptography import x509

_NAME = re.compile(r"\w[\w .@+-]{0,63}")


@dataclass(frozen=True)
class ProjectFiles:
    """Files of a home's certificates."""

    home: Path

    @property
    def folder(self) -> Path:
        """Folder of the authority for endpoints and clients."""
        return self.home / "tls"

    @property
    def authority(self) -> Path:
        """Certificate that clients of the endpoints trust."""
        return self.folder / "ca.pem"

    @property
    def server(self) -> Path:
        """Certificate and key of the endpoints."""
        return self.folder / "server.pem"

    @property
    def revoked(self) -> Path:
        """Revocation list."""
        return self.folder / "revoked.pem"

    @property
    def ray(self) -> Path:
        """Folder of the authority for Ray's nodes."""
        return self.folder / "ray"

    def client(self, name: str) -> Path:
        """Certificate and key of a client. Raises UserError for a name that is no file name."""
        return self.folder / "clients" / f"{checked_name(name)}.pem"


def checked_name(name: str) -> str:
    """Return a name of a client or a node. Raises UserError."""
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name", fix="use letters, digits and . _ - @ +, at most 64")
    return name


def default_hosts() -> list[str]:
    """Return the names and addresses of this machine by which others may call it."""
    name = socket.gethostname()
    found = {"localhost": None, "127.0.0.1": None, name: None, socket.getfqdn(): None}
    with suppress(OSError):  # its own name may not be known to it
        found |= {str(info[4][0]): None for info in socket.getaddrinfo(name, None, socket.AF_INET)}
    return [host for host in found if host and not host.endswith(".arpa")]


def ensure_server(home: Path, hosts: Sequence[str] = (), *, days: int = DAYS, renew: bool = False) -> bool:
    """Make the authority and the endpoints' certificate, or renew it: for other hosts, or 30 days before its end.

    Returns True if the certificate is new. hosts: names and addresses; () keeps those of the certificate there is.
    """
    files = ProjectFiles(home)
    authority = create(files.folder, _authority_name(home, "endpoints"))
    before = load(files.server) if files.server.exists() else None
    wanted = list(dict.fromkeys(hosts)) or (hosts_of(before) if before else default_hosts())
    if before and not renew and hosts_of(before) == wanted and _lasts(before) and _is_of(before, authority):
        return False
    write_pair(files.server, *authority.issue(_common_name(wanted), wanted, Use.SERVER, days))
    return True


def make_client(home: Path, name: str, days: int = DAYS) -> Path:
    """Make a client's certificate, or a new one in its place; returns its file."""
    files = ProjectFiles(home)
    file = files.client(name)
    authority = create(files.folder, _authority_name(home, "endpoints"))
    write_pair(file, *authority.issue(name, [], Use.CLIENT, days))
    return file


def make_node(home: Path, name: str, hosts: Sequence[str], days: int = DAYS) -> list[Path]:
    """Make the certificate of a Ray node; returns the files of certificate, key and authority."""
    files = ProjectFiles(home)
    authority = create(files.ray, _authority_name(home, "Ray"))
    made = authority.issue(checked_name(name), dict.fromkeys([*hosts, "127.0.0.1", "localhost"]), Use.NODE, days)
    paths = [files.ray / f"{name}.crt", files.ray / f"{name}.key"]
    for path, text in zip(paths, made, strict=True):
        with new_file(path) as out:
            out.write(text)
    return [*paths, authority.file]


def revoke_client(home: Path, name: str) -> None:
    """Revoke a client's certificate. Its file is kept, renamed. Raises UserError."""
    files = ProjectFiles(home)
    file = files.client(name)
    if not file.exists():
        raise UserError(f"no client {name}", fix="see `raypath tls show`")
    open_authority(files.folder).revoke([found := load(file)])
    file.rename(file.with_name(f"{file.stem}.revoked-{found.serial_number:x}"))


def load(file: Path) -> x509.Certificate:
    """Read the first certificate of a PEM file. Raises UserError."""
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(file.read_bytes())[0]
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}", fix="see `raypath tls show`") from None
    except ValueError:
        raise UserError(f"{file} has no certificate", fix="wanted PEM: -----BEGIN CERTIFICATE-----") from None


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses for which a certificate is."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [str(each.value) for each in names if isinstance(each, x509.DNSName | x509.IPAddress)]


def _lasts(certificate: x509.Certificate) -> bool:
    return certificate.not_valid_after_utc - datetime.now(UTC) > timedelta(days=RENEWED_DAYS)


def _is_of(certificate: x509.Certificate, authority: Authority) -> bool:
    return certificate.issuer == authority.certificate.subject


def _authority_name(home: Path, what: str) -> str:
    return f"{what} of {home.resolve().parent.name}"[:64] or what


def _common_name(hosts: Sequence[str]) -> str:
    return next((host for host in hosts if len(host) <= 64), "endpoints")
