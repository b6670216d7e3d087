"""Encrypted predictions: the client, the routes with keys and limits, and real ciphertexts over a real HTTP server."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from raypath import Client, DataError, ParamsError, RequestError
from raypath.components.homomorphic.client_keys import ClientKeys
from raypath.components.homomorphic.encoder import write_encoder
from raypath.components.homomorphic.key_store import EXPIRES, PER_OWNER, EvaluationKeyStore
from raypath.components.homomorphic.wire import FRESH_BYTES, KEYS_BYTES, SEED_BYTES
from raypath.components.serving import params
from raypath.components.serving.metering.api_keys import KeyStore
from raypath.components.serving.params import check_encrypted
from tests.components.serving.server import LIMITS, served, service_of
from tests.tiny_classifier import texts, tiny_classifier

tenseal = pytest.importorskip("tenseal", reason="the extra he is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")
SETTINGS = LIMITS.model_copy(update={"encrypted": True, "max_body": 2_000_000})
BYTES = {"content-type": "application/octet-stream"}


@dataclass
class Place:
    """An endpoint of the models m and n; base: the exported encoder of m."""

    url: str
    key: str
    other_key: str
    base: str
    access: Path
    service: Any


@pytest.fixture(scope="module")
def keys() -> ClientKeys:
    return ClientKeys()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder, access = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("access")
    models = {"m": tiny_classifier(folder / "m"), "n": tiny_classifier(folder / "n", kind="set", seed=1)}
    for name in models:
        write_encoder(folder / name, folder / f"{name}-encoder")
    store = KeyStore(access)
    key, other = (store.create(name, ["predict"], tokens_per_minute=20_000)[1] for name in ("a", "b"))
    service = service_of(models, SETTINGS, access=str(access))
    with served(service) as url:
        yield Place(url, key, other, str(folder / "m-encoder"), access, service)


def post(place: Place, path: str, body: bytes, key: str = "") -> httpx.Response:
    return httpx.post(place.url + path, content=body, headers={**BYTES, "x-api-key": key or place.key}, timeout=20)


def predict_path(keys: str, version: int = 1, count: int = 1) -> str:
    return f"/encrypted/predict?version={version}&keys={keys}&texts={count}"


def test_encrypted_predictions_are_the_plain_ones(place: Place) -> None:
    lines = texts(7)
    with Client(place.url, place.key) as client:
        plain, found = client.predict(lines), client.predict_encrypted(lines, place.base)
        assert client.card().model_extra["encrypted"] is True  # type: ignore[index]
        again = client.predict_encrypted("a lovely cup", place.base)
    assert [each.label for each in found] == [each.label for each in plain]
    for one, two in zip(found, plain, strict=True):
        # The endpoint computes in bf16 or fp32, whatever this machine is faster with; the client in fp32.
        assert one.scores == pytest.approx(two.scores, abs=0.05)
    assert (found.model, found.version, len(again)) == ("m", 1, 1)


def test_an_additional_model_and_the_asynchronous_client(place: Place) -> None:
    async def both() -> tuple[Any, Any]:
        async with Client(place.url, place.key, model="n") as client:
            base = place.base.replace("m-encoder", "n-encoder")
            return await client.predict_async("tea"), await client.predict_encrypted_async("tea", base)

    plain, found = asyncio.run(both())
    assert found[0].labels == plain[0].labels
    assert found[0].scores == pytest.approx(plain[0].scores, abs=0.05)


def test_keys_of_another_api_key_are_unknown_and_expire(place: Place, keys: ClientKeys) -> None:
    assert post(place, "/encrypted/keys", keys.evaluation).json()["keys"] == keys.digest
    body = bytes(FRESH_BYTES)
    assert post(place, predict_path(keys.digest), body).status_code == 200
    assert post(place, predict_path(keys.digest), body, place.other_key).status_code == 409
    assert post(place, predict_path("0" * 64), body).status_code == 409
    stored = next((place.access / "usage" / "evaluation-keys").rglob(f"{keys.digest}.keys"))
    assert stored.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"version": 2}, 404), ({"count": 3}, 422), ({"count": 64}, 422), ({"count": 0}, 422), ({"count": 4_096}, 422),
    ],
)  # fmt: skip
def test_wrong_parameters_are_rejected(change: dict[str, int], status: int, place: Place, keys: ClientKeys) -> None:
    post(place, "/encrypted/keys", keys.evaluation)
    assert post(place, predict_path(keys.digest, **change), bytes(FRESH_BYTES)).status_code == status


def test_the_routes_need_a_key_and_the_setting(place: Place, tmp_path: Path) -> None:
    assert httpx.get(place.url + "/encrypted").status_code == 401
    assert httpx.post(place.url + "/encrypted/keys", content=b"x").status_code == 401
    with served(service_of({"m": tiny_classifier(tmp_path)}, LIMITS)) as url:
        assert httpx.get(url + "/encrypted").status_code == 404
        assert httpx.get(url + "/card").json()["encrypted"] is False


def test_secret_keys_are_rejected_with_a_clear_line(place: Place) -> None:
    private = tenseal.context(tenseal.SCHEME_TYPE.CKKS, 8192, coeff_mod_bit_sizes=[60, 40, 60])
    private.global_scale = 2**40
    for data in (
        private.serialize(save_secret_key=True),
        private.serialize(save_secret_key=True, save_galois_keys=False, save_relin_keys=False),
    ):
        found = post(place, "/encrypted/keys", data[: SETTINGS.max_body])
        assert found.status_code == 422
        assert "secret key" in found.json()["detail"]
    public = post(place, "/encrypted/keys", private.serialize(save_secret_key=False, save_galois_keys=False))
    assert public.status_code == 422
    assert "wanted 1,573,632" in public.json()["detail"]


def test_usage_counts_the_most_tokens_that_a_text_may_have(place: Place, keys: ClientKeys) -> None:
    post(place, "/encrypted/keys", keys.evaluation, place.other_key)
    before = httpx.get(place.url + "/card", headers={"x-api-key": place.other_key}).headers
    after = post(place, predict_path(keys.digest, count=2), bytes(FRESH_BYTES), place.other_key)
    assert after.status_code == 200
    left = "x-ratelimit-remaining-tokens"
    assert int(before[left]) - int(after.headers[left]) <= 2 * 32


def test_the_store_keeps_few_keys_and_forgets_unused_ones(tmp_path: Path, keys: ClientKeys) -> None:
    now = [1e9]
    store = EvaluationKeyStore(tmp_path, clock=lambda: now[0])
    made = []
    for number in range(PER_OWNER + 2):
        now[0] += 1
        seed = number.to_bytes(SEED_BYTES, "little")  # another seed makes other keys, of no use to anyone
        made.append(store.put("a", keys.evaluation[:-SEED_BYTES] + seed))
    assert len(list(tmp_path.rglob("*.keys"))) == PER_OWNER
    other = EvaluationKeyStore(tmp_path, clock=lambda: now[0])  # another replica
    assert other.get("a", made[-1]) is not None
    for digest, owner in ((made[0], "a"), (made[-1], "b"), ("../" + made[-1], "a")):
        with pytest.raises(KeyError):
            store.get(owner, digest)
    now[0] += EXPIRES + 1
    with pytest.raises(KeyError):
        store.get("a", made[-1])


def test_a_base_with_another_encoder_is_rejected_before_anything_is_sent(place: Place) -> None:
    with Client(place.url, place.key) as client, pytest.raises(DataError, match="another encoder"):
        client.predict_encrypted("tea", place.base.replace("m-encoder", "n-encoder"))


def test_an_endpoint_without_encrypted_predictions_says_so(tmp_path: Path) -> None:
    service = service_of({"m": tiny_classifier(tmp_path)}, LIMITS)
    with served(service) as url, Client(url) as client, pytest.raises(RequestError) as error:
        client.predict_encrypted("tea", str(tmp_path))
    assert error.value.status == 404


def test_the_setting_needs_tenseal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(params.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ParamsError, match=r"raypath\[he\]"):
        check_encrypted(SETTINGS)


def test_replicas_without_api_keys_are_rejected() -> None:
    check_encrypted(SETTINGS.model_copy(update={"open": True}))
    with pytest.raises(ParamsError, match=r"leave serve.open unset, or set serve.replicas=1"):
        check_encrypted(SETTINGS.model_copy(update={"open": True, "replicas": 2}))


@pytest.mark.parametrize("seed", range(3))
def test_broken_uploads_and_ciphertexts_never_fail_the_endpoint(seed: int, place: Place, keys: ClientKeys) -> None:
    """Bytes that were cut, changed, or made up: 200 for residues that are valid, else 422; the endpoint goes on."""
    rng = np.random.default_rng(seed)
    post(place, "/encrypted/keys", keys.evaluation)
    for kind, good in (("keys", keys.evaluation), ("predict", bytes(rng.integers(0, 8, FRESH_BYTES, np.uint8)))):
        path = "/encrypted/keys" if kind == "keys" else predict_path(keys.digest)
        flipped = bytearray(good)
        for position in rng.integers(0, len(good), 20):
            flipped[position] ^= 1 << int(rng.integers(8))
        bodies = [bytes(flipped), good[: int(rng.integers(len(good)))], good + b"0", rng.bytes(len(good)), b""]
        assert {post(place, path, body).status_code for body in bodies} <= {200, 422}
    assert post(place, predict_path(keys.digest), bytes(FRESH_BYTES)).status_code == 200
    assert hashlib.sha256(keys.evaluation).hexdigest() == keys.digest
    assert len(keys.evaluation) == KEYS_BYTES
