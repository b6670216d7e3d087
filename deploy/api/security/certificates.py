"""Certificates of TLS: those of the project, those of the public listener, and when they end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from raypath.components.core.errors import UserError
from raypath.components.serving.observability.certificates import LISTENER
from raypath.deploy.api.results import CertificateStatus
from raypath.deploy.local import state
from raypath.deploy.local.tls import files, project
from raypath.deploy.local.tls.authority import RENEWED_DAYS
from raypath.deploy.local.tls.project import ProjectFiles


def certificates(home: Path) -> list[CertificateStatus]:
    """Return the certificates of a project and of its public listener, with their expiry."""
    found = {each.file: each for each in [*listener_certificates(home), *_project(ProjectFiles(home))]}
    return list(found.values())


def listener_certificates(home: Path) -> list[CertificateStatus]:
    """Return the certificates of the public listener; a message where HAProxy has not taken up a changed file."""
    folder = state.scratch(home) / "ha" / "tls"
    error = files.reload_error(folder)
    found = []
    for kind, file in files.sources_of(state.read(home).public_bind).items():
        made = _described(LISTENER[kind], file)
        if str(file) in error:
            made = made.model_copy(update={"state": "not loaded", "message": error[error.index(str(file)) :]})
        found.append(made)
    return found


def _project(own: ProjectFiles) -> Iterator[CertificateStatus]:
    for name, file in (("authority", own.authority), ("endpoints", own.server), ("revocation list", own.revoked)):
        if file.exists():
            yield _described(name, file)
    for file in sorted((own.folder / "clients").glob("*.pem")):
        yield _described(f"client {file.stem}", file)
    if (own.ray / "ca.pem").exists():
        yield _described("authority of Ray nodes", own.ray / "ca.pem")
    for file in sorted(own.ray.glob("*.crt")):
        yield _described(f"Ray node {file.stem}", file)


def _described(name: str, file: Path) -> CertificateStatus:
    try:
        subject, hosts, end = _list_facts(file) if name == "revocation list" else _facts(file)
    except UserError as error:
        return CertificateStatus(
            name=name, file=str(file), subject="", hosts=[], expires=None, days_left=None, state="invalid",
            message=error.what,
        )  # fmt: skip
    days = (end - datetime.now(UTC)).days
    now: Literal["valid", "expires soon", "expired"] = (
        "expired" if days < 0 else "expires soon" if days < RENEWED_DAYS else "valid"
    )
    fix = "renew it with `raypath tls init`" if file.parent.name in ("tls", "ray", "clients") else "replace the file"
    message = "" if now == "valid" else f"{'ended' if days < 0 else 'ends'} on {end:%Y-%m-%d}; {fix}"
    return CertificateStatus(
        name=name, file=str(file), subject=subject, hosts=hosts, expires=end, days_left=days, state=now, message=message
    )


def _facts(file: Path) -> tuple[str, list[str], datetime]:
    found = project.load(file)
    return found.subject.rfc4514_string(), project.hosts_of(found), found.not_valid_after_utc


def _list_facts(file: Path) -> tuple[str, list[str], datetime]:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_crl(file.read_bytes())
    except (OSError, ValueError):
        raise UserError(f"{file} has no revocation list") from None
    return found.issuer.rfc4514_string(), [], found.next_update_utc or datetime.max.replace(tzinfo=UTC)
