"""PEM files of a TLS listener: checks, and the copies that HAProxy starts with.

HAProxy starts with copies that are known to be valid, since it would not start with an unfinished or invalid file while
a certificate is replaced; proxy/certificate_reload.lua replaces a copy once HAProxy has accepted the changed file.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path

from raypath.components.core.errors import UserError
from raypath.components.core.files import new_file

KINDS = ("crt", "ca-file", "crl-file")
"""Words of HAProxy's `bind` that a file's path follows."""
_COMMAND = {"crt": "cert"}
"""Words of HAProxy's `set ssl` that differ from those of `bind`."""
_PATH = re.compile(r"[\w/.+-]+")


def check_server_certificate(file: Path, option: str = "--tls") -> None:
    """Raise UserError unless a private file has a certificate with its key."""
    fix = f"give {option} one PEM file with the certificate, then its private key, readable by you alone (chmod 600)"
    _check_path(file, option, fix)
    if file.stat().st_mode & 0o077:
        raise UserError(f"{option} {file}: others may read the private key", fix=f"chmod 600 {file}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file)
    except (ssl.SSLError, OSError):
        raise UserError(f"{option} {file}: not a certificate with its private key", fix=fix) from None


def check_authorities(file: Path, option: str = "--client-ca") -> None:
    """Raise UserError unless a file has certificates of authorities, in PEM."""
    fix = f"give {option} a PEM file with the certificates of the authorities"
    _check_path(file, option, fix)
    try:
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found.load_verify_locations(cafile=file)
        if not found.get_ca_certs():
            raise ssl.SSLError
    except (ssl.SSLError, OSError):
        raise UserError(f"{option} {file}: no certificate of an authority", fix=fix) from None


def check_revocation_list(file: Path, option: str = "--revoked") -> None:
    """Raise UserError unless a file has a revocation list, in PEM."""
    fix = f"give {option} a PEM file with the revocation lists of the authorities"
    _check_path(file, option, fix)
    from cryptography import x509

    try:
        x509.load_pem_x509_crl(file.read_bytes())
    except (ValueError, OSError):
        raise UserError(f"{option} {file}: no revocation list", fix=fix) from None


def _check_path(file: Path, option: str, fix: str) -> None:
    # HAProxy reads the path in its configuration, where other characters have a meaning.
    if not file.is_file() or not _PATH.fullmatch(str(file.resolve())):
        raise UserError(f"{option} {file}: no such file, or a path with odd characters", fix=fix)


def sources_of(public_bind: str) -> dict[str, Path]:
    """Return the files in the arguments of HAProxy's `bind`, by HAProxy's kind of file: cert, ca-file, crl-file."""
    words = public_bind.split()
    return {_COMMAND.get(word, word): Path(words[n + 1]) for n, word in enumerate(words[:-1]) if word in KINDS}


def with_copies(public_bind: str, folder: Path) -> str:
    """Return the arguments of `bind` with the copies in place of the files."""
    words = public_bind.split()
    for n, word in enumerate(words[:-1]):
        if word in KINDS:
            words[n + 1] = str(_copy(folder, _COMMAND.get(word, word)))
    return " ".join(words)


def copy_sources(sources: Mapping[str, Path], folder: Path) -> None:
    """Copy the files for HAProxy, with mode 0600. Raises UserError for one that cannot be read."""
    folder.mkdir(mode=0o700)
    for kind, source in sources.items():
        try:
            text = source.read_bytes()
        except OSError as error:
            raise UserError(f"{source}: {error.strerror}", fix="restore it, or `raypath down`, then `up`") from None
        with new_file(_copy(folder, kind)) as file:
            file.write(text)
    (folder / "sources").write_text("".join(f"{kind} {source}\n" for kind, source in sources.items()))


def reload_error(folder: Path) -> str:
    """Return why HAProxy has not taken up a changed file, "" if it uses them all. folder: of the copies."""
    try:
        return " ".join((folder / "error").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return ""


def _copy(folder: Path, kind: str) -> Path:
    return folder / f"{kind}.pem"
