"""An endpoint of a tiny language model on the Ray head and HAProxy of a home, without a registry.

`python -m tests.components.serving.language.talk_home HOME PLACE SETTINGS` deploys it with these settings, and returns
when as many replicas run as they name; without settings it is deleted. PLACE has the version's folder, the keys and the
cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[4]
NAME = "killed"


def prepare(place: Path) -> None:
    """Make a model, sign it as version 1 with a key of its own, and put it where a replica has fetched versions."""
    from raypath.components.registry.cache import _folder_of
    from raypath.components.registry.signing import keys, manifest, records
    from raypath.components.tracking.tags import PROMOTION, SIGNATURE
    from tests.components.serving.language.chat_server import chat_model

    folder = chat_model(place / "model", max_position_embeddings=2_048)
    (place / "signing").mkdir()
    keys.ensure_key(place / "signing")
    key = keys.signing_key(place / "signing")
    signed = manifest.sign_folder(key, folder, "", NAME, {})
    tags = {PROMOTION: records.sign_promotion(key, NAME, 1, 0, "")}
    tags[SIGNATURE] = records.sign_version(key, NAME, 1, signed.digest, tags)
    (place / "models").mkdir(mode=0o700)  # `cache_folder` of a process with RAYPATH_CACHE=PLACE
    shutil.move(folder, _folder_of("", NAME, 1, "m-1", place / "models"))
    (place / "tags.json").write_text(json.dumps(tags))


def deploy(home: Path, place: Path, settings: Mapping[str, Any]) -> str:
    """Deploy, in a process of its own, and return the endpoint's URL."""
    command = [sys.executable, "-m", "tests.components.serving.language.talk_home", str(home), str(place)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "RAYPATH_CACHE": str(place)}
    done = subprocess.run(
        [*command, json.dumps(settings)], cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3_000:]
    return done.stdout.split()[-1]


def states() -> dict[str, int]:
    """Number of replicas by state."""
    from ray import serve

    found = serve.status().applications[NAME]
    assert found.status not in ("DEPLOY_FAILED", "UNHEALTHY"), found
    return dict(found.deployments["model"].replica_states) if found.deployments else {}


def main(home: Path, place: Path, settings: dict[str, Any]) -> None:
    """Deploy, wait, print the URL."""
    from raypath.components.serving.control import proxy
    from raypath.components.serving.control.client import health
    from raypath.components.serving.control.deployer import deploy
    from raypath.components.serving.control.ray_options import deployment_options
    from raypath.components.serving.control.rollout import swap_version
    from raypath.components.serving.model_versions import ModelVersion, ReplicaPlan
    from raypath.components.serving.params import ServeParams
    from raypath.components.serving.spec import EndpointSpec
    from raypath.deploy.local import services
    from raypath.deploy.local.ray_connection import connection

    connection.connect(home)
    if not settings:
        from ray import serve

        serve.delete(NAME)
        print("deleted")
        return
    found = services.read(home).ray
    assert found
    base = f"http://127.0.0.1:{found.serve_port}"
    proxy.start(base, 60.0)
    params = ServeParams(threads=1, max_new_tokens=64, max_queue_seconds=600.0, request_timeout=100.0, **settings)
    spec = EndpointSpec(
        name=NAME, task="text_generation", tracking="", url=f"{base}/{NAME}", route=f"/{NAME}", serve=params,
        signing=str(place / "signing"), options=deployment_options(params, {}, by_tokens=True),
    )  # fmt: skip
    tags = json.loads((place / "tags.json").read_text())
    plan = ReplicaPlan(main=ModelVersion(name=NAME, version=1, source="m-1", tags=tags), requested_at=time.time())
    deploy(spec, plan, swap_version)
    end = time.monotonic() + 120
    while params.replicas and (states() != {"RUNNING": params.replicas} or health(spec.url) is None):
        assert time.monotonic() < end, states()
        time.sleep(0.2)
    print(spec.url)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
