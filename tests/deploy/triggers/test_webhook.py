"""The receiver of webhooks, to which MLflow itself sends: signed, fresh and new, or nothing is started."""

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from raypath.components import Unavailable, UserError
from raypath.deploy.local import services as local
from raypath.deploy.triggers.webhook import Receiver, announce, serve

SECRET = "a secret of some length"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """A receiver on loopback whose command notes what it was started for."""
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "http")
    monkeypatch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
    monkeypatch.setenv("RAYPATH_WEBHOOK_SECRET", SECRET)
    note = "import os; e = os.environ; print(e['RAYPATH_MODEL'], e['RAYPATH_ALIAS'], e['RAYPATH_VERSION'], "
    note += f"'RAYPATH_WEBHOOK_SECRET' in e, e['RAYPATH_EVENT'], file=open({str(tmp_path / 'seen')!r}, 'a'))"
    receiver = Receiver(SECRET, "example_model", "example_alias")
    server = serve(receiver, [sys.executable, "-c", note], "127.0.0.1", 0)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}/", seen=tmp_path / "seen", receiver=receiver)
    server.shutdown()
    server.server_close()


def _sent_by_mlflow(url: str, secret: str, action: str = "created") -> int:
    """Send a delivery with MLflow's own code; returns the status of the response."""
    from mlflow.entities.webhook import Webhook, WebhookAction, WebhookEntity, WebhookEvent
    from mlflow.webhooks.delivery import test_webhook

    event = WebhookEvent(WebhookEntity.MODEL_VERSION_ALIAS, WebhookAction(action))
    hook = Webhook("1", "hook", url, [event], 0, 0, secret=secret)
    found: Any = test_webhook(hook, event)
    return int(found.response_status)


def test_a_moved_alias_starts_the_command_once_with_what_moved(here: SimpleNamespace) -> None:
    assert _sent_by_mlflow(here.url, SECRET) == 202
    end = time.monotonic() + 10
    while not (here.seen.exists() and here.seen.read_text().endswith("\n")) and time.monotonic() < end:
        time.sleep(0.05)
    model, alias, version, secret, event = here.seen.read_text().split()
    assert (model, alias, version, secret) == ("example_model", "example_alias", "1", "False")
    assert event.startswith("alias-")
    assert len(event) == 22


def test_another_secret_or_another_event_starts_nothing(here: SimpleNamespace) -> None:
    assert _sent_by_mlflow(here.url, "another secret altogether") == 401
    assert _sent_by_mlflow(here.url, SECRET, "deleted") == 400
    here.receiver.alias = "champion"
    assert _sent_by_mlflow(here.url, SECRET) == 204
    assert not here.seen.exists()


def test_a_delivery_counts_once_and_while_it_is_fresh() -> None:
    now = [1_000_000.0]
    receiver = Receiver(SECRET, "m", "champion", clock=lambda: now[0])
    headers, body = _delivery("1000000")
    assert receiver.receive(headers, body)[0] == 202
    assert receiver.receive(headers, body) == (200, {})
    assert receiver.receive({**headers, "X-MLflow-Delivery-Id": "e"}, body) == (401, {})
    assert receiver.receive(headers, body.replace(b"3", b"4")) == (401, {})
    for late, status in ((301, 401), (-301, 401), (300, 202), (-300, 202)):
        receiver.forget("d")
        now[0] = 1_000_000.0 + late
        assert receiver.receive(headers, body)[0] == status
    now[0] = 1_000_000.0 + 299
    assert receiver.receive(headers, body) == (200, {}), "it is remembered for as long as it would count"


def test_a_delivery_is_not_taken_again_by_the_next_process(tmp_path: Path) -> None:
    now = [1_000_000.0]

    def receiver(state: Path | None = None) -> Receiver:
        return Receiver(SECRET, "m", "champion", clock=lambda: now[0], state=state)

    first, kept = receiver(), tmp_path / "deliveries.json"
    headers, body = _delivery("1000000")
    assert first.receive(headers, body)[0] == 202
    now[0] += 10
    assert receiver().receive(headers, body) == (401, {}), "sent before this process started"
    assert receiver(kept).receive(headers, body) == (401, {}), "there is no file yet"
    headers, body = _delivery("1000010")
    assert receiver(kept).receive(headers, body)[0] == 202
    assert kept.stat().st_mode & 0o777 == 0o600
    now[0] += 10
    assert receiver(kept).receive(headers, body) == (200, {}), "the file has it"
    headers, body = _delivery("1000015", id="while it was down")
    assert receiver(kept).receive(headers, body)[0] == 202
    kept.write_text("[]")
    with pytest.raises(UserError, match="has no deliveries; remove it"):
        receiver(kept)


@pytest.mark.parametrize("size", ["²", "٣", "-1", "65537", ""])
def test_a_strange_length_is_refused(here: SimpleNamespace, size: str) -> None:
    host = here.url.split("/")[2]
    with socket.create_connection(host.split(":"), timeout=10) as line:
        line.sendall(f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n".encode())
        assert line.recv(100).split()[1] == b"413"


def _delivery(sent: str, id: str = "d") -> tuple[dict[str, str], bytes]:
    """Headers and body of a signed delivery."""
    from mlflow.webhooks.delivery import _generate_hmac_signature

    data = '{"name": "m", "alias": "champion", "version": 3}'
    body = f'{{"entity": "model_version_alias", "action": "created", "data": {data}}}'
    signature = _generate_hmac_signature(SECRET, id, sent, body)
    headers = {"X-MLflow-Delivery-Id": id, "X-MLflow-Timestamp": sent, "X-MLflow-Signature": signature}
    return headers, body.encode()


def test_without_a_secret_nothing_is_received() -> None:
    with pytest.raises(UserError, match="RAYPATH_WEBHOOK_SECRET"):
        Receiver("", "m", "champion")


@pytest.mark.timeout(120)
def test_a_receiver_on_this_machine_hears_of_its_mlflow(
    here: SimpleNamespace, mlflow_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that `raypath up` starts, stopped and started again between: it still knows the secret."""
    from mlflow import MlflowClient

    for name in ("MLFLOW_WEBHOOK_ALLOWED_SCHEMES", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS"):
        monkeypatch.delenv(name)
    try:
        started = local.up(mlflow_home, ray=False).mlflow
        assert started is not None
        monkeypatch.setenv("MLFLOW_TRACKING_URI", started.address)
        client = MlflowClient(started.address)
        client.create_registered_model("example_model")
        run = client.create_run("0").info
        client.create_model_version("example_model", f"{run.artifact_uri}/model", run.run_id)
        for _ in range(2):
            announce(here.url, SECRET, "example_model", "example_alias")
        assert len(client.list_webhooks()) == 1
        local.down(mlflow_home)
        local.up(mlflow_home, ray=False)
        client.set_registered_model_alias("example_model", "example_alias", "1")
        end = time.monotonic() + 20
        while not here.seen.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert here.seen.read_text().startswith("example_model example_alias 1 False")
    finally:
        local.down(mlflow_home)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(Unavailable, match="MLflow rejects the webhook"):
        announce(here.url, SECRET, "example_model", "example_alias")
