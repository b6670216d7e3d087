"""Authorities that clients of TLS trust: the system's and those of $RAYPATH_CA_FILE, or those of one file alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from raypath.components.core.errors import UserError

if TYPE_CHECKING:
    import ssl

CA_FILE = "RAYPATH_CA_FILE"
"""Environment variable: PEM file of authorities that are trusted beside the system's, such as `.raypath/tls/ca.pem`."""


def context(ca_file: str | Path | None = None) -> ssl.SSLContext:
    """Return a context that verifies servers. Raises UserError for a file without certificates.

    ca_file: PEM file of the only authorities to trust; None for the system's and those of $RAYPATH_CA_FILE.
    """
    import ssl

    if ca_file is not None:
        return _load(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), str(ca_file), str(ca_file))
    found = ssl.create_default_context()
    more = os.environ.get(CA_FILE, "")
    return _load(found, more, f"${CA_FILE}: {more}") if more else found


def verification(verify: object, url: str) -> object:
    """Return the argument `verify` of httpx for a URL. Raises UserError for a file without certificates.

    verify: True, False, a context, or a PEM file of the only authorities to trust.
    """
    if isinstance(verify, str | Path):
        return context(verify)
    # Without the variable, httpx loads its own list with the first request, and not for plain HTTP.
    return context() if verify is True and os.environ.get(CA_FILE) and url.startswith("https:") else verify


def untrusted(error: BaseException | None) -> str:
    """Return why the certificate of a server was rejected, "" for an error with another cause."""
    import ssl

    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message)
        error = error.__cause__ or error.__context__  # httpcore raises "from None"
    return ""


def _load(found: ssl.SSLContext, file: str, named: str) -> ssl.SSLContext:
    import ssl

    try:
        found.load_verify_locations(cafile=file)
    except OSError as error:  # ssl.SSLError is one
        reason = (error.strerror or "").lower() if type(error) is not ssl.SSLError else "no certificate"
        raise UserError(
            f"{named}: {reason}", fix="give a PEM file of authorities, such as .raypath/tls/ca.pem"
        ) from None
    return found
