"""Owners of sockets, by tables as the kernel prints them."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from raypath.components.tracking.server import peer

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
CLIENT, SERVER = ("127.0.0.1", 40_000), ("127.0.0.1", 5_000)
ONE, TWO, ANY = "0100007F:9C40", "0100007F:1388", "00000000:0000"
LONG = "0000000000000000FFFF0000"
"""Prefix of an IPv4 address in the table of IPv6."""
OTHER = os.getuid() + 1


def _line(local: str, remote: str, state: str = "01", uid: int = OTHER, inode: int = 7) -> str:
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 {uid:5d}        0 {inode} 1\n"


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Files in place of /proc/net/tcp and tcp6, which do not exist."""
    found = tmp_path / "tcp", tmp_path / "tcp6"
    monkeypatch.setattr(peer, "_TABLES", found)
    return found


def test_a_system_that_does_not_tell(tables: tuple[Path, Path]) -> None:
    assert peer.is_own(CLIENT, SERVER)
    assert peer.is_ours(5_000)


@pytest.mark.parametrize(("uid", "own"), [(0, True), (os.getuid(), True), (OTHER, False)])
@pytest.mark.parametrize(("which", "prefix"), [(0, ""), (1, LONG)])
def test_the_owner_of_a_connection(tables: tuple[Path, Path], uid: int, own: bool, which: int, prefix: str) -> None:
    for table in tables:
        table.write_text(HEAD)
    assert not peer.is_own(CLIENT, SERVER), "nobody has opened it"
    others = _line(TWO, ONE) + _line(ONE, ANY) + _line(ONE, TWO, uid=0, inode=0)
    tables[which].write_text(HEAD + others + _line(prefix + ONE.lower(), prefix + TWO, uid=uid))
    assert peer.is_own(CLIENT, SERVER) is own


@pytest.mark.parametrize(("uid", "ours"), [(0, True), (os.getuid(), True), (OTHER, False)])
@pytest.mark.parametrize("which", [0, 1])
def test_the_owner_of_a_listener(tables: tuple[Path, Path], uid: int, ours: bool, which: int) -> None:
    """In the kernel's order: listeners come first."""
    elsewhere, connected = _line("0100007F:1389", ANY, "0A"), _line(TWO, ONE, "01")
    tables[which].write_text(HEAD + elsewhere + connected)
    assert peer.is_ours(5_000), "another user is connected, or listens elsewhere"
    tables[which].write_text(HEAD + elsewhere + _line(TWO, ANY, "0A", uid=uid) + connected)
    assert peer.is_ours(5_000) is ours


def test_the_kernel_prints_listeners_first() -> None:
    path = Path("/proc/net/tcp")
    if not path.exists():
        pytest.skip("this system has no such table")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            lines = [line.split() for line in path.read_text().splitlines()[1:]]
    listening = [fields[3] == "0A" for fields in lines]
    assert listening == sorted(listening, reverse=True)
    assert any(fields[1].endswith(f":{port:04X}") and fields[3] == "0A" for fields in lines)
