"""Parameters of the CKKS scheme, the same for every client and server, and Microsoft SEAL, which TenSEAL brings.

The ring has degree 8,192 and the modulus 168 bits, of at most 218 for 128-bit security (Homomorphic Encryption Security
Standard, 2018). A ciphertext begins with two primes, q0 and q1. The multiplication by the weights uses up q1, so that
all rotations work with q0 alone. Features are encoded at a scale of 2^46 and weights at q1, so that the result has the
scale of the features exactly.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import struct
from dataclasses import dataclass
from typing import Any

from raypath.components.core.errors import ParamsError

DEGREE = 8_192
"""Coefficients of a polynomial."""
SLOTS = DEGREE // 2
"""Numbers in a ciphertext."""
MODULI = (1_152_921_504_606_748_673, 281_474_976_694_273, 1_152_921_504_606_830_593)
"""q0, q1, and the prime of the keys."""
BITS = (60, 48, 60)
SCALE = 2.0**46
LARGEST_SCORE = 2.0**12
"""Largest absolute value of a score; twice as much would exceed q0."""
PROTOCOL = 1
"""Version of parameters, packing and formats together."""


@dataclass(frozen=True)
class Seal:
    """Library and objects of the parameters. module: `tenseal.sealapi`; version: of its file format."""

    module: Any
    context: Any
    encoder: Any
    evaluator: Any
    version: bytes


def has_tenseal() -> bool:
    """Return True if TenSEAL is installed."""
    return importlib.util.find_spec("tenseal") is not None


@functools.cache
def seal() -> Seal:
    """Return SEAL with the parameters. Raises ParamsError without TenSEAL."""
    if not has_tenseal():
        raise ParamsError("encrypted predictions need the Python package tenseal", fix="pip install 'raypath[he]'")
    from tenseal import sealapi

    made = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
    made.set_poly_modulus_degree(DEGREE)
    moduli = sealapi.CoeffModulus.Create(DEGREE, list(BITS))
    if tuple(each.value() for each in moduli) != MODULI:
        raise ParamsError("this version of tenseal chooses other primes", fix="pip install 'tenseal>=0.3.18,<0.4'")
    made.set_coeff_modulus(moduli)
    # SEAL itself rejects parameters below 128-bit security here.
    context = sealapi.SEALContext(made, True, sealapi.SEC_LEVEL_TYPE.TC128)
    assert context.parameters_set(), context.parameters_error_message()
    version = dump(made)[3:5]
    return Seal(sealapi, context, sealapi.CKKSEncoder(context), sealapi.Evaluator(context), version)


def dump(thing: Any) -> bytes:
    """Return an object of SEAL as SEAL writes it: a header of 16 bytes, then data compressed with Zstandard.

    SEAL writes to files alone; this one is in memory.
    """
    file = os.memfd_create("raypath")
    try:
        thing.save(f"/proc/self/fd/{file}")
        return os.pread(file, os.fstat(file).st_size, 0)
    finally:
        os.close(file)


def load(kind: Any, data: bytes) -> Any:
    """Return an object of SEAL from its uncompressed data. Raises ValueError or RuntimeError for data that is none."""
    library = seal()
    header = struct.pack("<HB2sBHQ", 0xA15E, 16, library.version, 0, 0, 16 + len(data))
    file = os.memfd_create("raypath")
    try:
        with os.fdopen(file, "wb", closefd=False) as out:
            out.write(header + data)
        made = kind()
        made.load(library.context, f"/proc/self/fd/{file}")
        return made
    finally:
        os.close(file)
