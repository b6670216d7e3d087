"""Certificates of a project below HOME/tls: make, renew, revoke."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from raypath.components.core.errors import UserError
from raypath.components.core.files import locked, new_file
from raypath.deploy.local.tls.authority import DAYS, RENEWED_DAYS, Authority, Use, create, write_pair

if TYPE_CHECKING:
    from cryptography import x509

_NAME = re.compile(r"\w[\w .@+-]{0,63}")
_REPLACED = re.compile(r"\.replaced-[0-9a-f]+")


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
    server = ProjectFiles(home).server
    with _endpoints_authority(home) as authority:
        before = load(server) if server.exists() else None
        wanted = list(dict.fromkeys(hosts)) or (hosts_of(before) if before else default_hosts())
        if before and not renew and hosts_of(before) == wanted and _lasts(before) and authority.made(before):
            return False
        write_pair(server, *authority.issue(_common_name(wanted), wanted, Use.SERVER, days))
    return True


def make_client(home: Path, name: str, days: int = DAYS) -> Path:
    """Make a client's certificate; returns its file.

    The one before stays valid, so that the client can change it at leisure. Its file is renamed, by which
    `revoke_client` finds it.
    """
    file = ProjectFiles(home).client(name)
    with _endpoints_authority(home) as authority:
        made = authority.issue(name, [], Use.CLIENT, days)
        if file.exists():
            file.rename(file.with_name(f"{file.stem}.replaced-{load(file).serial_number:x}"))
        write_pair(file, *made)
    return file


def make_node(home: Path, name: str, hosts: Sequence[str], days: int = DAYS) -> list[Path]:
    """Make the certificate of a Ray node; returns the files of certificate, key and authority."""
    folder = ProjectFiles(home).ray
    paths = [folder / f"{checked_name(name)}.crt", folder / f"{name}.key"]
    with _authority(folder, _authority_name(home, "Ray")) as authority:
        made = authority.issue(name, dict.fromkeys([*hosts, "127.0.0.1", "localhost"]), Use.NODE, days)
        for path, text in zip(paths, made, strict=True):
            with new_file(path) as out:
                out.write(text)
    return [*paths, authority.file]


def node_environment(home: Path, name: str) -> dict[str, str]:
    """Return Ray's variables for a node, or a driver, that has the certificate of this name."""
    folder = ProjectFiles(home).ray
    files = {"SERVER_CERT": f"{name}.crt", "SERVER_KEY": f"{name}.key", "CA_CERT": "ca.pem"}
    return {"RAY_USE_TLS": "1", **{f"RAY_TLS_{variable}": str(folder / file) for variable, file in files.items()}}


def revoke_client(home: Path, name: str) -> int:
    """Revoke all certificates of a client, also those that were replaced; returns their number. Raises UserError.

    Their files are kept, renamed.
    """
    files = ProjectFiles(home)
    file = files.client(name)
    if not file.parent.is_dir():
        raise UserError(f"no client {name}", fix="see `raypath tls show`")
    with _endpoints_authority(home) as authority:
        replaced = [path for path in file.parent.iterdir() if _REPLACED.fullmatch(path.name.removeprefix(file.stem))]
        found = {path: load(path) for path in [file, *replaced] if path.exists()}
        if not found:
            raise UserError(f"no client {name}", fix="see `raypath tls show`")
        authority.revoke(found.values())
        for path, certificate in found.items():
            path.rename(file.with_name(f"{file.stem}.revoked-{certificate.serial_number:x}"))
    return len(found)


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


@contextmanager
def _endpoints_authority(home: Path) -> Iterator[Authority]:
    """Yield the authority of endpoints and clients; a revocation list that is missing is made again before."""
    files = ProjectFiles(home)
    with _authority(files.folder, _authority_name(home, "endpoints")) as found:
        if not found.revoked.exists():
            found.revoke(load(path) for path in sorted((files.folder / "clients").glob("*.revoked-*")))
        yield found


@contextmanager
def _authority(folder: Path, name: str) -> Iterator[Authority]:
    """Yield the authority of a folder, made if there is none; one process at a time changes its files."""
    with locked(folder / ".lock"):
        yield create(folder, name)


def _authority_name(home: Path, what: str) -> str:
    return f"{what} of {home.resolve().parent.name}"[:64] or what


def _common_name(hosts: Sequence[str]) -> str:
    return next((host for host in hosts if len(host) <= 64), "endpoints")
