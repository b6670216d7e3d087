"""Encrypted predictions: the client's keys, encoder and messages, apart from how they are sent.

A call is a generator that yields requests and receives responses, so that the synchronous and the asynchronous client
share it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from urllib.parse import urlencode

import numpy as np

from raypath.components.core.errors import DataError, Unavailable
from raypath.components.homomorphic.client_keys import ClientKeys
from raypath.components.homomorphic.encoder import Encoder
from raypath.components.homomorphic.interface import EncryptedInterface
from raypath.components.homomorphic.packing import Packing, choose_packing
from raypath.components.homomorphic.parameters import PROTOCOL
from raypath.components.homomorphic.wire import FRESH_BYTES, RESULT_BYTES
from raypath.components.serving.client.calls import Call
from raypath.components.serving.client.errors import RequestError
from raypath.components.serving.client.transport import Request
from raypath.components.tasks.responses import Predictions
from raypath.components.tasks.texts import Inputs

GONE, UNKNOWN_KEYS = 404, 409
"""Status of a version that is not in service any more, and of keys that the endpoint does not have."""


class EncryptedCalls:
    """Encrypted predictions of one client: a secret key of its own, and the encoders that it loaded. Thread-safe.

    Raises ParamsError without TenSEAL.
    """

    def __init__(self) -> None:
        self.keys = ClientKeys()
        self._about: dict[str, EncryptedInterface] = {}
        self._encoders: dict[tuple[str, str], Encoder] = {}
        self._lock = threading.Lock()

    def predict(self, inputs: Inputs, base: str, prefix: str) -> Call:
        """Predict with the model below `prefix`, "" or /models/NAME; returns Predictions."""
        try:
            return (yield from self._predict(inputs, base, prefix))
        except RequestError as error:
            if error.status != GONE or prefix not in self._about:
                raise
        # Another version is in service.
        del self._about[prefix]
        return (yield from self._predict(inputs, base, prefix))

    def _predict(self, inputs: Inputs, base: str, prefix: str) -> Call:
        if prefix not in self._about:
            response = yield Request("GET", f"{prefix}/encrypted")
            self._about[prefix] = EncryptedInterface.model_validate_json(response.content)
        about = self._about[prefix]
        if about.protocol != PROTOCOL:
            what = f"the endpoint has version {about.protocol} of encrypted predictions, this client {PROTOCOL}"
            raise DataError(what, fix="use the same version of raypath")
        encoder = self._encoder(base, about)
        features = encoder.features(encoder.render(inputs))
        largest = float(np.abs(features).max(initial=0.0))
        if not largest <= about.largest_feature:
            what = f"a feature is {largest:.3g}; this model takes at most {about.largest_feature:g}"
            raise DataError(what, fix="use predictions without encryption for this model")
        scores = np.empty((len(features), about.classes))
        start = 0
        for packing, rows in _requests(about, len(features)):
            part = features[start : start + rows]
            body = self.keys.encrypt(part, packing)
            response = yield from self._send(about, prefix, packing, body)
            results = [response.content[n : n + RESULT_BYTES] for n in range(0, len(response.content), RESULT_BYTES)]
            scores[start : start + rows] = self.keys.decrypt(results, packing, rows)
            start += rows
        found = encoder.task.predictions(encoder.task.decode(scores.astype(np.float32)))
        return Predictions.of(about.model, about.version, found)

    def _send(self, about: EncryptedInterface, prefix: str, packing: Packing, body: bytes) -> Call:
        query = urlencode({"version": about.version, "keys": self.keys.digest, "texts": packing.texts})
        request = Request("POST", f"{prefix}/encrypted/predict?{query}", content=body)
        try:
            return (yield request)
        except RequestError as error:
            if error.status != UNKNOWN_KEYS:
                raise
        yield Request("POST", "/encrypted/keys", content=self.keys.evaluation)
        return (yield request)

    def _encoder(self, base: str, about: EncryptedInterface) -> Encoder:
        with self._lock:
            name = (base, about.encoder)
            if name not in self._encoders:
                self._encoders[name] = Encoder(base, about.metadata, about.encoder, about.tokenizer)
            return self._encoders[name]


def _requests(about: EncryptedInterface, rows: int) -> Iterator[tuple[Packing, int]]:
    """Yield packing and number of rows of each request. Raises Unavailable where not one text fits."""
    most = 1
    while (found := _packing(about, 2 * most)) is not None:
        most *= 2
    if (found := _packing(about, 1)) is None:
        what = f"the endpoint takes requests of {about.max_bytes:,} bytes, fewer than one encrypted text has"
        raise Unavailable(what, fix="raise serve.max_body")
    while rows > 0:
        size = min(most, 1 << (rows - 1).bit_length())
        found = _packing(about, size)
        assert found is not None
        yield found, min(size, rows)
        rows -= size


def _packing(about: EncryptedInterface, texts: int) -> Packing | None:
    found = choose_packing(about.width, about.classes, texts)
    fits = found is not None and found.inputs * FRESH_BYTES <= about.max_bytes and texts <= about.max_texts
    return found if fits else None
