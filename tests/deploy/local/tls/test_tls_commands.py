"""`raypath tls`: certificates that OpenSSL accepts, private files, renewal and revocation."""

from __future__ import annotations

import json
import shutil
import ssl
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from raypath.components.core.errors import UserError
from raypath.deploy.api.security.certificates import listener_certificates
from raypath.deploy.cli import main as cli
from raypath.deploy.local import state
from raypath.deploy.local.tls import project


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYPATH_HOME", str(tmp_path / "p" / "home"))
    return tmp_path / "p" / "home"


def shown(capsys: pytest.CaptureFixture[str], status: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["tls", "show", "--json"]) == status
    return {each["name"]: each for each in json.loads(capsys.readouterr().out)}


def handshake(server: ssl.SSLContext, client: ssl.SSLContext, host: str) -> None:
    """A handshake in memory. Raises ssl.SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(down, up, server_hostname=host),
        server.wrap_bio(up, down, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_made_certificates_are_accepted_for_their_hosts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tls", "init", "models.example.com", "10.0.0.1", "fd00::1"]) == 0
    assert cli.main(["tls", "init", "--client", "alice"]) == 0
    files = project.ProjectFiles(home)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(files.authority))
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_cert_chain(files.server)
    client = ssl.create_default_context(cafile=str(files.authority))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    client.load_cert_chain(files.client("alice"))
    for host in ("models.example.com", "10.0.0.1", "fd00::1"):
        handshake(server, client, host)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(server, client, "other.example.com")
    modes = {stat.S_IMODE(path.stat().st_mode) for path in files.folder.rglob("*") if path.is_file()}
    assert modes == {0o600}
    found = shown(capsys)
    assert set(found) == {"authority", "endpoints", "revocation list", "client alice"}
    assert found["endpoints"]["hosts"] == ["models.example.com", "10.0.0.1", "fd00::1"]
    assert (found["endpoints"]["state"], found["endpoints"]["days_left"]) == ("valid", 364)


def test_a_certificate_is_renewed_for_other_hosts_and_before_its_end(home: Path) -> None:
    server = project.ProjectFiles(home).server
    assert project.ensure_server(home, ["a"], days=31)
    first = server.read_bytes()
    assert not project.ensure_server(home)
    assert not project.ensure_server(home, ["a"])
    assert project.ensure_server(home, ["a", "b"], days=29)
    assert project.hosts_of(project.load(server)) == ["a", "b"]
    assert project.ensure_server(home), "it would end within 30 days"
    assert project.hosts_of(project.load(server)) == ["a", "b"]
    assert project.ensure_server(home, renew=True)
    assert server.read_bytes() != first


def test_what_ends_soon_is_warned_of(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tls", "show"]) == 0
    assert "no certificates yet" in capsys.readouterr().out
    assert cli.main(["tls", "init", "a", "--days", "5"]) == 0
    assert shown(capsys, status=1)["endpoints"]["state"] == "expires soon"
    bind = f"0.0.0.0:8443 ssl crt {project.ProjectFiles(home).server}"
    state.write(home, state.Services(public_bind=bind))
    [found] = listener_certificates(home)
    assert found.message.endswith("renew it with `raypath tls init`")
    project.ProjectFiles(home).server.write_text("")
    [found] = listener_certificates(home)
    assert (found.state, found.expires) == ("invalid", None)


def test_a_revoked_client_is_on_the_list(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = project.make_client(home, "bob")
    serial = project.load(file).serial_number
    assert cli.main(["tls", "revoke", "bob"]) == 0
    assert cli.main(["tls", "revoke", "bob"]) == 2
    project.make_client(home, "bob")
    assert cli.main(["tls", "revoke", "bob"]) == 0
    revoked = x509.load_pem_x509_crl(project.ProjectFiles(home).revoked.read_bytes())
    assert len(list(revoked)) == 2
    assert revoked.get_revoked_certificate_by_serial_number(serial) is not None
    assert "no client bob" in capsys.readouterr().err


def test_nodes_of_ray_have_an_authority_of_their_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tls", "init", "--ray", "head", "10.0.0.1"]) == 0
    told = capsys.readouterr().out
    assert "export RAY_USE_TLS=1" in told
    paths = dict(line.removeprefix("export ").split("=") for line in told.splitlines())
    assert project.hosts_of(project.load(Path(paths["RAY_TLS_SERVER_CERT"]))) == ["10.0.0.1", "127.0.0.1", "localhost"]
    client = project.make_client(home, "alice")
    node = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=paths["RAY_TLS_CA_CERT"])
    node.verify_mode = ssl.CERT_REQUIRED
    node.load_cert_chain(paths["RAY_TLS_SERVER_CERT"], paths["RAY_TLS_SERVER_KEY"])
    visitor = ssl.create_default_context(cafile=paths["RAY_TLS_CA_CERT"])
    visitor.load_cert_chain(client)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        handshake(node, visitor, "10.0.0.1")
    visitor.load_cert_chain(paths["RAY_TLS_SERVER_CERT"], paths["RAY_TLS_SERVER_KEY"])
    handshake(node, visitor, "10.0.0.1")


@pytest.mark.parametrize("name", ["../x", "", ".x", "a/b", "x" * 65])
def test_names_are_no_paths(home: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no name"):
        project.make_client(home, name)


def revoked_serials(home: Path) -> set[int]:
    found = x509.load_pem_x509_crl(project.ProjectFiles(home).revoked.read_bytes())
    return {entry.serial_number for entry in found}


def test_a_certificate_that_was_replaced_is_revoked_with_the_new_one(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be the one that somebody has stolen."""
    serials = {project.load(project.make_client(home, "bob")).serial_number for _ in range(2)}
    other = project.load(project.make_client(home, "bob.b")).serial_number
    assert cli.main(["tls", "revoke", "bob"]) == 0
    assert revoked_serials(home) == serials
    assert other not in serials
    assert "2 certificates of bob are revoked" in capsys.readouterr().out
    assert cli.main(["tls", "revoke", "bob"]) == 2


def test_two_revocations_at_once_are_both_on_the_list(home: Path) -> None:
    names = [f"client{n}" for n in range(4)]
    serials = {project.load(project.make_client(home, name)).serial_number for name in names}
    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(lambda name: project.revoke_client(home, name), names))
    assert revoked_serials(home) == serials


def test_a_lost_revocation_list_is_made_again(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    serials = {project.load(project.make_client(home, name)).serial_number for name in ("bob", "eve")}
    project.revoke_client(home, "bob")
    project.ProjectFiles(home).revoked.unlink()
    project.revoke_client(home, "eve")
    assert revoked_serials(home) == serials
    project.ProjectFiles(home).revoked.write_text("no list")
    project.make_client(home, "bob")
    assert cli.main(["tls", "revoke", "bob"]) == 1
    assert "revoked.pem is corrupt" in capsys.readouterr().err
    project.ProjectFiles(home).revoked.unlink()
    assert cli.main(["tls", "revoke", "bob"]) == 0
    assert revoked_serials(home) > serials


@pytest.mark.parametrize(("lost", "fix"), [("ca.pem", "restore a copy"), ("ca.key", "restore a copy")])
def test_a_lost_authority_is_not_replaced_in_silence(
    home: Path, lost: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.make_client(home, "bob")
    before = {path.name: path.read_bytes() for path in (home / "tls").glob("ca.*") if path.name != lost}
    (home / "tls" / lost).unlink()
    assert cli.main(["tls", "init", "localhost"]) in (1, 2)
    said = capsys.readouterr().err
    assert lost in said
    assert fix in said
    assert {path.name: path.read_bytes() for path in (home / "tls").glob("ca.*")} == before


def test_a_certificate_of_another_authority_of_that_name_is_replaced(home: Path) -> None:
    project.ensure_server(home, ["a"])
    stale = project.ProjectFiles(home).server.read_bytes()
    shutil.rmtree(home / "tls")
    project.make_client(home, "bob")
    project.ProjectFiles(home).server.write_bytes(stale)
    assert project.ensure_server(home, ["a"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a b"], "'a b' is no host name"),
        (["https://models.example.com"], "without scheme and port"),
        (["models.example.com:443"], "without scheme and port"),
        (["a", "--days", "999999999"], "--days got 999999999; give 1 to 3650"),
        (["a", "--client", "bob"], "a client's certificate is for no host"),
    ],
)
def test_mistakes_are_one_line(home: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tls", "init", *arguments]) == 2
    assert says in capsys.readouterr().err
