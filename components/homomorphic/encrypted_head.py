"""Linear head on encrypted features: scores = weight @ features + bias, without the secret key."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError
from raypath.components.homomorphic.packing import Packing, choose_packing
from raypath.components.homomorphic.parameters import LARGEST_SCORE, MODULI, SCALE, seal
from raypath.components.homomorphic.wire import FRESH_BYTES, read_fresh, write_result

_PACKINGS = 8
"""Numbers of texts whose encoded weights are kept."""


class EncryptedHead:
    """The last linear layer of a model. weight float [K, H], bias float [K]. Thread-safe.

    Raises DataError for values that are not finite, and for a head that is too large for one request.
    """

    def __init__(self, weight: Array, bias: Array) -> None:
        self.weight, self.bias = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
        if not (np.isfinite(self.weight).all() and np.isfinite(self.bias).all()):
            raise DataError("the weights of the head are NaN or infinite")
        self.classes, self.width = self.weight.shape
        if choose_packing(self.width, self.classes, 1) is None:
            what = f"a head of {self.width:,} features and {self.classes:,} classes is too large to be encrypted"
            raise DataError(what, fix="use a model with fewer classes")
        self._encoded = functools.lru_cache(_PACKINGS)(self._encode)

    @property
    def largest_feature(self) -> float:
        """Largest absolute value of a feature for which no score can exceed the modulus; a power of two."""
        room = LARGEST_SCORE - float(np.abs(self.bias).max())
        steepest = max(float(np.abs(self.weight).sum(axis=1).max()), 1e-9)
        return float(2.0 ** np.floor(np.log2(room / steepest))) if room > 0 else 0.0

    def packing(self, texts: int) -> Packing:
        """Return the packing of a request. Raises DataError for a number of texts that does not fit."""
        found = choose_packing(self.width, self.classes, texts)
        if found is None:
            raise DataError(f"{texts:,} texts in a request; wanted a smaller power of two")
        return found

    def score(self, body: bytes, texts: int, keys: Any) -> bytes:
        """Return the encrypted scores of the ciphertexts in `body`. keys: of `read_keys`.

        Raises DataError for a body that has other than the packing's ciphertexts.
        """
        packing = self.packing(texts)
        if len(body) != packing.inputs * FRESH_BYTES:
            what = f"the body has {len(body):,} bytes; wanted {packing.inputs * FRESH_BYTES:,} for {texts:,} texts"
            raise DataError(what, fix="send what the client wrote, unchanged")
        inputs = [read_fresh(body[n : n + FRESH_BYTES]) for n in range(0, len(body), FRESH_BYTES)]
        weights, biases = self._encoded(packing)
        made = [self._sum(inputs, row, bias, packing, keys) for row, bias in zip(weights, biases, strict=True)]
        return b"".join(map(write_result, made))

    def _sum(self, inputs: list[Any], weights: list[Any | None], bias: Any, packing: Packing, keys: Any) -> Any:
        """Return the ciphertext with the scores of one group of classes."""
        library = seal()
        new, evaluator = library.module.Ciphertext, library.evaluator
        total: Any = None
        for given, weight in zip(inputs, weights, strict=True):
            if weight is None:
                continue
            product = new()
            evaluator.multiply_plain(given, weight, product)
            if total is None:
                total = product
            else:
                evaluator.add_inplace(total, product)
        if total is None:  # all weights are 0
            raise DataError("the weights of the head are 0")
        evaluator.rescale_to_next_inplace(total)
        for step in packing.rotations:
            turned = new()
            evaluator.rotate_vector(total, step, keys, turned)
            evaluator.add_inplace(total, turned)
        # q1 in SEAL's scale is exact, so that the result has the scale of the features but for rounding.
        total.scale = SCALE
        evaluator.add_plain_inplace(total, bias)
        return total

    def _encode(self, packing: Packing) -> tuple[list[list[Any | None]], list[Any]]:
        """Return the encoded weights, [results][inputs], None for ones that are all 0, and biases, [results]."""
        weights = [
            [_plain(slots, float(MODULI[1])) if slots.any() else None for slots in row]
            for row in packing.pack_weights(self.weight)
        ]
        last = seal().context.last_parms_id()
        return weights, [_plain(slots, SCALE, last) for slots in packing.pack_bias(self.bias)]


def _plain(slots: Array, scale: float, level: Any = None) -> Any:
    """Encode numbers at a scale and a level of the moduli, the first by default."""
    library = seal()
    made = library.module.Plaintext()
    if level is None:
        library.encoder.encode(slots.tolist(), scale, made)
    else:
        library.encoder.encode(slots.tolist(), level, scale, made)
    return made
