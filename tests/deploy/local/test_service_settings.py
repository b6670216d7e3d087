"""What the local services are started with and tell their users: variables, arguments, files and messages."""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components import Dataset, Endpoint, PlatformError, Release, Unavailable, UserError
from raypath.components.tracking import login
from raypath.deploy.launchers import RunRequest
from raypath.deploy.local import launcher, mlflow_server, ports, ray_head, services, state
from raypath.deploy.local.platform import LocalPlatform
from raypath.deploy.local.processes import Process
from raypath.deploy.local.ray_connection import RayConnection
from raypath.deploy.local.state import Services

PORTS = {"proxy_metrics": 20_003, "proxy_statistics": 20_004, "proxy_fallback": 20_005}


def _services(home: Path, **changes: Any) -> Services:
    """Services that are recorded, of which none runs."""
    found = Services(
        **{
            "ray": Process(address="127.0.0.1:20000", log=home / "ray.log", serve_port=20_006),
            "mlflow": Process(address="http://127.0.0.1:20007", log=home / "mlflow.log"),
            "ports": PORTS,
            **changes,
        }
    )
    state.write(home, found)
    return found


def test_variables_lead_a_process_to_the_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "a.example")
    direct = "a.example,127.0.0.1,localhost"
    usual = {
        **state.ALWAYS,
        **{"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": f"{tmp_path}/ray.token"},
        **{"NO_PROXY": direct, "no_proxy": direct},
    }
    assert state.environment(tmp_path) == usual
    _services(tmp_path)
    tracking = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:20007"}
    assert state.environment(tmp_path) == usual | tracking
    file = state.mlflow_token(tmp_path)
    secret = state.mlflow_secret(tmp_path)
    assert (file, state.mlflow_token(tmp_path), state.mlflow_secret(tmp_path)) == (
        tmp_path / "mlflow.token",
        file,
        secret,
    )
    assert state.environment(tmp_path) == usual | tracking | login.variables(secret)
    assert state.token(tmp_path) == tmp_path / "ray.token"
    for made in (file, state.token(tmp_path)):
        assert len(bytes.fromhex(made.read_text())) == 32
        assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert state.token(tmp_path).read_text() == (tmp_path / "ray.token").read_text() != secret


def test_the_public_url_is_that_of_the_listener() -> None:
    assert Services(public_bind="0.0.0.0:8443 ssl crt /tls.pem").public == "https://0.0.0.0:8443"
    assert Services().public == ""
    assert [name for name, _ in Services().each()] == ["ray", "mlflow"]


def test_urls_of_a_platform_are_those_on_record(tmp_path: Path) -> None:
    platform = LocalPlatform(tmp_path)
    assert (platform.mlflow(), platform.serve_url(), platform.public_url()) == ("", "", "")
    _services(tmp_path, public_bind="10.0.0.1:8443 ssl crt /tls.pem")
    urls = ("http://127.0.0.1:20007", "http://127.0.0.1:20006", "https://10.0.0.1:8443")
    secret = state.mlflow_token(tmp_path).read_text()
    assert (platform.mlflow(), platform.serve_url(), platform.public_url()) == urls
    assert login.token_for("http://127.0.0.1:20007") == secret, "the registry is asked with it"


def test_arguments_of_ray() -> None:
    given = ray_head.arguments({"ray": 20_000, "dashboard": 20_001}, Path("/t"), Path("/s"), True, 1 << 30)
    assert given[:5] == ["start", "--head", "--block", "--disable-usage-stats", "--no-monitor"]
    assert dict(each.removeprefix("--").split("=") for each in given[5:]) == {
        **{"port": "20000", "dashboard-port": "20001", "object-store-memory": str(1 << 30)},
        **{"node-manager-port": "0", "object-manager-port": "0", "min-worker-port": "0", "max-worker-port": "0"},
        **{"dashboard-agent-listen-port": "0", "dashboard-agent-grpc-port": "0"},
        **{"metrics-export-port": "0", "runtime-env-agent-port": "0"},
        **{"node-ip-address": "127.0.0.1", "dashboard-host": "127.0.0.1"},
        **{"temp-dir": "/t", "object-spilling-directory": "/s"},
        **{"include-dashboard": "true", "include-log-monitor": "false", "log-color": "false"},
    }
    assert ray_head.environment({"metrics": 20_002}) == {
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
        "DASHBOARD_METRIC_PORT": "20002",
    }


def test_the_hook_of_ray_is_for_the_head_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_START_HOOK", "raypath.deploy.local.ray_head.trim")
    params = SimpleNamespace(ray_client_server_port=10_001)
    ray_head.trim(params, True)
    assert (params.ray_client_server_port, os.environ.get("RAY_START_HOOK")) == (None, None)


@pytest.mark.parametrize("value", ["x", "1023", "65536", "-1", "٣٣٣٣"])
def test_a_port_that_is_none(value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPATH_MLFLOW_PORT", value)
    with pytest.raises(UserError) as told:
        ports.choose(tmp_path, {}, "mlflow")
    assert str(told.value) == f"RAYPATH_MLFLOW_PORT={value} is not a port; give a number from 1024 to 65535"


def test_ports_of_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each service has one of eight ports in a row; where it is taken, that of the next row."""
    free, asked = {20_000}, []

    def is_free(port: int) -> bool:
        asked.append(port)
        return port in free

    monkeypatch.setattr(ports, "is_free", is_free)
    for bound in ("1024", "65535"):
        free.add(int(bound))
        monkeypatch.setenv("RAYPATH_RAY_PORT", bound)
        assert ports.choose(Path("/h"), {}, "ray") == int(bound)
    free.discard(65_535)
    with pytest.raises(ports.PortInUse) as taken:
        ports.choose(Path("/h"), {}, "ray")
    assert str(taken.value) == (
        "port 65535 (RAYPATH_RAY_PORT) is in use by another program; stop that program, or give RAYPATH_RAY_PORT "
        "another port, or unset it to have a free one chosen"
    )
    monkeypatch.delenv("RAYPATH_RAY_PORT")
    asked.clear()
    assert ports.choose(Path("/h"), {"ray": 7}, "ray") == 20_000
    assert {port % 8 for port in asked[1:]} == {0}
    assert max(asked) < 29_800
    with pytest.raises(ports.PortInUse, match=r"^no port from 20000 to 29799 is free; stop what listens there$"):
        ports.choose(Path("/h"), {"other": 20_000}, "ray")


def test_services_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as told:
        RayConnection().connect(tmp_path)
    assert str(told.value) == f"the Ray head of {tmp_path} is not running; start it with `raypath up`"
    (tmp_path / "services.json").write_text('{"ray": 1, "port": 2}')
    with pytest.raises(PlatformError) as corrupt:
        services.status(tmp_path)
    assert str(corrupt.value) == (
        f"{tmp_path}/services.json is corrupt (2 errors); stop the processes that "
        "`ps -ef | grep raypath.deploy.local` lists, then delete the file"
    )
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as told_of_home:
        state.read(tmp_path / "file")
    assert str(told_of_home.value) == f"{tmp_path}/file is not a folder; set RAYPATH_HOME to a folder"


def test_services_that_have_ended(tmp_path: Path) -> None:
    assert services.down(tmp_path) == []
    assert services.login_url(tmp_path) == ""
    recorded = _services(tmp_path, public_bind="0.0.0.0:1 ssl crt /a")
    found = services.status(tmp_path)
    assert [(each.name, each.state, each.address, each.since, each.memory_mib) for each in found] == [
        ("ray", "died", "127.0.0.1:20000", None, 0),
        ("mlflow", "died", "http://127.0.0.1:20007", None, 0),
    ]
    (tmp_path / "spill").mkdir()
    assert services.down(tmp_path) == [
        "ray: had ended before, 0 processes left over",
        "mlflow: had ended before, 0 processes left over",
    ]
    assert state.read(tmp_path) == Services(format=2, ports=recorded.ports), "ports are kept"
    assert not (tmp_path / "spill").exists()
    assert [each.state for each in services.status(tmp_path)] == ["down", "down"]


def test_waiting_for_a_service_that_does_not_respond(tmp_path: Path) -> None:
    log = tmp_path / "ray.log"
    ended = Process(address="127.0.0.1:1", log=log)
    with pytest.raises(PlatformError) as told:
        services._wait("Ray", ended, lambda _: True, 0.0)
    assert str(told.value) == f"Ray ended while it started: no output; see {log}"
    import psutil

    own = psutil.Process()
    with pytest.raises(Unavailable) as late:
        services._wait(
            "Ray", ended.model_copy(update={"pid": own.pid, "create_time": own.create_time()}), lambda _: False, 0.0
        )
    assert str(late.value) == f"Ray at 127.0.0.1:1 does not respond; see {log}"


def test_a_private_folder_is_made_once(tmp_path: Path) -> None:
    folder = tmp_path / "private"
    assert state.make_private(folder) == state.make_private(folder) == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o710)
    with pytest.raises(PlatformError) as told:
        state.make_private(folder)
    assert str(told.value) == f"{folder} belongs to somebody else or is open to others; remove it"


@pytest.mark.parametrize(("length", "short"), [(35, True), (36, False)])
def test_scratch_folders_have_short_paths(length: int, short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    name = state.scratch(Path("/h")).name
    folder = "/" + "t" * (length - len(name) - 2)
    monkeypatch.setattr("tempfile.tempdir", folder)
    assert str(state.scratch(Path("/h"))) == (f"{folder}/{name}" if short else f"/tmp/{name}")
    assert name.startswith(f"raypath-{os.getuid()}-")
    assert state.scratch(Path("/other")).name != name


def test_a_link_logs_in_at_the_server_on_record(tmp_path: Path) -> None:
    _services(tmp_path)
    assert services.login_url(tmp_path) == "", "no token"
    state.mlflow_token(tmp_path)
    assert services.login_url(tmp_path).startswith("http://127.0.0.1:20007/")


def test_the_key_of_webhooks_is_made_once(tmp_path: Path) -> None:
    made = mlflow_server._key(tmp_path / "webhooks.key")
    assert len(base64.urlsafe_b64decode(made)) == 32
    assert mlflow_server._key(tmp_path / "webhooks.key") == made == (tmp_path / "webhooks.key").read_text()


def test_what_comes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    endpoint = Endpoint(url="http://127.0.0.1:1/m", name="m", version=1)
    launcher.show_next(endpoint, tmp_path)
    sample = """-H 'content-type: application/json' -d '{"text": "Great taste, and it arrived early"}'"""
    stop = "Stop everything: raypath down"
    assert capsys.readouterr().out.splitlines() == [
        *("", "Try it:", f"  curl -s http://127.0.0.1:1/m/predict {sample}"),
        *("  or in a browser:  http://127.0.0.1:1/m/", stop),
    ]
    (tmp_path / "access").mkdir()
    (tmp_path / "access" / "local.key").touch()
    _services(tmp_path)
    launcher.show_next(endpoint.model_copy(update={"example": '{"text": "it\'s"}'}), tmp_path)
    shown = capsys.readouterr().out.splitlines()
    key = '-H "authorization: Bearer $(cat access/local.key)"'
    body = """'{"text": "it'"'"'s"}'"""
    assert shown[2] == f"  curl -s http://127.0.0.1:1/m/predict {key} -H 'content-type: application/json' -d {body}"
    assert shown[4:] == ["Experiments and models in MLflow: http://127.0.0.1:20007", stop]
    (tmp_path / "else where").mkdir()
    monkeypatch.chdir("else where")
    assert launcher._login(tmp_path) == f'-H "authorization: Bearer $(cat {tmp_path}/access/local.key)" '
    release = Release(name="m", version=2, alias="challenger", reason="", serving=1)
    launcher.show_next(release, tmp_path / "none")
    assert capsys.readouterr().out.splitlines() == ["", "Use it:", "  raypath predict models:/m/2 FILE", stop]
    launcher.show_next(Dataset(rows=1), tmp_path / "none")
    assert capsys.readouterr().out.splitlines() == [stop]


def test_a_run_here_submits_nothing(tmp_path: Path) -> None:
    request: Any = RunRequest("w", None, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UserError) as told:
        launcher.render(request, launcher.LocalParams())
    assert str(told.value) == "a run on this machine submits nothing; give --on kuberay or --on kubeflow"
