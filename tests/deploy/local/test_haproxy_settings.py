"""HAProxy's variables and start script, and the messages about what it cannot be started with."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from raypath.components import UserError
from raypath.deploy.local import haproxy
from raypath.deploy.local.tls import files

PORTS = {"proxy_metrics": 20_003, "proxy_statistics": 20_004, "proxy_fallback": 20_005}
CERTIFICATE = "give --tls one PEM file with the certificate, then its private key, readable by you alone (chmod 600)"


def test_variables_of_haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert haproxy.environment(PORTS, tmp_path) == {}, "it was not prepared"
    monkeypatch.setattr(haproxy, "_binary", lambda: Path("/opt/a b/haproxy"))
    (tmp_path / "server-state").mkdir()
    (tmp_path / "haproxy.cfg").touch()
    (given := tmp_path.parent / "given.pem").write_text("PEM")
    haproxy.prepare(tmp_path, f"0.0.0.0:8443 ssl crt {given}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["event_relay.lua", "haproxy", "haproxy.cfg", "tls"]
    script = (tmp_path / "haproxy").read_text()
    own = (Path(haproxy.__file__).parent / "proxy" / "haproxy.sh").read_text()
    bind = f"public_bind='0.0.0.0:8443 ssl crt {tmp_path}/tls/cert.pem'"
    variables = f"binary='/opt/a b/haproxy'\n{bind}\nproof=''\nseconds=10\nper_client=256\n"
    assert (tmp_path / "tls" / "cert.pem").read_text() == "PEM"
    assert script == f"#!/bin/sh\n{variables}{own}"
    assert stat.S_IMODE((tmp_path / "haproxy").stat().st_mode) == 0o700
    ray, first = "RAY_SERVE_", 30_000 + 20_003 % 50 * 51
    assert haproxy.environment(PORTS, tmp_path) == {
        f"{ray}ENABLE_HA_PROXY": "1",
        f"{ray}HAPROXY_BINARY_PATH": f"{tmp_path}/haproxy",
        f"{ray}HAPROXY_CONFIG_FILE_LOC": f"{tmp_path}/haproxy.cfg",
        f"{ray}HAPROXY_SOCKET_PATH": f"{tmp_path}/a.sock",
        f"{ray}HAPROXY_METRICS_SOCKET_PATH": f"{tmp_path}/m.sock",
        f"{ray}HAPROXY_SERVER_STATE_BASE": f"{tmp_path}",
        f"{ray}HAPROXY_SERVER_STATE_FILE": f"{tmp_path}/server-state",
        f"{ray}HAPROXY_METRICS_PORT": "20003",
        f"{ray}HAPROXY_STATS_PORT": "20004",
        f"{ray}HAPROXY_NBTHREAD": "1",
        f"{ray}FALLBACK_PROXY_HTTP_PORT": "20005",
        f"{ray}PROXY_HEALTH_CHECK_PERIOD_S": "1",
        f"{ray}PROXY_READY_CHECK_TIMEOUT_S": "30",
        f"{ray}HAPROXY_RETRY_ON": "conn-failure empty-response",
        f"{ray}HAPROXY_RETRIES": "3",
        f"{ray}HAPROXY_OBSERVE_ERROR_LIMIT": "1",
        f"{ray}HAPROXY_TUNE_BUFSIZE": "65536",
        f"{ray}DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        f"{ray}DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 50),
        f"{ray}HAPROXY_HARD_STOP_AFTER_S": "600",
        f"{ray}DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
        f"{ray}HAPROXY_HEALTH_CHECK_INTER": "1s",
        f"{ray}HAPROXY_HEALTH_CHECK_FALL": "10",
        "RAYPATH_CERTIFICATES": f"{tmp_path}/tls",
    }
    for name in PORTS:
        assert haproxy.environment({**PORTS, name: 0}, tmp_path) == {}


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("8443", "--listen 8443: unknown address; give one such as 0.0.0.0:8443"),
        ("a b:8443", "--listen a b:8443: unknown address; give one such as 0.0.0.0:8443"),
        ("[::1:8443", "--listen [::1:8443: unknown address; give one such as 0.0.0.0:8443"),
        ("0.0.0.0:٣", "--listen 0.0.0.0:٣: unknown address; give one such as 0.0.0.0:8443"),
        ("0.0.0.0:0", "--listen 0.0.0.0:0: unknown port; give one from 1 to 65535"),
        ("0.0.0.0:65536", "--listen 0.0.0.0:65536: unknown port; give one from 1 to 65535"),
        ("*:65535", f"--tls none.pem: no such file, or a path with odd characters; {CERTIFICATE}"),
        ("[::1]:1", f"--tls none.pem: no such file, or a path with odd characters; {CERTIFICATE}"),
    ],
)
def test_public_addresses(listen: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(haproxy, "_binary", lambda: Path("/haproxy"))
    with pytest.raises(UserError) as told:
        haproxy.PublicListener(listen, Path("none.pem"))
    assert str(told.value) == says


@pytest.mark.parametrize(
    ("name", "mode", "says"),
    [
        ("a b.pem", 0o600, f"--tls a b.pem: no such file, or a path with odd characters; {CERTIFICATE}"),
        ("a.pem", 0o640, "--tls a.pem: others may read the private key; chmod 600 a.pem"),
        ("a.pem", 0o600, f"--tls a.pem: not a certificate with its private key; {CERTIFICATE}"),
    ],
)
def test_certificates(name: str, mode: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    Path(name).chmod(mode)
    with pytest.raises(UserError) as told:
        files.check_server_certificate(Path(name))
    assert str(told.value) == says


def test_without_haproxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(haproxy, "_binary", lambda: None)
    with pytest.raises(UserError) as told:
        haproxy.PublicListener("0.0.0.0:8443", tmp_path / "a.pem")
    assert (
        str(told.value) == "--listen needs HAProxy, which Ray includes for Linux only; use a reverse proxy of your own"
    )
    haproxy.prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("hard", "fails"), [(8_447, True), (8_448, False), (-1, False)])
def test_open_files(hard: int, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    monkeypatch.setattr(haproxy, "_binary", lambda: Path("/haproxy"))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (100, hard))
    if not fails:
        return haproxy.check_open_files()
    with pytest.raises(UserError) as told:
        haproxy.check_open_files()
    assert str(told.value) == (
        "a process here may open 8,447 files at most (hard limit); the endpoints need 8,448; raise it to 65536: nofile "
        "in /etc/security/limits.conf, LimitNOFILE of systemd, --ulimit of docker"
    )
    monkeypatch.setattr(haproxy, "_binary", lambda: None)
    haproxy.check_open_files()
