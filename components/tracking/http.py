"""HTTP requests to the services that Raypath calls: Ray's Jobs API, the Kubernetes API, MLflow and endpoints.

Built on httpx, which is imported with the first request. Redirects are not followed by default, so a token never
reaches another host. Loopback addresses are reached without a proxy; `trust.context` has the authorities that are
trusted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from raypath.components.core.uris import LOOPBACK
from raypath.components.tracking import trust
from raypath.components.tracking.server import peer

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True)
class Response:
    """The status and the body of a response, whatever the status is."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """True for a status below 300."""
        return self.status < 300

    def json(self) -> Any:
        """The decoded body, None where it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


def is_loopback(url: str) -> bool:
    """True for a URL that stays on this machine."""
    return urlsplit(url).hostname in LOOPBACK


def is_foreign(url: str) -> bool:
    """Return True if another user listens at a port of this machine.

    The address of a server outlives it, after a crash or a restart of the machine, and anyone may take a port. A secret
    of a home is sent only where this is False.
    """
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.hostname in LOOPBACK and not peer.is_ours(port)


def check_listener(url: str) -> None:
    """Raise ConnectionError if another user listens at a port of this machine. See `is_foreign`."""
    if is_foreign(url):
        raise ConnectionError("another user's program listens there")


def bearer(token: str) -> dict[str, str]:
    """The header that carries a token; none for an empty token."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def send(
    method: str,
    url: str,
    *,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 20.0,
    proxy: bool = True,
    follow_redirects: bool = False,
    ca_file: str | None = None,
) -> Response:
    """Send a request and read its response.

    Args:
        timeout: seconds to connect, and between two reads or writes; a long upload is not cut off while bytes move.
        proxy: use the proxy of the environment, except for loopback addresses.
        ca_file: certificates to trust instead of the system's and those of $RAYPATH_CA_FILE.

    Raises:
        ConnectionError: no response came.
        UserError: a file of authorities has none.
    """
    import httpx

    headers = {"Content-Type": "application/json", **(headers or {})}
    use_environment = proxy and not is_loopback(url)
    try:
        with httpx.Client(
            verify=_tls(url, ca_file), trust_env=use_environment, timeout=timeout, follow_redirects=follow_redirects
        ) as client:
            reply = client.request(method, url, content=body, headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise ConnectionError(str(error) or type(error).__name__) from None
    return Response(reply.status_code, reply.content)


def _tls(url: str, ca_file: str | None) -> ssl.SSLContext:
    import ssl

    # Loading the system's certificates takes tens of milliseconds, which plain HTTP need not wait for.
    return trust.context(ca_file) if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
