"""Ciphertexts and keys as bytes: residues and seeds of fixed lengths, without a header and without compression.

SEAL's own format has sizes, compressed parts and nested headers that a client could forge. Here every length is known
beforehand, any seed is valid, and residues are compared with their prime, so that SEAL gets only data that this module
wrote. The second polynomial of a new ciphertext or key is random, and is sent as the 64 bytes of its seed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from raypath.components.core.arrays import Array
from raypath.components.core.errors import DataError
from raypath.components.homomorphic.parameters import DEGREE, MODULI, SCALE, SLOTS, dump, load, seal

STEPS = tuple(1 << n for n in range(SLOTS.bit_length() - 1))
"""Rotations that a client gives keys for: 1, 2, 4, ..., 2,048 slots."""
SEED_BYTES = 64
POLYNOMIAL_BYTES = 8 * DEGREE
FRESH_BYTES = POLYNOMIAL_BYTES + 6 * DEGREE + SEED_BYTES
"""Length of a new ciphertext: q0 in 8 bytes a coefficient, q1 in 6."""
RESULT_BYTES = 2 * POLYNOMIAL_BYTES
"""Length of a result, which has two polynomials of q0."""
KEY_BYTES = 2 * POLYNOMIAL_BYTES + SEED_BYTES
KEYS_BYTES = len(STEPS) * KEY_BYTES
"""Length of a client's evaluation keys, 1.6 MB."""
_MEMBERS, _ARRAY = 73, 24
"""Bytes before the residues in SEAL's format: fields of a ciphertext, header and size of an array."""


def galois_element(step: int) -> int:
    """Return the Galois element of a rotation by `step` slots."""
    return pow(3, step, 2 * DEGREE)


def read_fresh(data: bytes) -> Any:
    """Return a new ciphertext from its bytes. Raises DataError for bytes that are none."""
    first = _residues(data[:POLYNOMIAL_BYTES], 0)
    wide = np.zeros((DEGREE, 8), np.uint8)
    wide[:, :6] = np.frombuffer(data[POLYNOMIAL_BYTES:-SEED_BYTES], np.uint8).reshape(DEGREE, 6)
    second = _residues(wide.tobytes(), 1)
    library = seal()
    body = _ciphertext(library.context.first_parms_id(), (first, second), SCALE, data[-SEED_BYTES:])
    return _loaded(library.module.Ciphertext, body)


def write_fresh(made: Any) -> bytes:
    """Return the bytes of a ciphertext that SEAL encrypted with a seed."""
    raw = inflate(dump(made))
    start = _MEMBERS + _ARRAY
    second = np.frombuffer(raw, np.uint8, POLYNOMIAL_BYTES, start + POLYNOMIAL_BYTES).reshape(DEGREE, 8)[:, :6]
    return raw[start : start + POLYNOMIAL_BYTES] + second.tobytes() + raw[-SEED_BYTES:]


def read_result(data: bytes) -> Any:
    """Return a result from its bytes. Raises DataError for bytes that are none."""
    if len(data) != RESULT_BYTES:
        raise DataError(f"a result has {len(data):,} bytes; wanted {RESULT_BYTES:,}")
    parts = (_residues(data[:POLYNOMIAL_BYTES], 0), _residues(data[POLYNOMIAL_BYTES:], 0))
    library = seal()
    return _loaded(library.module.Ciphertext, _ciphertext(library.context.last_parms_id(), parts, SCALE))


def write_result(made: Any) -> bytes:
    """Return the bytes of a ciphertext of two polynomials of q0."""
    raw = inflate(dump(made))
    return raw[_MEMBERS + _ARRAY :]


def read_keys(data: bytes) -> Any:
    """Return the Galois keys of a client. Raises DataError for bytes that are none.

    Rotations work with q0 alone, so that of each key the residues of q0 and of the keys' prime are sent, and only its
    first part. SEAL wants the others: they are filled with zeros, and with a copy, and never read.
    """
    if len(data) != KEYS_BYTES:
        raise DataError(f"evaluation keys have {len(data):,} bytes; wanted {KEYS_BYTES:,}")
    library = seal()
    found = {}
    for n, step in enumerate(STEPS):
        part = data[n * KEY_BYTES : (n + 1) * KEY_BYTES]
        first = _residues(part[:POLYNOMIAL_BYTES], 0)
        last = _residues(part[POLYNOMIAL_BYTES:-SEED_BYTES], 2)
        residues = (first, bytes(POLYNOMIAL_BYTES), last)
        body = _ciphertext(library.context.key_parms_id(), residues, 1.0, part[-SEED_BYTES:])
        found[(galois_element(step) - 1) // 2] = 2 * (_header(len(body)) + body)
    parts = [struct.pack("<4QQ", *library.context.key_parms_id(), DEGREE)]
    for index in range(DEGREE):
        key = found.get(index, b"")
        parts.append(struct.pack("<Q", 2 if key else 0) + key)
    return _loaded(library.module.GaloisKeys, b"".join(parts))


def write_keys(made: Any) -> bytes:
    """Return the bytes of Galois keys that SEAL made with seeds for the rotations of STEPS."""
    raw = inflate(dump(made))
    found, place = {}, 40
    size = 16 + _MEMBERS + _ARRAY + 3 * POLYNOMIAL_BYTES + 17 + SEED_BYTES
    for index in range(DEGREE):
        (parts,) = struct.unpack_from("<Q", raw, place)
        place += 8
        if parts:
            start = place + 16 + _MEMBERS + _ARRAY
            last = start + 2 * POLYNOMIAL_BYTES
            seed = raw[place + size - SEED_BYTES : place + size]
            found[index] = raw[start : start + POLYNOMIAL_BYTES] + raw[last : last + POLYNOMIAL_BYTES] + seed
            place += parts * size
    assert place == len(raw)
    return b"".join(found[(galois_element(step) - 1) // 2] for step in STEPS)


def inflate(data: bytes) -> bytes:
    """Return the decompressed data of an object that this process wrote."""
    import pyarrow as pa

    with pa.CompressedInputStream(pa.BufferReader(data[16:]), "zstd") as stream:
        return bytes(stream.read())


def _residues(data: bytes, prime: int) -> bytes:
    """Return the residues of a polynomial unchanged. Raises DataError for one that is not below its prime."""
    values: Array = np.frombuffer(data, "<u8")
    if int(values.max()) >= MODULI[prime]:
        raise DataError("a number in it is not below its modulus", fix="send what the client wrote, unchanged")
    return data


def _ciphertext(level: Sequence[int], residues: Sequence[bytes], scale: float, seed: bytes = b"") -> bytes:
    """Return the data of a ciphertext of two polynomials in SEAL's format; the second by its seed if there is one."""
    primes = len(residues) if seed else len(residues) // 2
    data = b"".join(residues)
    members = struct.pack("<4QBQQQdQ", *level, 1, 2, DEGREE, primes, scale, 1)
    array = _header(8 + len(data)) + struct.pack("<Q", len(data) // 8) + data
    return members + array + (_header(1 + SEED_BYTES) + b"\x01" + seed if seed else b"")


def _header(length: int) -> bytes:
    return struct.pack("<HB2sBHQ", 0xA15E, 16, seal().version, 0, 0, 16 + length)


def _loaded(kind: Any, body: bytes) -> Any:
    try:
        return load(kind, body)
    except (ValueError, RuntimeError, MemoryError, IndexError) as error:
        raise DataError(f"SEAL rejects it ({type(error).__name__})", fix="send what the client wrote") from None
