"""Expiry of the certificates of an endpoint: those of its public listener, and that of Ray's node."""

from __future__ import annotations

import asyncio
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raypath.components.serving.observability.metrics import Metrics

FOLDER = "RAYPATH_CERTIFICATES"
"""Environment variable of a head: folder of the PEM files that HAProxy uses, named as in LISTENER."""
NODE = "RAY_TLS_SERVER_CERT"
"""Environment variable of Ray: certificate of this node."""
LISTENER = {"cert": "endpoints", "ca-file": "authority of clients", "crl-file": "revocation list"}
"""Names of the files of a public listener, by HAProxy's kind of file."""
SECONDS = 60.0
"""Seconds between two readings."""
_LIST = b"-----BEGIN X509 CRL-----"


def expirations() -> dict[str, float]:
    """Return the Unix times at which certificates and revocation lists end, by name; files that cannot be read are left
    out.
    """
    files = {}
    if folder := os.environ.get(FOLDER):
        files = {name: Path(folder) / f"{kind}.pem" for kind, name in LISTENER.items()}
    if os.environ.get("RAY_USE_TLS") == "1" and (node := os.environ.get(NODE)):
        files["Ray node"] = Path(node)
    found = {name: _end(file) for name, file in files.items()}
    return {name: end.timestamp() for name, end in found.items() if end is not None}


async def watch_certificates(metrics: Metrics, seconds: float = SECONDS) -> None:
    """Set `raypath_certificate_expiry_seconds` again and again, in a process that has certificates."""
    while found := await asyncio.to_thread(expirations):
        for name, end in found.items():
            metrics.gauge("raypath_certificate_expiry_seconds", end, name)
        await asyncio.sleep(seconds)


def _end(file: Path) -> datetime | None:
    """Return when the first of a file's certificates or lists ends, None if it has none that ends."""
    from cryptography import x509

    try:
        text = file.read_bytes()
        if _LIST in text:
            lists = [x509.load_pem_x509_crl(_LIST + part) for part in text.split(_LIST)[1:]]
            ends = [end for each in lists if (end := each.next_update_utc)]
        else:
            ends = [each.not_valid_after_utc for each in x509.load_pem_x509_certificates(text)]
    except (OSError, ValueError):
        return None
    return min(ends, default=None)
