"""Expiry of certificates as a metric: which files are read, that a change is seen, and the alerts."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from raypath.components.serving.observability import certificates
from raypath.components.serving.observability.metrics import Metrics
from raypath.deploy.local import haproxy
from raypath.deploy.local.tls import files, project

NAME = "raypath_certificate_expiry_seconds"
DAY = 86_400
RULES = Path(__file__).parents[3] / "k8s" / "components" / "monitoring" / "rules.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The copies that HAProxy starts with, as a head's environment names them."""
    project.ensure_server(tmp_path, ["localhost"], days=40)
    own, made = project.ProjectFiles(tmp_path), tmp_path / "ha" / "tls"
    made.parent.mkdir()
    bind = f"0.0.0.0:8443 ssl crt {own.server} ca-file {own.authority} verify required crl-file {own.revoked}"
    files.copy_sources(files.sources_of(bind), made)
    (made.parent / "haproxy").touch()
    told = haproxy.environment(dict.fromkeys(haproxy.PORTS, 1), made.parent)
    monkeypatch.setenv(certificates.FOLDER, told[certificates.FOLDER])
    return made


def _end(file: Path) -> float:
    return project.load(file).not_valid_after_utc.timestamp()


def test_the_files_of_the_listener_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = certificates.expirations()
    assert set(found) == {"endpoints", "authority of clients", "revocation list"}
    assert found["endpoints"] == _end(folder / "cert.pem")
    assert found["revocation list"] == pytest.approx(found["authority of clients"], abs=600)
    assert found["authority of clients"] - found["endpoints"] > 3000 * DAY
    (folder / "crl-file.pem").write_text("-----BEGIN X509 CRL-----\nnothing\n")
    (folder / "ca-file.pem").unlink()
    assert set(certificates.expirations()) == {"endpoints"}
    node, _, _ = project.make_node(folder.parent.parent, "n1", ["10.0.0.1"], days=7)
    monkeypatch.setenv(certificates.NODE, str(node))
    assert set(certificates.expirations()) == {"endpoints"}, "Ray does not use it"
    monkeypatch.setenv("RAY_USE_TLS", "1")
    assert certificates.expirations()["Ray node"] == _end(node)


def test_the_first_certificate_of_a_chain_that_ends_counts(folder: Path) -> None:
    own = project.ProjectFiles(folder.parent.parent)
    (folder / "cert.pem").write_bytes(own.authority.read_bytes() + own.server.read_bytes())
    assert certificates.expirations()["endpoints"] == _end(own.server)


def test_a_renewed_certificate_is_seen(folder: Path) -> None:
    own, metrics, first = project.ProjectFiles(folder.parent.parent), Metrics("m"), _end(folder / "cert.pem")

    async def watched() -> None:
        task = asyncio.create_task(certificates.watch_certificates(metrics, 0.01))
        while metrics.gauges.get((NAME, ("endpoints",))) != first:
            await asyncio.sleep(0.01)
        project.ensure_server(own.home, ["localhost"], days=90, renew=True)
        shutil.copy(own.server, folder / "cert.pem")
        while metrics.gauges[NAME, ("endpoints",)] == first:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(asyncio.wait_for(watched(), 30))
    assert metrics.gauges[NAME, ("endpoints",)] == _end(own.server)


def test_without_certificates_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(certificates.FOLDER, raising=False)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    metrics = Metrics("m")
    asyncio.run(asyncio.wait_for(certificates.watch_certificates(metrics), 30))
    assert not metrics.gauges


def test_alerts_come_before_a_certificate_ends() -> None:
    groups: list[Any] = yaml.safe_load(RULES.read_text(encoding="utf-8"))["spec"]["groups"]
    rules = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    for alert, severity, days in (("RaypathCertificateEnds", "ticket", 21), ("RaypathCertificateEndsSoon", "page", 3)):
        assert rules[alert]["labels"] == {"severity": severity}
        assert rules[alert]["expr"].endswith(f"(ray_{NAME}) - time() < {days} * {DAY}")
