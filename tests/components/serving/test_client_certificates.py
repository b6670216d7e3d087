"""Keys and certificates of clients, as the middleware is told of them by HAProxy."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from raypath.components.serving.api.route_table import RouteTable
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.metering.usage import UsageMeter
from raypath.components.serving.middleware import client_certificates
from raypath.components.serving.middleware.auth import AuthMiddleware
from raypath.deploy.local.tls.authority import Authority, Use, create
from tests.components.serving.test_auth import Answer, App, _ask

PROOF = "f" * 64


class Service:
    """The middleware before an application, told of certificates with PROOF."""

    def __init__(self, folder: Path, meter: UsageMeter) -> None:
        self.folder, self.now = folder, time.time()
        self.authority: Authority = create(folder / "ca", "ca")
        client_certificates.write_settings(folder, PROOF, str(self.authority.revoked))
        self.app, self.keys = App(), KeyStore(folder)
        routes = RouteTable(["/predict", "/healthz"])
        self.access = AuthMiddleware(self.app, folder, meter, routes, clock=lambda: self.now)

    def issue(self, name: str, days: int = 1) -> bytes:
        return x509.load_pem_x509_certificate(self.authority.issue(name, [], Use.CLIENT, days)[0]).public_bytes(
            Encoding.DER
        )

    def ask(self, text: str = "", certificate: bytes = b"", proof: str = PROOF) -> Answer:
        headers = [("Authorization", f"Bearer {text}")] if text else []
        if certificate:
            headers.append(("X-Raypath-Client-Certificate", base64.b64encode(certificate).decode()))
            headers.append(("X-Raypath-Proof", proof))
        return asyncio.run(_ask(self.access, *headers))


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    meter = UsageMeter(tmp_path / "usage", "r0", period=600, model="reviews/1")
    yield Service(tmp_path, meter)
    meter.close()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_certificates, "RELOAD_SECONDS", 0.0)


@pytest.mark.parametrize("subject", ["alice", "CN=alice"])
def test_a_bound_key_needs_its_certificate(service: Service, subject: str) -> None:
    _, text = service.keys.create("anna", certificate=subject)
    alice, bob = service.issue("alice"), service.issue("bob")
    assert service.ask(text, alice).status == 200
    for answer in (
        service.ask(text),
        service.ask(text, bob),
        service.ask(text, alice, proof="0" * 64),
        service.ask(text, alice, proof=""),
        service.ask("", alice),
    ):
        assert (answer.status, answer.read) == (401, False)
    assert {name for name, _ in service.app.scopes[-1]["headers"]} == set(), "neither key nor certificate goes further"


def test_a_certificate_alone_stands_for_a_key_without_a_secret(service: Service) -> None:
    key, text = service.keys.create("anna", certificate="alice", secret=False)
    assert text == ""
    alice = service.issue("alice")
    assert service.ask("", alice).status == 200
    assert service.app.scopes[-1]["raypath.key"] == key.id
    assert service.ask(f"rp_{key.id}_").status == 401
    assert service.ask(f"rp_{key.id}_", alice).status == 401
    assert service.ask("", alice, proof="0" * 64).status == 401
    assert (service.ask("", service.issue("bob"))).status == 401


def test_a_key_that_is_not_bound_works_beside_any_certificate(service: Service) -> None:
    _, text = service.keys.create("anna")
    assert (service.ask(text, service.issue("bob"))).status == 200
    assert service.ask(text).status == 200


def test_revoked_and_expired_certificates_end_open_connections(service: Service) -> None:
    _, text = service.keys.create("anna", certificate="alice")
    alice = service.issue("alice")
    assert service.ask(text, alice).status == 200
    service.now += 2 * 86_400
    assert service.ask(text, alice).problem()["detail"] == "the client certificate has expired"
    service.now -= 2 * 86_400
    service.authority.revoke([x509.load_der_x509_certificate(alice)])
    assert service.ask(text, alice).problem()["detail"] == "the client certificate is revoked"
    service.authority.revoked.write_text("unfinished -----BEGIN X509 CRL-----")
    assert service.ask(text, alice).status == 401, "what is known of revocations stays"
    assert (service.ask(text, service.issue("alice"))).status == 200


def test_without_a_listener_for_certificates_none_counts(service: Service) -> None:
    _, text = service.keys.create("anna", certificate="alice")
    client_certificates.write_settings(service.folder, "", "")
    assert (service.ask(text, service.issue("alice"))).status == 401
