"""Keys that are guessed, changed, replayed after their end, and told apart by time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import httpx
import pytest

from raypath.components.serving.api.route_table import RULES, RouteTable
from raypath.components.serving.metering import api_keys
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.metering.holder import AccessError
from raypath.components.serving.metering.usage import UsageMeter, read_usage
from raypath.components.serving.middleware.auth import AuthMiddleware
from tests.components.serving.server import served, served_app, service_of
from tests.components.serving.test_auth import App
from tests.security.durations import told_apart
from tests.tiny_classifier import tiny_classifier

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """URL of a service, the text of a key, the folder of the keys."""
    folder = tmp_path_factory.mktemp("guesses")
    _, key = KeyStore(folder / "keys").create("anna")
    service = service_of({"m": tiny_classifier(folder / "m")}, access=str(folder / "keys"))
    with served(service) as url:
        yield url, key, folder / "keys"
        service.auth.meter.flush()


def test_a_key_that_is_nearly_right_is_wrong(place: tuple[str, str, Path]) -> None:
    url, key, folder = place
    prefix, id, secret = key.split("_", 2)
    guesses = [secret[:n] + ("A" if secret[n] != "A" else "B") + secret[n + 1 :] for n in range(len(secret))]
    guesses += [secret[:-1], secret + "x", secret.swapcase(), "", "*", "%", secret[::-1], secret * 2, " ".join(secret)]
    texts = [f"{prefix}_{id}_{guess}" for guess in guesses if guess != secret]
    texts += [f"rp_{'0' * 12}_{secret}", f"rp__{secret}", secret, id, f"xx_{id}_{secret}", key.upper(), "rp", "_" * 60]
    stored = KeyStore(folder).list()[0]
    texts += [f"rp_{id}_{stored.digest}", stored.digest, (folder / "pepper").read_text()]
    with httpx.Client(base_url=url) as client:
        replies = [client.get("/v1/models", headers={"authorization": f"Bearer {text}"}) for text in texts]
        assert {reply.status_code for reply in replies} == {401}
        assert len({reply.text for reply in replies}) <= 2, "no reply tells how near a guess is"
        assert client.get("/v1/models", headers={"authorization": f"Bearer {key}"}).status_code == 200


def test_guesses_are_counted_and_name_nobody(place: tuple[str, str, Path]) -> None:
    _, key, folder = place
    before = sum(row.sums.rejected for row in read_usage(folder / "usage"))
    with served_again(folder) as (url, meter):
        for n in range(20):
            assert httpx.get(f"{url}/card", headers={"x-api-key": f"{key[:-1]}.{n}"}).status_code == 401
        assert meter.flush()
    rows = read_usage(folder / "usage")
    assert sum(row.sums.rejected for row in rows) - before >= 20
    assert {row.name for row in rows if row.sums.rejected} == {""}, "a guess is not put to the account of the holder"


@contextlib.contextmanager
def served_again(folder: Path) -> Iterator[tuple[str, UsageMeter]]:
    """The same keys behind a middleware of its own, without a model."""
    meter = UsageMeter(folder / "usage", "again", period=600, model="m")
    try:
        with served_app(AuthMiddleware(App(), folder, meter, RouteTable(RULES))) as url:
            yield url, meter
    finally:
        meter.close()


def test_a_key_is_not_replayed_after_its_end(tmp_path: Path) -> None:
    store = KeyStore(tmp_path)
    _, ended = store.create("old", expires=NOW)
    _, taken = store.create("taken")
    reader = KeyStore(tmp_path)
    reader.check(ended, "predict", (NOW - timedelta(seconds=1)).timestamp())
    reader.check(taken, "predict", NOW.timestamp())
    store.revoke("taken")
    reader._checked_at = float("-inf")
    for text, why in ((ended, "expired"), (taken, "revoked")):
        with pytest.raises(AccessError, match=f"this key is {why}") as caught:
            reader.check(text, "predict", NOW.timestamp())
        assert caught.value.status == 401
    wrong = f"{taken[:-1]}{'A' if taken[-1] != 'A' else 'B'}"
    with pytest.raises(AccessError, match="this key is not known"):
        reader.check(wrong, "predict", NOW.timestamp())
    _, other = store.create("taken")
    assert other != taken
    with pytest.raises(AccessError, match="revoked"):
        reader.check(taken, "predict", NOW.timestamp())


def test_a_key_of_another_home_is_unknown_with_its_own_entry(tmp_path: Path) -> None:
    """The entry of one home, copied to another, does not check there: the pepper differs."""
    _, text = KeyStore(tmp_path / "a").create("anna")
    KeyStore(tmp_path / "b").create("bert")
    (tmp_path / "b" / "keys.json").write_bytes((tmp_path / "a" / "keys.json").read_bytes())
    with pytest.raises(AccessError, match="not known"):
        KeyStore(tmp_path / "b").check(text, "predict", NOW.timestamp())


@pytest.mark.timing
@pytest.mark.parametrize("leak", [0.0, 200e-6], ids=["as it is", "with a leak"])
def test_the_time_of_a_check_tells_nothing(
    place: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch, leak: float
) -> None:
    """Real requests, in random order: an unknown id, a known one with a wrong start, and with a wrong end.

    With a leak, a check that takes 0.2 ms longer for a known id, the same statistic finds it.
    """
    url, key, _ = place
    if leak:
        monkeypatch.setattr(api_keys, "_NO_DIGEST", None)
        monkeypatch.setattr(api_keys.hmac, "compare_digest", partial(_leaky, leak))
    secret = key.split("_", 2)[2]
    wrong = {c: "A" if c != "A" else "B" for c in (secret[0], secret[-1])}
    kinds = {
        "unknown": f"rp_{'0' * 12}_{secret}",
        "start": f"{key[: -len(secret)]}{wrong[secret[0]]}{secret[1:]}",
        "end": f"{key[:-1]}{wrong[secret[-1]]}",
    }
    assert told_apart(url, {kind: ("/v1/models", text) for kind, text in kinds.items()}, 401) == bool(leak)


def _leaky(seconds: float, digest: str, stored: str | None) -> bool:
    """A comparison that takes longer where there is something to compare with."""
    end = time.perf_counter() + (seconds if stored else 0.0)
    while time.perf_counter() < end:
        pass
    return digest == stored
