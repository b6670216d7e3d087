"""The image, built and run as Kubernetes would: not root, nothing writable but volumes, no rights, no network.

Heavy: minutes, and gigabytes of disk. It takes a Docker engine of at least 20.10 (`DOCKER_HOST`), and what the build
is told about the place it runs in:

    RAYPATH_IMAGE_ARGS    further words for `docker build`, such as --build-arg BASE=... --secret id=ca,src=...
"""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

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
    done = _docker("build", "-f", f"{ROOT}/deploy/Dockerfile", "-t", TAG, *shlex.split(args), str(ROOT), seconds=2400.0)
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
    said = _run(image, "id -u; touch /app/x; raypath list; ls /app")
    assert said.startswith("1000\n")
    assert "Read-only file system" in said
    assert "text_classification" in said
    assert "tests" not in said


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
    ask = """
import sys, urllib.error, urllib.request
for host in ("localhost", "mlflow:5000", "elsewhere"):
    page = "http://127.0.0.1:5000/api/2.0/mlflow/experiments/search?max_results=1"
    try:
        print(host, urllib.request.urlopen(urllib.request.Request(page, headers={"Host": host})).status)
    except urllib.error.HTTPError as error:
        print(host, error.code)
    except OSError:
        sys.exit(1)
"""
    script = f"{shlex.join(box['command'])} > /tmp/mlflow.log 2>&1 &\n"
    script += f"for i in $(seq 40); do python -c {shlex.quote(ask)} && break; sleep 3; done"
    assert _run(image, script, *settings) == "localhost 200\nmlflow:5000 200\nelsewhere 403\n"


def test_the_default_workflow_completes_in_it(image: str) -> None:
    script = "raypath run text_classification -s tune.trials=1 -s finetune.epochs=1; echo status $?; raypath down"
    said = _run(image, script, "--env=RAYPATH_HOME=/tmp/home", "--env=RAYPATH_CACHE=/tmp/cache", seconds=1800.0)
    assert "status 0" in said, said[-2000:]
    assert "version 1" in said
