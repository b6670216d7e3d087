"""The image, built and run as on Kubernetes: unprivileged, read-only except for volumes, without a network.

Heavy: minutes, and gigabytes of disk. It needs a Docker engine of at least 20.10 (`DOCKER_HOST`), and arguments for the
build on this machine:

    RAYPATH_IMAGE_ARGS    further arguments for `docker build`, such as --build-arg BASE=... --secret id=ca,src=...
"""

import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.user_packages import WORKFLOW, write_packages

ROOT = Path(__file__).parent.parent.parent
pytestmark = [pytest.mark.heavy, pytest.mark.timeout(3600)]
TAG = "raypath:tested"
HARD = "--read-only --tmpfs /tmp:exec,size=6g --tmpfs /data:uid=1000 --shm-size 1g --cap-drop ALL --network none"
HARD += " --security-opt no-new-privileges --memory 8g --env HOME=/tmp"
TOKEN = "0" * 64


def _docker(*words: str, seconds: float = 600.0, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    command = ["docker", *words]
    return subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=seconds, check=False, env=environment
    )


@pytest.fixture(scope="module")
def image() -> str:
    """The CPU image of this checkout."""
    if shutil.which("docker") is None or _docker("info").returncode:
        pytest.skip("no Docker engine answers")
    if not (args := os.environ.get("RAYPATH_IMAGE_ARGS")):
        pytest.skip("RAYPATH_IMAGE_ARGS does not say how to build here; LINKS at least")
    done = _docker(
        "build", "-f", f"{ROOT}/deploy/image/Dockerfile", "-t", TAG, *shlex.split(args), str(ROOT), seconds=2400.0
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return TAG


def _run(image: str, script: str, *options: str, seconds: float = 900.0) -> str:
    words = [*shlex.split(HARD), *options, image, "sh", "-s"]
    done = _docker("run", "--rm", "-i", *words, seconds=seconds, given=script)
    return done.stdout + done.stderr


def test_it_is_small_and_not_root(image: str) -> None:
    told = _docker("image", "inspect", "-f", "{{.Size}} {{.Config.User}} {{.Config.Healthcheck.Test}}", image).stdout
    size, user, check = told.split(maxsplit=2)
    assert int(size) < 2.5e9
    assert user == "1000:1000"
    assert "ray-healthy" in check
    said = _run(
        image, "id -u; touch /app/x; raypath list; ls /opt/raypath/source; python -c 'import sys; print(*sys.path)'"
    )
    assert said.startswith("1000\n")
    assert "Read-only file system" in said
    assert "text_classification" in said
    assert "tests" not in said.partition("text_classification")[2].splitlines()
    assert "/app" in said.splitlines()[-1].split(), "packages of users are importable"


def test_a_head_with_its_state_in_redis_and_a_worker_are_healthy(image: str) -> None:
    """Redis by the very command of the manifest."""
    manifest = next(yaml.safe_load_all((ROOT / "k8s" / "base" / "redis.yaml").read_text()))
    box = manifest["spec"]["template"]["spec"]["containers"][0]
    script = f"""
export REDIS_PASSWORD=secret RAY_AUTH_MODE=token RAY_AUTH_TOKEN={TOKEN} RAY_USAGE_STATS_ENABLED=0
{shlex.join(box["command"])} > /tmp/redis.log 2>&1 &
sleep 3
redis-cli ping
{shlex.join(box["readinessProbe"]["exec"]["command"])} && echo redis is ready
ray-healthy head || echo not yet
export RAY_REDIS_ADDRESS=127.0.0.1:6379 RAY_external_storage_namespace=uid-1
ray start --head --port 6380 --num-cpus 0 --dashboard-host 0.0.0.0 --redis-password secret > /tmp/start.log 2>&1
for i in $(seq 20); do ray-healthy head worker && echo head is well && break; sleep 3; done
echo keys $(REDISCLI_AUTH=secret redis-cli dbsize)
"""
    said = _run(image, script)
    assert "NOAUTH" in said
    assert "redis is ready" in said
    assert "not yet" in said
    assert "head is well" in said
    assert "keys 0" not in said


def test_mlflow_answers_to_its_names_alone(image: str) -> None:
    """By the very command of the manifest."""
    manifest = next(yaml.safe_load_all((ROOT / "k8s" / "base" / "mlflow.yaml").read_text()))
    box = manifest["spec"]["template"]["spec"]["containers"][0]
    settings = [f"--env={each['name']}={each['value']}" for each in box["env"]]
    settings += ["--env=RAYPATH_MLFLOW_TOKEN_FILE=/tmp/token"]
    ask = """
import sys, urllib.error, urllib.request
for host in ("localhost", "mlflow:5000", "elsewhere"):
    page = "http://127.0.0.1:5000/api/2.0/mlflow/experiments/search?max_results=1"
    try:
        headers = {"Host": host, "Authorization": "Bearer " + "1" * 64}
        print(host, urllib.request.urlopen(urllib.request.Request(page, headers=headers)).status)
    except urllib.error.HTTPError as error:
        print(host, error.code)
    except OSError:
        sys.exit(1)
"""
    script = f"printf %064d 0 | tr 0 1 > /tmp/token; {shlex.join(box['command'])} > /tmp/mlflow.log 2>&1 &\n"
    script += f"for i in $(seq 40); do python -c {shlex.quote(ask)} && break; sleep 3; done"
    assert _run(image, script, *settings) == "localhost 200\nmlflow:5000 200\nelsewhere 403\n"


def test_the_default_workflow_completes_in_it(image: str) -> None:
    script = "raypath run text_classification -s tune.trials=1 -s finetune.epochs=1; echo status $?; raypath down"
    said = _run(image, script, "--env=RAYPATH_HOME=/tmp/home", "--env=RAYPATH_CACHE=/tmp/cache", seconds=1800.0)
    assert "status 0" in said, said[-2000:]
    assert "version 1" in said


def test_packages_of_a_team_run_in_an_image_made_from_it(image: str, tmp_path: Path) -> None:
    """As the Dockerfile says, with modules beside them that have the names of folders of Raypath."""
    write_packages(tmp_path)
    (tmp_path / "Dockerfile").write_text(f"FROM {image}\nCOPY . /app\n")
    team = f"{TAG}-team"
    done = _docker("build", "-t", team, str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    script = (
        f"raypath run {WORKFLOW} -s second.more=4; echo status $?; raypath down; cat /tmp/home/artifacts/*/words.txt"
    )
    try:
        said = _run(team, script, "--env=RAYPATH_HOME=/tmp/home", "--env=RAYPATH_CACHE=/tmp/cache")
    finally:
        _docker("rmi", "-f", team)
    assert "status 0" in said, said[-2000:]
    assert "tea tea tea tea tea" in said
    assert "a trap was executed" not in said


def _box(name: str, network: str, store: Path, *command: str) -> None:
    """Start a container that stays, with the store that all share."""
    words = shlex.split(HARD.replace("--network none", f"--network {network}"))
    told = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    told |= {"RAYPATH_HOME": "/store", "RAYPATH_STORE": "/store", "RAYPATH_CACHE": "/tmp/cache"}
    # By a name that it answers to.
    told |= {"MLFLOW_TRACKING_URI": "http://localhost:5000"}
    words += [f"--env={key}={value}" for key, value in told.items()]
    done = _docker("run", "-d", "--name", name, *words, f"--volume={store}:/store", TAG, *command)
    assert done.returncode == 0, done.stderr


def _inside(name: str, *command: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    return _docker("exec", name, *command, seconds=seconds)


@pytest.fixture
def nodes(image: str, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A head without CPUs and a worker, a container each, with loopback and a folder in common and nothing else."""
    store = tmp_path / "store"
    store.mkdir()
    os.chown(store, 1000, 1000)
    head, worker = (f"raypath-{os.getpid()}-{name}" for name in ("head", "worker"))
    agent = ("dashboard-agent-listen", "dashboard-agent-grpc", "metrics-export", "runtime-env-agent")
    start = ["ray", "start", "--block", "--object-store-memory=500000000"]
    try:
        lead = ["--head", "--num-cpus=0", "--node-ip-address=127.0.0.2", "--port=6379", "--dashboard-host=127.0.0.1"]
        _box(head, "none", store, *start, *lead)
        _until(lambda: _inside(head, "ray-healthy", "head").returncode == 0, head)
        more = ["--num-cpus=2", "--node-ip-address=127.0.0.3", "--address=127.0.0.2:6379"]
        more += [f"--{name}-port=0" for name in agent]
        _box(worker, f"container:{head}", store, *start, *more)
        manifest = next(yaml.safe_load_all((ROOT / "k8s" / "base" / "mlflow.yaml").read_text()))
        box = manifest["spec"]["template"]["spec"]["containers"][0]
        settings = [word for each in box["env"] for word in ("--env", f"{each['name']}={each['value']}")]
        _docker("exec", "-d", *settings, head, *box["command"])
        _until(lambda: len(_listed(head, "nodes")) == 2, worker)
        asked = "import urllib.request as u; u.urlopen('http://localhost:5000/health')"
        _until(lambda: _inside(worker, "python", "-c", asked).returncode == 0, head)
        yield head, worker
    finally:
        _docker("rm", "-f", worker, head)


def _until(true: Any, name: str, seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, _docker("logs", "--tail", "40", name)
        time.sleep(1)


def _listed(head: str, what: str, *filters: str) -> list[dict[str, Any]]:
    """Output of `ray list` on the head."""
    words = [word for each in filters for word in ("--filter", each)]
    found = _inside(head, "ray", "list", what, "--format", "json", *words).stdout
    return list(json.loads(found)) if found.startswith("[") else []


def test_a_head_and_a_worker_complete_the_default_workflow(nodes: tuple[str, str]) -> None:
    head, _ = nodes
    few = ["tune.trials=1", "finetune.epochs=1", "tune.rows=256"]
    settings = [word for pair in few for word in ("-s", pair)]
    done = _inside(
        head, "python", "-m", "raypath.deploy.ray_cluster.driver", "text_classification", *settings, seconds=1500.0
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    (worker,) = (node["node_id"] for node in _listed(head, "nodes") if not node["is_head_node"])
    for step in ("preprocess", "tune", "finetune", "evaluate"):
        (ran,) = _listed(head, "tasks", f"name=step:{step}")
        assert ran["node_id"] == worker, step
    asked = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8000/healthz').read().decode())"
    answer = json.loads(_inside(head, "python", "-c", asked).stdout)
    assert (answer["name"], answer["version"], answer["status"]) == ("reviews", 1, "ok")
