"""HAProxy as Ray Serve starts it, through our script, with the configuration that Ray's own template gives."""

from __future__ import annotations

import importlib
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from unittest import mock

from raypath.deploy.local import haproxy
from tests.waiting import free_port

PACKAGE = "ray.serve._private"
READERS = ("constants", "haproxy_templates", "haproxy")
"""Modules of Ray that read the environment when they are imported, or take what another one has read."""
Started = subprocess.Popen[bytes]


def certificate(folder: Path) -> Path:
    """A certificate of our own for localhost, and its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    plain, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    text = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    file = folder / "tls.pem"
    file.touch(mode=0o600)
    file.write_bytes(text + key.private_bytes(serialization.Encoding.PEM, plain, none))
    return file


@contextmanager
def front(
    folder: Path, servers: Sequence[int], route: str = "/", public_bind: str = "", below: str = ""
) -> Iterator[int]:
    """The port of an HAProxy that hands to servers on these ports. The folder's path has to be short.

    below: folder in it for the configuration, as Ray makes one for each node.
    """
    folder.mkdir(exist_ok=True)
    haproxy.prepare(folder, public_bind)
    process, port = _started(folder, servers, route, below)
    with process:
        try:
            yield port
        finally:
            process.terminate()


def _started(folder: Path, servers: Sequence[int], route: str, below: str) -> tuple[Started, int]:
    """HAProxy and its port; with other ports again where another program took one meanwhile."""
    for _ in range(3):
        told, port = haproxy.environment({name: free_port() for name in haproxy.PORTS}, folder), free_port()
        if below:
            (folder / below).mkdir(exist_ok=True)
            told |= {
                name: value.replace(str(folder), str(folder / below))
                for name, value in told.items()
                if not name.endswith("BINARY_PATH")
            }
        _write(told, route, port, servers)
        starter, config = told["RAY_SERVE_HAPROXY_BINARY_PATH"], told["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([starter, "-db", "-f", config], stderr=log)
        if _listens(process, port):
            return process, port
        process.kill()
        status, said = process.wait(), (folder / "log").read_text(errors="replace")
        if "cannot bind" not in said:
            break
    raise AssertionError(f"HAProxy did not begin: {status}; {said[-2_000:]}")


def _listens(process: Started, port: int) -> bool:
    """Wait until it listens; false where it ends instead."""
    end = time.monotonic() + 20
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port)).close()
            return True
        time.sleep(0.05)
    return False


def _write(environment: Mapping[str, str], route: str, port: int, servers: Sequence[int]) -> None:
    """Write the configuration that Ray would in this environment, to where it says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.serve.config import HTTPOptions

        with _read_anew(environment) as haproxy:
            names = {f"replica_{n}": at for n, at in enumerate(servers)}
            there = [haproxy.ServerConfig(name=name, host="127.0.0.1", port=at) for name, at in names.items()]
            backend = haproxy.BackendConfig(name="http-m", path_prefix=route, app_name="m", servers=there)
            config = haproxy.HAProxyConfig(http_options=HTTPOptions(host="127.0.0.1", port=port), is_head=True)
            config.has_received_routes = config.has_received_servers = True
            haproxy.HAProxyApi(config, {"m": backend})._generate_config_file_internal()


@contextmanager
def _read_anew(environment: Mapping[str, str]) -> Iterator[ModuleType]:
    """Ray's module for HAProxy as a process with this environment has it; one would take seconds to start."""
    before = {name: importlib.import_module(f"{PACKAGE}.{name}") for name in READERS}
    package = sys.modules[PACKAGE]
    with mock.patch.dict(os.environ, environment), mock.patch.dict(sys.modules):
        for name in READERS:
            del sys.modules[f"{PACKAGE}.{name}"]
        try:
            yield importlib.import_module(f"{PACKAGE}.haproxy")
        finally:
            for name, module in before.items():
                setattr(package, name, module)
