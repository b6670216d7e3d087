"""Random numbers for sampling and noise that nobody can repeat who does not have the key of the training.

The key is 32 random bytes of the operating system, not the seed of the run, which is public. It is in the step's
scratch folder until the step is committed, beside the checkpoints: a training that resumes draws the same numbers for
the same step, so that it ends with the same weights and spends no further privacy. Numbers are the stream of the cipher
ChaCha20, with a key of its own for each purpose and step.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.files import write_atomically

FILE = "privacy.key"
KEY_BYTES = 32


def load_key(scratch: Path | None) -> bytes:
    """Return the key of a training, made if there is none; without a folder it is new each time."""
    if scratch is None:
        return secrets.token_bytes(KEY_BYTES)
    path = scratch / FILE
    if not path.is_file():
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, secrets.token_hex(KEY_BYTES))
        path.chmod(0o600)
    return bytes.fromhex(path.read_text(encoding="ascii"))


def key_id(key: bytes) -> str:
    """Return a name for a key that says nothing about it, 16 hex digits."""
    return hashlib.blake2b(key, digest_size=8, person=b"raypath.id").hexdigest()


class SecretRandom:
    """Random numbers by purpose and step. Never log the key."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"SecretRandom({key_id(self._key)})"

    def sample(self, step: int, count: int, rate: float) -> Array:
        """Return the numbers below `count` that are drawn, each with the chance `rate` independently of the others
        (Poisson sampling): sorted int64."""
        drawn = self._integers("sample", step, count)
        return np.flatnonzero(drawn < np.uint64(min(int(rate * 2.0**64), 2**64 - 1)))

    def noise(self, step: int, count: int) -> Array:
        """Return numbers of the standard normal distribution, float64 [count].

        Each is the sum of four by Box and Muller's method, halved: the low bits of one alone tell of the sum to which
        it is added (Mironov, 2012; Holohan and Braghin, Secure Random Sampling in Differential Privacy, 2021).
        """
        drawn = self._integers("noise", step, 4 * count)
        uniform = ((drawn >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # in (0, 1)
        radius, angle = np.split(uniform, 2)
        radius, angle = np.sqrt(-2.0 * np.log(radius)), 2.0 * np.pi * angle
        normals = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])  # [4 * count]
        return np.asarray(normals.reshape(4, count).sum(axis=0) / 2.0)

    def _integers(self, purpose: str, step: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        from cryptography.hazmat.primitives.ciphers import Cipher
        from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

        place = f"{purpose}/{step}".encode()
        key = hashlib.blake2b(place, key=self._key, digest_size=32, person=b"raypath.dp").digest()
        stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()
        return np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8")
