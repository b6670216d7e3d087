"""A client and a head in one process, with real ciphertexts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tenseal", reason="the extra he is not installed")

from raypath.components.core.errors import DataError
from raypath.components.homomorphic.client_keys import NOISE, ClientKeys
from raypath.components.homomorphic.encoder import Encoder, write_encoder
from raypath.components.homomorphic.encrypted_head import EncryptedHead
from raypath.components.homomorphic.model_head import encoder_digest, read_head
from raypath.components.homomorphic.wire import RESULT_BYTES, read_keys
from raypath.components.inference.engine import Engine
from raypath.components.models.base_models import build_model, tokenizer_digest
from raypath.components.models.heads.pooling_layer import append_pooling
from raypath.components.models.metadata import read_metadata
from tests.tiny import tiny_bert
from tests.tiny_classifier import LABELS, texts, tiny_classifier

Keys = tuple[ClientKeys, Any]


@pytest.fixture(scope="module")
def keys() -> Keys:
    made = ClientKeys()
    return made, read_keys(made.evaluation)


def scores(head: EncryptedHead, features: Any, keys: Keys, noise: float = 0.0) -> Any:
    size = 1 << (len(features) - 1).bit_length()
    packing = head.packing(size)
    body = head.score(keys[0].encrypt(features, packing), size, keys[1])
    results = [body[n : n + RESULT_BYTES] for n in range(0, len(body), RESULT_BYTES)]
    return keys[0].decrypt(results, packing, len(features), noise)


@pytest.mark.parametrize(("width", "classes", "rows"), [(384, 10, 1), (384, 10, 5), (32, 3, 16), (64, 200, 1)])
def test_encrypted_scores_are_those_of_the_plain_head(width: int, classes: int, rows: int, keys: Keys) -> None:
    rng = np.random.default_rng(classes)
    head = EncryptedHead(rng.normal(size=(classes, width)) * 5, rng.normal(size=classes))
    features = np.tanh(rng.normal(size=(rows, width)))
    wanted = features @ head.weight.T + head.bias
    assert head.largest_feature >= 1
    assert np.abs(scores(head, features, keys) - wanted).max() < 1e-6
    noisy = scores(head, features, keys, NOISE)
    assert 0 < np.abs(noisy - wanted).max() < 5e-5


def test_another_clients_keys_decrypt_nothing(keys: Keys) -> None:
    head, other = EncryptedHead(np.ones((2, 8)), np.zeros(2)), ClientKeys()
    features, packing = np.ones((1, 8)), head.packing(1)
    result = head.score(keys[0].encrypt(features, packing), 1, keys[1])
    assert np.abs(other.decrypt([result], packing, 1) - 8).min() > 1e-2


@pytest.mark.parametrize("weight", [np.full((2, 4), np.nan), np.zeros((6_000, 4_000))])
def test_a_head_that_cannot_be_encrypted_is_rejected(weight: Any) -> None:
    with pytest.raises(DataError):
        EncryptedHead(weight, np.zeros(len(weight)))


def test_the_encoder_that_a_client_gets_has_the_features_of_the_model_and_no_head(tmp_path: Path, keys: Keys) -> None:
    folder, out, lines = tmp_path / "model", tmp_path / "encoder", texts(6)
    tiny_classifier(folder)
    write_encoder(folder, out)
    assert not read_weights(out).any()
    assert read_weights(folder).any()
    encoder = Encoder(str(out), read_metadata(folder), encoder_digest(folder), tokenizer_digest(folder))
    plain = Engine(folder, precision="fp32").record(encoder._tokenizer.encode(lines))
    found = scores(read_head(folder), encoder.features(lines), keys)
    assert found == pytest.approx(plain, abs=1e-4)
    assert encoder.task.predictions(encoder.task.decode(found))[0].label in LABELS


def read_weights(folder: Path) -> Any:
    from safetensors.numpy import load_file

    return load_file(folder / "model.safetensors")["classifier.weight"]


def test_a_head_on_frozen_features_needs_the_base_model_alone(tmp_path: Path) -> None:
    folder, base = tmp_path / "model", tiny_bert(tmp_path / "base")
    tiny_classifier(folder)
    model = build_model("AutoModelForSequenceClassification", str(base), LABELS, None)
    append_pooling(model)
    model.save_pretrained(folder)
    digests = encoder_digest(folder), tokenizer_digest(folder)
    encoder = Encoder(str(base), read_metadata(folder), *digests)
    assert encoder.features(texts(2)).shape == (2, 32)
    with pytest.raises(DataError, match="another encoder"):
        Encoder(str(tiny_bert(tmp_path / "other", seed=1)), read_metadata(folder), *digests)
    (base / "vocab.txt").unlink(missing_ok=True)
    (base / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="another tokenizer"):
        Encoder(str(base), read_metadata(folder), *digests)
