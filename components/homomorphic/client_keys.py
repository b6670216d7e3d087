"""Keys of a client: encrypt features and decrypt scores. The secret key never leaves the process."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError
from raypath.components.homomorphic.packing import Packing
from raypath.components.homomorphic.parameters import SCALE, seal
from raypath.components.homomorphic.wire import (
    STEPS,
    galois_element,
    read_result,
    write_fresh,
    write_keys,
)

NOISE = 2.0**-17
"""Standard deviation of the noise that is added to decrypted scores, 7.6e-6; see docs/encrypted-predictions.md."""


class ClientKeys:
    """A new secret key with its evaluation keys. Thread-safe.

    evaluation: bytes for the server, which compute on ciphertexts and decrypt nothing; digest: their SHA-256.
    Raises ParamsError without TenSEAL.
    """

    def __init__(self) -> None:
        library = seal()
        generator = library.module.KeyGenerator(library.context)
        secret = generator.secret_key()
        self._encryptor = library.module.Encryptor(library.context, secret)
        self._decryptor = library.module.Decryptor(library.context, secret)
        self.evaluation = write_keys(generator.create_galois_keys([galois_element(step) for step in STEPS]))
        self.digest = hashlib.sha256(self.evaluation).hexdigest()
        self._rng = np.random.Generator(np.random.PCG64(secrets.randbits(128)))

    def encrypt(self, features: Array, packing: Packing) -> bytes:
        """Encrypt features, float [N, width], as the body of a request."""
        library = seal()
        made = []
        for slots in packing.pack_features(features):
            plain = library.module.Plaintext()
            library.encoder.encode(slots.tolist(), SCALE, plain)
            made.append(write_fresh(self._encryptor.encrypt_symmetric(plain)))
        return b"".join(made)

    def decrypt(self, results: Sequence[bytes], packing: Packing, rows: int, noise: float = NOISE) -> Array:
        """Decrypt the scores of `rows` texts, float64 [rows, classes], and add noise. Raises DataError.

        noise: standard deviation; 0 leaves the scores as they were decrypted, which must then not be shown to anyone.
        """
        if len(results) != packing.results:
            raise DataError(f"{len(results)} results; wanted {packing.results}")
        slots = np.array([self._slots(each) for each in results])
        scores = packing.unpack_scores(slots, rows)
        return scores + self._rng.normal(0.0, noise, scores.shape) if noise else scores

    def _slots(self, result: bytes) -> Any:
        library = seal()
        plain = library.module.Plaintext()
        self._decryptor.decrypt(read_result(result), plain)
        return library.encoder.decode_double(plain)
