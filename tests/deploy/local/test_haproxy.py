"""HAProxy in front of real endpoints: a kill refuses nobody, no home answers for another, and nothing stays behind."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType

import psutil
import pytest

from raypath.components.core.errors import UserError
from raypath.components.serving.control import proxy
from raypath.components.serving.control.proxy import check_public_access
from raypath.deploy.local import haproxy
from raypath.deploy.local import services as local
from raypath.deploy.local.ray_connection import connection
from tests.deploy.local.front import certificate

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


def begin(home: Path, name: str) -> None:
    """Give a home an endpoint that answers with the home's name, or with the number of its process at /pid."""
    connection.connect(home)
    from ray import serve
    from starlette.requests import Request

    @serve.deployment(name="model", ray_actor_options={"num_cpus": 0})
    class Echo:
        def __call__(self, request: Request) -> str:
            return str(os.getpid()) if request.url.path.endswith("pid") else name

    services = local.read(home)
    assert services.ray
    proxy.start(f"http://127.0.0.1:{services.ray.serve_port}", 10.0)
    serve.run(Echo.bind(), name=name)


def ask(port: int, path: str = "/", headers: Mapping[str, bytes] = MappingProxyType({})) -> str:
    """The answer, or what went wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=dict(headers))
        reply = connection.getresponse()
        found = reply.read().decode()
        return found if reply.status == 200 else str(reply.status)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def asked(port: int, meanwhile: Callable[[], object]) -> Counter[str]:
    """All answers that four clients had while something happened, twenty before it, and for a second after."""
    found, over = Counter[str](), threading.Event()

    def client() -> None:
        while not over.is_set():
            found[ask(port)] += 1
            time.sleep(0.02)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        _until(lambda: found.total() > 20)
        meanwhile()
        time.sleep(1)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    return found


def _until(true: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


def proxies(home: Path, *words: str) -> list[int]:
    """HAProxies of a home whose command line has these words."""
    wanted, found = str(local.scratch(home) / "ha"), []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            line = process.cmdline()
            if process.name() == "haproxy" and wanted in " ".join(line) and set(words) <= set(line):
                found.append(process.pid)
    return found


@pytest.fixture(scope="module")
def homes(two_heads: dict[str, Path]) -> dict[str, tuple[Path, int]]:
    """Two homes side by side, each with an endpoint: name -> folder and port."""
    found = {}
    code = "from pathlib import Path; from tests.deploy.local import test_haproxy as t; t.begin(Path({!r}), {!r})"
    for name, home in two_heads.items():
        done = subprocess.run(
            [sys.executable, "-c", code.format(str(home), name)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        services = local.read(home)
        assert services.ray
        found[name] = (home, services.ray.serve_port)
        end = time.monotonic() + 20
        while ask(found[name][1]) != name and time.monotonic() < end:
            time.sleep(0.1)
    return found


def test_other_machines_are_answered_over_tls_alone(homes: dict[str, tuple[Path, int]]) -> None:
    home, port = homes["one"]
    public = local.read(home).public
    trusting = ssl.create_default_context(cafile=str(home / "tls.pem"))
    outside = int(public.rpartition(":")[2])
    assert public.startswith("https://0.0.0.0:")
    with urllib.request.urlopen(f"https://localhost:{outside}/", context=trusting, timeout=10) as reply:
        assert (reply.read(), reply.headers["strict-transport-security"]) == (b"one", "max-age=31536000")
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        urllib.request.urlopen(f"https://localhost:{outside}/-/routes", context=trusting, timeout=10)
    with refused.value as answer:  # its body is left in the socket
        told = answer.headers
    assert (told["content-type"], told["strict-transport-security"]) == ("application/problem+json", "max-age=31536000")
    assert ask(outside) != "one", "plain HTTP is answered on this machine only"
    listening = {c.laddr for pid in proxies(home) for c in psutil.Process(pid).net_connections("tcp")}
    assert {at.ip for at in listening if at.port != outside} == {"127.0.0.1"}
    with pytest.raises(UserError, match="running with another --listen"):
        local.up(home, listener=haproxy.PublicListener("0.0.0.0:8443", home / "tls.pem"))
    assert ask(port, "/-/routes") == '{"/":"one"}'


def test_what_cannot_be_listened_at_is_told(tmp_path: Path) -> None:
    file = certificate(tmp_path)
    for listen in ("8443", "all:8443x", "0.0.0.0:99999", "0.0.0.0:0", "a b:8443"):
        with pytest.raises(UserError, match="--listen"):
            haproxy.PublicListener(listen, file)
    with pytest.raises(UserError, match="no such file"):
        haproxy.PublicListener("0.0.0.0:8443", tmp_path / "none.pem")
    for mode in (0o644, 0o640, 0o604):
        file.chmod(mode)
        with pytest.raises(UserError, match="others may read"):
            haproxy.PublicListener("0.0.0.0:8443", file)
    file.chmod(0o600)
    file.write_text(file.read_text().partition("-----BEGIN PRIVATE")[0])
    with pytest.raises(UserError, match="not a certificate with its private key"):
        haproxy.PublicListener("0.0.0.0:8443", file)


def test_an_endpoint_beyond_this_machine_takes_keys_and_tls() -> None:
    check_public_access("https://0.0.0.0:8443", access="/keys")
    check_public_access("http://127.0.0.1:8000", access="")
    with pytest.raises(UserError, match="no key"):
        check_public_access("https://0.0.0.0:8443", access="")
    with pytest.raises(UserError, match="not https"):
        check_public_access("http://10.0.0.1:8000", access="/keys")


def test_a_killed_proxy_refuses_nobody_and_comes_back(homes: dict[str, tuple[Path, int]]) -> None:
    home, port = homes["one"]
    [old], [spare] = proxies(home, "-db"), proxies(home, "-D")

    def kill() -> None:
        os.kill(old, signal.SIGKILL)
        _until(lambda: proxies(home, "-db") not in ([], [old]))

    _only_cut_off(asked(port, kill))
    _until(lambda: len(proxies(home, "-db")) == 1)
    [new] = proxies(home, "-db")
    assert new != old
    _until(lambda: spare not in proxies(home, "-D"))
    [spare] = proxies(home, "-D")
    _only_cut_off(asked(port, lambda: os.kill(spare, signal.SIGKILL)))


def _only_cut_off(found: Counter[str]) -> None:
    """A request that was within the killed process is cut off; all others are answered."""
    assert found["one"] > 20
    assert set(found) <= {"one", "ConnectionResetError", "RemoteDisconnected", "IncompleteRead"}, found
    assert found.total() - found["one"] <= 4, found


@pytest.mark.parametrize("name", ["X-Request-ID", "X-Session-ID", "X-Request-Timeout-Seconds"])
def test_a_header_that_ray_reads_is_no_error_of_the_server(homes: dict[str, tuple[Path, int]], name: str) -> None:
    assert ask(homes["two"][1], headers={name: b"\xff"}) == "two"


def test_a_head_that_never_ends_holds_no_connection(homes: dict[str, tuple[Path, int]]) -> None:
    with socket.create_connection(("127.0.0.1", homes["two"][1]), timeout=20) as dribbling:
        dribbling.sendall(b"GET / HTTP/1.1\r\nHost: x")
        assert b" 408 " in dribbling.recv(1000)


def test_without_a_replica_no_other_home_answers(homes: dict[str, tuple[Path, int]]) -> None:
    (_, one), (_, two) = homes["one"], homes["two"]
    pid = ask(one, "/pid")

    def kill() -> None:
        os.kill(int(pid), signal.SIGKILL)
        _until(lambda: (now := ask(one, "/pid")).isdigit() and now not in (pid, "500", "503"))

    found = asked(one, kill)
    assert "two" not in found
    assert "500" not in found, "while there is none it is 503: come again"
    assert ask(one) == "one"
    assert ask(two) == "two"


def test_nothing_stays_behind(homes: dict[str, tuple[Path, int]]) -> None:
    home, port = homes["two"]
    assert len(proxies(home)) == 2
    local.down(home)
    assert proxies(home) == []
    assert ask(port) == "ConnectionRefusedError"
