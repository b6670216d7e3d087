"""Real services on loopback: what they listen on, who may talk to them, and that nothing stays behind."""

from __future__ import annotations

import http.client
import ipaddress
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest

from raypath.components.core.errors import PlatformError, Unavailable
from raypath.deploy.local import ports, processes
from raypath.deploy.local import services as local
from raypath.deploy.local import state as services
from raypath.deploy.local.processes import Process
from raypath.deploy.local.ray_connection import connection
from tests.waiting import until

ROOT = Path(__file__).parents[3]
UP = "import sys; from pathlib import Path; from raypath.deploy.local import services; services.up(Path(sys.argv[1]))"


def python(code: str, *args: object, **env: str) -> subprocess.Popen[str]:
    """Another Python with warnings as errors."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, args)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def started(home: Path) -> local.Services | None:
    found = local.read(home)
    return found if found.ray and found.ray.pid and found.mlflow and found.mlflow.pid else None


def get(address: str, path: str, method: str = "GET", body: str = "", **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two processes run `up` at once; one of them is killed as soon as it has started anything."""
    home = tmp_path_factory.mktemp("services") / "home"
    callers = [python(UP, home) for _ in range(2)]
    try:
        until(lambda: started(home))
        callers[0].kill()
        _, complaints = callers[1].communicate(timeout=120)
        assert callers[1].returncode == 0, complaints
        callers[0].communicate()
        yield home
    finally:
        local.down(home)


@pytest.fixture(scope="module")
def running(home: Path) -> local.Services:
    found = started(home)
    assert found
    return found


def test_services_survive_the_one_who_started_them_and_a_second_up_changes_nothing(
    home: Path, running: local.Services
) -> None:
    assert local.up(home) == running
    ray, mlflow = local.status(home)
    assert (ray.state, mlflow.state) == ("up", "up")
    assert running.ray
    assert (ray.pid, ray.address) == (running.ray.pid, running.ray.address)
    assert ray.memory_mib > 100
    assert mlflow.memory_mib > 50
    assert ray.since
    assert abs(ray.since.timestamp() - time.time()) < 300


def test_nothing_listens_beyond_loopback(running: local.Services) -> None:
    found = set()
    for service in (running.ray, running.mlflow):
        assert service
        for process in processes.tree(service):
            for each in process.net_connections("inet"):
                if each.status == psutil.CONN_LISTEN:
                    found.add((each.laddr.ip.removeprefix("::ffff:"), each.laddr.port))
    assert len(found) >= 8
    assert not [(ip, port) for ip, port in found if not ipaddress.ip_address(ip).is_loopback]
    assert not [port for _, port in found if 10_001 <= port <= 19_999]


def test_every_file_is_private(home: Path) -> None:
    assert stat.S_IMODE((home / "ray.token").stat().st_mode) == 0o600
    assert len((home / "ray.token").read_text()) == 64
    assert stat.S_IMODE((home / "mlflow.token").stat().st_mode) == 0o600
    assert len((home / "mlflow.token").read_text()) == 64
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    # Ray opens its own folders to all on purpose; ours around them is closed.
    assert stat.S_IMODE(services.scratch(home).stat().st_mode) == 0o700
    files = [path for path in home.rglob("*") if path.is_file()]
    assert {"services.json", "mlflow.db", "ray.log", "mlflow.log"} <= {path.name for path in files}
    assert not [path for path in files if path.stat().st_mode & 0o077]


def test_ray_asks_for_the_token(home: Path, running: local.Services) -> None:
    grpc: Any = import_module("grpc")
    assert running.ray
    token = (home / "ray.token").read_text()
    assert get(running.ray.dashboard, "/api/jobs/")[0] == 401
    assert get(running.ray.dashboard, "/api/jobs/", authorization=f"Bearer {token}")[0] == 200
    with grpc.insecure_channel(running.ray.address) as channel:
        call = channel.unary_unary("/ray.rpc.InternalKVGcsService/InternalKVKeys")
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_mlflow_keeps_artifacts_and_refuses_other_hosts(home: Path, running: local.Services) -> None:
    assert running.mlflow
    address = running.mlflow.address
    assert local.environment(home)["MLFLOW_TRACKING_URI"] == address
    token = local.environment(home)["MLFLOW_TRACKING_TOKEN"]
    assert token == (home / "mlflow.token").read_text()
    login = f"Bearer {token}"
    path = "/api/2.0/mlflow-artifacts/artifacts/place/file.txt"
    assert get(address, path, "PUT", "content")[0] == 401
    assert get(address, path, "PUT", "content", authorization=login)[0] == 200
    kept = home / "mlflow" / "artifacts" / "place" / "file.txt"
    assert kept.read_text() == "content"
    assert not kept.stat().st_mode & 0o077
    search = "/api/2.0/mlflow/experiments/search?max_results=5"
    assert json.loads(get(address, search, authorization=login)[1])["experiments"][0]["name"] == "Default"
    assert get(address, search, authorization=login, host="evil.example.com")[0] == 403


def test_the_link_of_up_logs_a_browser_in_and_no_token_is_in_logs_or_process_lists(
    home: Path, running: local.Services
) -> None:
    assert running.mlflow
    url, token = local.login_url(home), (home / "mlflow.token").read_text()
    assert url.startswith(f"{running.mlflow.address}/login?code=")
    assert token not in url
    assert get(running.mlflow.address, url.removeprefix(running.mlflow.address))[0] == 200
    assert get(running.mlflow.address, url.removeprefix(running.mlflow.address))[0] == 401
    lines = [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
    files = [path for path in home.rglob("*") if path.is_file() and path.name != "mlflow.token"]
    secrets = [token, url.partition("=")[2]]
    assert not [line for line in lines if any(secret in line for secret in secrets)]
    assert not [path for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]


CONNECT = """
import os, sys
from pathlib import Path
import ray  # which reads its variables when it is imported: connect must make up for that
import here
from raypath.deploy.local.ray_connection import connection
home = Path(sys.argv[1])
connection.connect(home)
connection.connect(home)
task = ray.remote(num_cpus=0)(here.look)
print(ray.get(task.remote()), ray.get_runtime_context().namespace)
ray.shutdown()
"""


def test_workers_import_what_the_driver_can_and_know_the_services(
    home: Path, running: local.Services, tmp_path: Path
) -> None:
    (tmp_path / "here.py").write_text(
        "import os\n"
        "def look():\n"
        "    import raypath.deploy.local.services\n"
        "    names = ('MLFLOW_TRACKING_URI', 'RAY_TRAIN_HEALTH_CHECK_INTERVAL_S', 'RAY_START_HOOK')\n"
        "    return [os.environ.get(name) for name in names]\n"
    )
    driver = python(CONNECT, home, PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path}")
    out, complaints = driver.communicate(timeout=60)
    assert running.mlflow
    assert out.strip() == f"{[running.mlflow.address, '0.2', None]} raypath", complaints


def test_a_second_home_dies_comes_back_and_stops_alone(home: Path, running: local.Services, tmp_path: Path) -> None:
    other = tmp_path / "other"
    first = local.up(other, mlflow=False, dashboard=False).ray
    assert first
    everything = processes.tree(first)
    try:
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: local.status(other)[0].state == "died")
        with pytest.raises(Unavailable, match="not running"):
            connection.connect(other)
        second = local.up(other, mlflow=False, dashboard=False).ray
        assert second
        assert (second.address, second.serve_port) == (first.address, first.serve_port)
        assert second.pid != first.pid
        assert not [process for process in everything if processes.lives(process)]
        everything = processes.tree(second)
    finally:
        stopped = local.down(other)
    assert [line.partition(":")[0] for line in stopped] == ["ray"]
    assert local.down(other) == []
    assert not [process for process in everything if processes.lives(process)]
    assert not services.scratch(other).exists()
    assert [service.state for service in local.status(other)] == ["down", "down"]
    assert [service.state for service in local.status(home)] == ["up", "up"]
    assert started(home) == running


@pytest.mark.parametrize("name", ["serve", "mlflow"])
def test_a_port_asked_for_that_is_taken_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv(f"RAYPATH_{name.upper()}_PORT", str(port))
        with pytest.raises(ports.PortInUse, match=f"port {port} .RAYPATH_{name.upper()}_PORT. is in use"):
            local.up(tmp_path, ray=name == "serve", mlflow=name == "mlflow")
    assert local.read(tmp_path) == local.Services()


def test_a_port_is_used_again_unless_it_is_taken(tmp_path: Path) -> None:
    port = ports.choose(tmp_path, {}, "mlflow")
    assert 20_000 <= port < 32_000
    assert ports.choose(tmp_path, {}, "mlflow") == port
    assert ports.choose(tmp_path, {"mlflow": port + 10}, "mlflow") == port + 10
    with socket.create_server(("127.0.0.1", port)):
        assert ports.choose(tmp_path, {"mlflow": port}, "mlflow") != port


FAMILY = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) == 1:
    subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
    print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("leader_dies_first", [False, True])
def test_stop_finds_children_that_left_and_kills_those_that_will_not_go(
    leader_dies_first: bool, tmp_path: Path
) -> None:
    (tmp_path / "family.py").write_text(FAMILY)
    log = tmp_path / "log"
    env = {**os.environ, "PYTHONPATH": str(tmp_path), processes.MARK: tmp_path.name}
    pid, born = processes.spawn("family", [], env, log)
    service = Process(pid=pid, create_time=born, address="", log=log, mark=tmp_path.name)
    until(lambda: log.read_text() and len(processes.tree(service)) == 2)
    family = processes.tree(service)
    if leader_dies_first:
        os.kill(pid, signal.SIGKILL)
        until(lambda: processes.find(service) is None)
    assert processes.stop(service, grace_s=0.1) == len(family) - leader_dies_first
    assert not [process for process in family if processes.lives(process)]
    assert processes.stop(service) == 0


def test_a_number_that_was_given_out_again_is_left_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True) as other:
        service = Process(pid=other.pid, create_time=time.time() - 1000, address="", log=Path("log"), mark="no such")
        assert processes.find(service) is None
        assert processes.stop(service) == 0
        assert other.poll() is None
        other.communicate(b"\n")


def test_looking_around_does_not_take_the_exit_status_of_others() -> None:
    with subprocess.Popen([sys.executable, "-c", "exit(7)"]) as other:
        until(lambda: not processes.lives(psutil.Process(other.pid)))
        processes.tree(Process(pid=1, address="", log=Path("log"), mark="no such"))
        assert other.wait() == 7


def test_the_scratch_folder_is_short_and_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / ("deep" * 20)))
    assert services.scratch(tmp_path).parent == Path("/tmp")
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("open", "link"):
        with pytest.raises(PlatformError, match="open to others"):
            services.make_private(tmp_path / name)


def test_a_damaged_record_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "services.json").write_text("{")
    with pytest.raises(PlatformError, match=r"services.json is corrupt") as error:
        local.status(tmp_path)
    assert error.value.fix


def test_a_start_that_fails_says_where_to_look(tmp_path: Path) -> None:
    service = Process(pid=0, address="http://127.0.0.1:1", log=tmp_path / "mlflow.log")
    service.log.write_text("first\nno such table\n\n")
    services.write(tmp_path, local.Services(mlflow=service, ports={"mlflow": 1}))
    with pytest.raises(PlatformError, match="MLflow ended while it started: no such table") as error:
        local.wait_ready(tmp_path)
    assert str(service.log) in error.value.fix


def test_no_proxy_stands_between_us_and_loopback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "example.com,localhost")
    assert local.environment(tmp_path)["NO_PROXY"] == "example.com,localhost,127.0.0.1"


def test_the_database_of_mlflow_is_inside_a_home_with_odd_characters(tmp_path: Path) -> None:
    home = tmp_path / "what? a #home"
    try:
        local.up(home, ray=False)
        assert (home / "mlflow" / "mlflow.db").stat().st_size > 0
    finally:
        local.down(home)
    assert list(tmp_path.iterdir()) == [home]
