"""SentencePiece's table of normalized characters, as the normalizer `Precompiled` of tokenizers reads it.

The table is a trie of UTF-8 bytes in a double array (darts-clone), followed by the replacements, each ended by a zero
byte. A unit of the array has in bits 0-7 the byte that leads to it, in bit 8 whether a key ends there, and from bit 10
on its offset; the unit of a key's end has bit 31 and the position of its replacement. A child is at the position of its
parent XOR the parent's offset XOR the child's byte.
"""

from __future__ import annotations

import struct
from typing import Any

_BYTES = 256
_ENDS, _LEAF = 1 << 8, 1 << 31
_OFFSET = 10
_SMALL_OFFSETS = 1 << 21

Node = dict[int, Any]
"""Children by their byte; 0 leads to the position of a replacement."""


def charsmap(replacements: dict[str, str]) -> bytes:
    """Encode replacements of characters."""
    texts = bytearray()
    root: Node = {}
    for key, text in sorted(replacements.items()):
        node = root
        for byte in key.encode():
            node = node.setdefault(byte, {})
        node[0] = len(texts)
        texts += text.encode() + b"\0"
    units = _double_array(root)
    return struct.pack(f"<I{len(units)}I", 4 * len(units), *units) + bytes(texts)


def _double_array(root: Node) -> list[int]:
    units, free = [0] * _BYTES, _FreeUnits()
    free.take(0, [])
    waiting = [(0, root)]
    while waiting:
        position, node = waiting.pop()
        base = free.find(list(node))
        units.extend([0] * (max(base | (_BYTES - 1), position) + 1 - len(units)))
        offset = position ^ base
        if offset >= _SMALL_OFFSETS:
            raise ValueError(f"a trie of {len(units)} units is too large")
        units[position] |= offset << _OFFSET | (_ENDS if 0 in node else 0)
        for byte, child in node.items():
            if byte:
                units[base ^ byte] = byte
                waiting.append((base ^ byte, child))
            else:
                units[base] = child | _LEAF
    return units


class _FreeUnits:
    """Units that are not in use, and bases that no node has."""

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._bases: set[int] = set()
        self._searched: dict[int, int] = {}
        """By the number of labels, the last unit that was chosen: no earlier one is tried again."""

    def find(self, labels: list[int]) -> int:
        """Take a base whose units for all labels are free."""
        unit = self._searched.get(len(labels), 1)
        while unit in self._used or not self._fits(unit ^ labels[0], labels):
            unit += 1
        self._searched[len(labels)] = unit
        self.take(unit ^ labels[0], labels)
        return unit ^ labels[0]

    def take(self, base: int, labels: list[int]) -> None:
        """Use a base and its units; without labels, the unit of the base itself."""
        self._bases.add(base)
        self._used.update([base ^ label for label in labels] or [base])

    def _fits(self, base: int, labels: list[int]) -> bool:
        return base not in self._bases and not any(base ^ label in self._used for label in labels)
